"""Attacks on the protocol itself, end to end on the smallest real federations."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.spec.result import Result

SMALL = (
    "pool.candidates=8",
    "pool.validation=4",
    "pool.heldout=8",
    "pool.population=32",
    "pool.max_tokens=48",
    "federation.local.epochs=1",
    "clinical-notes.notes=200",
)
#: of three silos two a round: with the default seed silo-0 and silo-2, then silo-0 and silo-1
SAMPLED = (*SMALL, "federation.rounds=2", "federation.client_fraction=0.6")


def run(
    store: Path, defenses: str, attack: str, adversaries: str, sets: tuple[str, ...]
) -> dict[tuple[str, str], Result]:
    words = [
        "run",
        "--preset",
        "smoke",
        "--defense",
        defenses,
        "--attack",
        attack,
        "--adversary",
        adversaries,
        "--json",
    ]
    words += ["--store", str(store), *(part for value in sets for part in ("--set", value))]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    assert code == 0, err.getvalue()[-3000:]
    found = [Result.from_json(line) for line in out.getvalue().splitlines() if line.startswith("{")]
    return {(r.defense, r.adversary): r for r in found}


def scores(result: Result) -> set[str]:
    return {row.name.removeprefix("auc:") for row in result.leakage if row.name.startswith("auc:")} - {"baseline"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_sums_with_changing_participation(store: Path) -> None:
    rows = run(store, "secagg", "difference", "outsider,server,server+silo", SAMPLED)
    assert {row.status for row in rows.values()} == {"ok"}, [row.note for row in rows.values()]
    server = rows["secagg", "server"]
    assert {"drop", "contrast", "adjusted"} <= scores(server)
    # sums only: nobody's part stands alone
    assert server.reads == (
        "silo-0: models after rounds 0, 1, its part in the sums of rounds 0, 1",
        "silo-1: models after rounds 0, 1, its part in the sum of round 1",
        "silo-2: models after rounds 0, 1, its part in the sum of round 0",
    )
    assert "contrast of silo-0" in server.note
    assert "contrast of silo-1" not in server.note
    # the released model alone can't part the rounds
    assert "contrast of silo-1" in rows["secagg", "outsider"].note
    # a colluding silo takes its own part out of the sums of two
    assert any("alone" in read for read in rows["secagg", "server+silo"].reads)


def test_supports_open_with_the_upload_and_not_without(store: Path) -> None:
    rows = run(store, "top-k,prune,fedshield,secagg", "mask", "server,server+silo", (*SMALL, "federation.rounds=1"))
    assert rows["top-k", "server"].reads[0] == "zeros of the upload of silo-0, round 0"
    assert rows["prune", "server"].reads[0] == "pruned weights of the upload of silo-0, round 0"
    # CKKS opens with noise on the zeros, for the coalition that has the one key
    assert rows["fedshield", "server+silo"].reads[0] == "pruned weights of the upload of silo-1, round 0"
    assert rows["fedshield", "server"].status == "nothing-opened"
    assert rows["secagg", "server"].status == rows["secagg", "server+silo"].status == "nothing-opened"
    for key in (("top-k", "server"), ("prune", "server"), ("fedshield", "server+silo")):
        assert rows[key].status == "ok", rows[key].note
        assert {"jaccard", "lift", "likelihood"} <= scores(rows[key])
    # the noise changes no support: in the first round, from the same updates, the same scores
    clear, sealed = ({r.name: r.value for r in rows[d, "server+silo"].leakage} for d in ("prune", "fedshield"))
    for name in ("auc:jaccard", "auc:lift", "auc:likelihood"):
        assert clear[name] == pytest.approx(sealed[name], abs=0.05)
