"""What must hold between committed results, whatever the figures: who opened what, and who can leak no less than whom.

``python -m tests.test_invariants STORE`` checks the paired ones on a store's results.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench import games
from bench.board import matrix
from bench.board.leaderboard import load
from bench.board.words import preset
from bench.core.errors import UsageError
from bench.games.membership import MembershipSheet, make_sheet, paired
from bench.spec.result import Result
from bench.store.committed import read_sheet
from bench.store.store import Store
from tests.results_factory import result

BOARDS = Path(__file__).resolve().parents[1] / "leaderboards"
Read = Callable[[Result], str | None]
#: two-sided, so that a margin of 10^-6 on one side
MARGIN = 2e-6
#: (part, whole): every coalition of the second holds the first's, and is asked about the same victims
PARTS = (
    ("user", "outsider"),
    ("outsider", "silo"),
    ("outsider", "server"),
    ("silo", "server+silo"),
    ("server", "server+silo"),
    ("outsider", "all-but-one"),
    ("server+silo", "all-but-one"),
)
#: the server sees sums and no upload, nor does it with one silo's help
EXACT = {"secagg", "rlwe", "fedshield-exact", "threshold-ckks"}
#: the server opens nothing, and one silo's key opens everything
ONE_KEY = {"fedshield", "ckks", "bfv"}
#: attacks that read nothing but uploads
ON_UPLOADS = {"fedmia", "inversion"}


def sheets(results: Iterable[Result], read: Read) -> Iterator[tuple[Result, MembershipSheet]]:
    for one in results:
        text = read(one) if one.scores_sha256 else None
        sheet = games.load(text) if text else None
        if isinstance(sheet, MembershipSheet) and one.status == "ok" and not one.active:
            yield one, sheet


def too_little(known: Sequence[tuple[Result, MembershipSheet]]) -> tuple[int, list[str]]:
    """How many pairs of adversaries were compared, and those whose whole leaks less than its part."""
    by_key = {(r.run, r.attack, str(r.spec["attack"]), r.adversary): sheet for r, sheet in known}
    compared, wrong = 0, []
    for (run, attack, options, adversary), whole in by_key.items():
        for part in (a for a, b in PARTS if b == adversary):
            less = by_key.get((run, attack, options, part))
            if less is None:
                continue
            try:
                found = paired(whole, less)
            except UsageError:
                continue  # too few shared candidates
            compared += 1
            value = found.interval.value or 0.0
            if value < 0 and (found.p if found.p is not None else 1.0) < MARGIN:
                wrong.append(f"{attack} of {run}: {adversary} is {value:.3f} to {part} (p {found.p:.1e})")
    return compared, wrong


def lowered(known: Sequence[tuple[Result, MembershipSheet]], defense: str) -> list[tuple[str, float, float]]:
    """(adversary, AUC under fedavg less that under ``defense``, p) by run of the same planting and attack mia."""
    by_key = {(r.defense, preset(r), r.task, r.seed, r.adversary): s for r, s in known if r.attack == "mia"}
    found = []
    for key, sheet in by_key.items():
        other = by_key.get((defense, *key[1:]))
        if key[0] == "fedavg" and other is not None:
            difference = paired(sheet, other)
            found.append((key[4], difference.interval.value or 0.0, difference.p if difference.p is not None else 1.0))
    return found


@pytest.fixture(scope="module")
def committed() -> list[tuple[Result, MembershipSheet]]:
    return list(sheets(load(BOARDS), lambda r: read_sheet(BOARDS, str(r.scores_sha256))))


@pytest.fixture(scope="module")
def cells() -> list[matrix.Entry]:
    return [one for file in matrix.files(BOARDS) for one in matrix.load(file).values()]


def test_a_coalition_leaks_no_less_than_its_part(committed: list[tuple[Result, MembershipSheet]]) -> None:
    compared, wrong = too_little(committed)
    assert compared >= 30
    assert wrong == []


def test_dp_sgd_at_8_lowers_leakage_on_the_same_records(committed: list[tuple[Result, MembershipSheet]]) -> None:
    quick = [(r, s) for r, s in committed if preset(r) == "quick"]
    found = lowered(quick, "dp-sgd")
    assert {adversary for adversary, _, _ in found} >= {"outsider", "silo", "server", "server+silo", "all-but-one"}
    for adversary, difference, p in found:
        if adversary != "user":
            assert difference > 0, adversary
            assert p < MARGIN, adversary


def statuses(cells: Sequence[matrix.Entry], defenses: set[str], adversary: str) -> set[tuple[str, str]]:
    return {
        (one.defense, one.status)
        for one in cells
        if one.defense in defenses and one.attack in ON_UPLOADS and one.adversary == adversary
    }


def test_a_server_reads_no_upload_that_a_channel_sealed(cells: list[matrix.Entry]) -> None:
    found = statuses(cells, EXACT | ONE_KEY, "server")
    assert {status for _, status in found} == {"nothing-opened"}
    assert {defense for defense, _ in found} == EXACT | ONE_KEY


def test_one_silo_s_help_opens_one_key_and_no_sum(cells: list[matrix.Entry]) -> None:
    assert statuses(cells, ONE_KEY, "server+silo") == {(defense, "ok") for defense in ONE_KEY}
    assert statuses(cells, EXACT, "server+silo") == {(defense, "nothing-opened") for defense in EXACT}


def test_all_but_one_open_every_sum(cells: list[matrix.Entry]) -> None:
    assert statuses(cells, EXACT | ONE_KEY, "all-but-one") == {(defense, "ok") for defense in EXACT | ONE_KEY}


def planted(adversary: str, leak: float, defense: str = "fedavg") -> tuple[Result, MembershipSheet]:
    member = np.arange(160) % 2 == 0
    scores = np.random.default_rng(len(adversary)).normal(leak * member, 1)
    names = [f"r{k}" for k in range(160)]
    sheet = make_sheet(names, ["silo-0"] * 160, list(range(160)), member, {"loss": scores})
    found = result(adversary=adversary, defense=defense, spec={"attack": {"name": "mia"}, "run": {}})
    return found, sheet


def test_a_whole_that_leaks_less_than_its_part_would_be_found() -> None:
    compared, wrong = too_little([planted("outsider", 4.0), planted("server", 0.0)])
    assert compared == 1
    assert len(wrong) == 1
    assert "server is -" in wrong[0]
    assert too_little([planted("outsider", 0.0), planted("server", 4.0)]) == (1, [])


def test_a_defense_that_lowers_nothing_would_be_found() -> None:
    ((_, difference, p),) = lowered([planted("server", 4.0), planted("server", 4.0, "dp-sgd")], "dp-sgd")
    assert not (difference > 0 and p < MARGIN)
    ((_, difference, p),) = lowered([planted("server", 4.0), planted("server", 0.0, "dp-sgd")], "dp-sgd")
    assert difference > 0
    assert p < MARGIN


def test_no_proven_epsilon_is_above_its_claim() -> None:
    from bench.board.verify import exit_code, verify_leaderboards

    audits = [v for v in verify_leaderboards(BOARDS) if v.result.audit is not None]
    assert len([v for v in audits if (v.result.audit or {}).get("compared")]) >= 6
    assert exit_code(audits) == 0


def _main(store: Store) -> None:
    known = list(sheets(store.results(), lambda r: store.scores(str(r.scores_sha256))))
    compared, wrong = too_little(known)
    print(f"{compared} pairs of adversaries, {len(wrong)} in which the whole leaks less than its part")
    for line in wrong:
        print(line)
    for adversary, difference, p in lowered(known, "dp-sgd"):
        print(f"dp-sgd lowers the AUC of {adversary} by {difference:.3f} (p {p:.1e})")


if __name__ == "__main__":
    _main(Store(Path(sys.argv[1])))
