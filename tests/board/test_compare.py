"""Two defenses on the same candidates: what is paired, what is refused, what is said of several seeds."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from bench import games
from bench.board.compare import compare
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.games.membership import make_sheet
from bench.spec.result import Result
from bench.store.store import Store
from tests.results_factory import result

N = 120


def one(store: Store, defense: str, seed: int, leak: float, adversary: str = "server") -> Result:
    """A stored result of ``defense``: members shifted by ``leak``; candidates and truth follow the seed alone."""
    member = np.random.default_rng(seed).permutation(N) < N // 2
    noise = np.random.default_rng([seed, len(defense)]).normal(0, 0.5, N)
    shared = np.random.default_rng([seed, 99]).normal(0, 1, N)
    sheet = make_sheet(
        [f"r{k}" for k in range(N)],
        [f"silo-{k % 3}" for k in range(N)],
        list(range(N)),
        member,
        {"loss": shared + noise + leak * member, "other": noise},
    )
    sha = store.save_scores(sheet.to_json())
    found = result(
        defense=defense, seed=seed, adversary=adversary, leakage=games.leakage(sheet).leakage, scores_sha256=sha
    )
    return store.save_result(found)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_lower_leak_is_seen_on_the_same_candidates(store: Store) -> None:
    found = [one(store, "open", 0, 3.0), one(store, "private", 0, 0.0)]
    (row,) = compare(found, lambda r: store.scores(str(r.scores_sha256)), "open", "private")
    assert row.value is not None
    assert row.value > 0.3
    assert row.p is not None
    assert row.p < 1e-6
    assert row.low is not None
    assert row.low > 0
    assert row.candidates == N
    (back,) = compare(found, lambda r: store.scores(str(r.scores_sha256)), "private", "open")
    assert back.value == pytest.approx(-row.value)


def test_defenses_are_spoken_of_from_five_seeds_on(store: Store) -> None:
    four = [one(store, d, s, leak) for s in range(4) for d, leak in (("open", 3.0), ("private", 0.0))]
    read = lambda r: store.scores(str(r.scores_sha256))  # noqa: E731
    rows = compare(four, read, "open", "private")
    assert [r.seed for r in rows] == [0, 1, 2, 3, None]
    assert rows[-1].value is None
    assert "5 seeds" in rows[-1].note
    five = [*four, *(one(store, d, 4, leak) for d, leak in (("open", 3.0), ("private", 0.0)))]
    whole = compare(five, read, "open", "private")[-1]
    assert whole.seeds == 5
    assert whole.value is not None
    assert whole.value > 0.3


def test_seeds_and_adversaries_that_only_one_has_are_left_out(store: Store) -> None:
    found = [one(store, "open", 0, 3.0), one(store, "private", 0, 0.0), one(store, "open", 1, 3.0)]
    found.append(one(store, "open", 0, 3.0, "user"))
    rows = compare(found, lambda r: store.scores(str(r.scores_sha256)), "open", "private")
    assert [(r.adversary, r.seed) for r in rows] == [("server", 0)]


def test_what_can_not_be_compared_is_named(store: Store) -> None:
    found = [one(store, "open", 0, 3.0), one(store, "private", 1, 0.0)]
    with pytest.raises(UsageError, match="share no attack"):
        compare(found, lambda r: store.scores(str(r.scores_sha256)), "open", "private")
    with pytest.raises(UsageError, match="privat"):
        compare(found, lambda r: store.scores(str(r.scores_sha256)), "open", "privat")
    with pytest.raises(UsageError, match="not there"):
        compare([*found, one(store, "private", 0, 0.0)], lambda r: None, "open", "private")


def test_two_settings_of_one_defense_are_not_mixed(store: Store) -> None:
    found = [one(store, "open", 0, 3.0), one(store, "private", 0, 0.0)]
    other = found[0].model_copy(update={"result": "f" * 16, "spec": {"run": {"federation": {"local": {"lr": 9.0}}}}})
    with pytest.raises(UsageError, match=r"two results .* differ in"):
        compare([*found, other], lambda r: store.scores(str(r.scores_sha256)), "open", "private")


def test_the_command(store: Store) -> None:
    one(store, "open", 0, 3.0)
    one(store, "private", 0, 0.0)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["compare", "open", "private", "--store", str(store.root), "--json"]) == 0
    assert json.loads(out.getvalue())["value"] > 0.3
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["compare", "open", "private", "--store", str(store.root)]) == 0
    assert "seen from" in out.getvalue()


def test_nothing_to_compare_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no scored results of preset 'quick'"):
        compare([], lambda r: None, "open", "private", "quick")
    assert main(["compare", "open", "private", "--folder", str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
