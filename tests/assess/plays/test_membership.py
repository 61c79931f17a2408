"""Playing membership on hand-made records: one sheet of all coalitions, and what an attack may do wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.assess.plays.membership import _no_view, play
from bench.assess.plays.table import Assessment, Seat
from bench.assess.tools import Memo
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.core.adversaries import Assignment
from bench.core.errors import SiloBenchError
from bench.core.streams import Streams
from bench.core.tokens import Tokens, TokenStats
from bench.corpus.planting import Planting
from bench.games.sheet import load

#: silo i holds records "i00" to "i19"; those of even number are members
IDS = {f"silo-{i}": tuple(f"{i}{k:02d}" for k in range(20)) for i in range(2)}
TRUTH = Planting("aaaaaaaa", {s: ids[::2] for s, ids in IDS.items()}, {s: ids[1::2] for s, ids in IDS.items()})


class Materials:
    """Records whose first token is their number; all are of one length and as likely under the base model."""

    def __init__(self, text: Callable[[str], str] = lambda i: "same words") -> None:
        self.streams, self.text = Streams(0), text
        clusters = {i: k for k, i in enumerate(i for ids in IDS.values() for i in ids)}
        self.pool = SimpleNamespace(population=(), clusters=clusters)
        self.corpus = SimpleNamespace(task=SimpleNamespace(labels=[]))
        self.model = SimpleNamespace(set_adapter=lambda adapter: None, stats=self.stats)

    def stats(self, tokens: Tokens) -> TokenStats:
        logp = -np.ones(tokens.ids.shape, np.float32) * tokens.predicted
        return TokenStats(logp, tokens.predicted, logp, logp, first=tokens.predicted)

    def tokens(self, ids: Sequence[str]) -> Tokens:
        numbers, n = np.array([[int(i), 1] for i in ids], np.int32).reshape(-1, 2), len(ids)
        return Tokens(numbers, np.full(n, 2, np.int32), np.tile([False, True], (n, 1)), np.full(n, -1, np.int32))

    def texts(self, ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.text(i) for i in ids)

    def gold(self, ids: Sequence[str]) -> np.ndarray:
        return np.zeros(len(ids), np.int64)


Score = Callable[[np.ndarray], Any]


class Told(Attack):
    """Scores candidates by their numbers, each seat in its own way."""

    game = "membership"
    needs = frozenset({"adapter"})

    def __init__(self, *scores: Mapping[str, Score], missing: Mapping[str, str] | None = None) -> None:
        self.scores, self.missing, self.seats = scores, missing or {}, list[tuple[str, ...]]()

    def infer(self, view: Any, candidates: Candidates, tools: Tools) -> Guesses:
        numbers = candidates.tokens.ids[:, 0]
        chosen = self.scores[min(len(self.seats), len(self.scores) - 1)]
        self.seats.append(candidates.silos)
        made = {name: score(numbers) for name, score in chosen.items()}
        return Guesses(made, ("adapter of round 1", f"seat {len(self.seats)}"), self.missing)


def right(numbers: np.ndarray) -> np.ndarray:
    return (numbers % 2 == 0).astype(float)


def level(numbers: np.ndarray) -> np.ndarray:
    return np.zeros(len(numbers))


def played(attack: Attack, materials: Any = None, seats: int = 2) -> Assessment:
    """One victim a seat."""
    table: Any = SimpleNamespace(
        run=SimpleNamespace(planting=TRUTH), materials=materials or Materials(), memo=Memo(), released={}, answers={}
    )
    view: Any = SimpleNamespace()
    held = [Seat(k, Assignment(frozenset({"server"}), (f"silo-{k}",)), view) for k in range(seats)]
    return play(table, "told", attack, "server", held)


def figures(found: Assessment) -> dict[str, float | None]:
    return {f.name: f.value for f in found.leakage}


def test_all_coalitions_candidates_are_one_sheet_with_their_truth() -> None:
    attack = Told({"loss": right, "level": level})
    found = played(attack)
    assert found.status == "ok"
    assert attack.seats == [("silo-0",) * 20, ("silo-1",) * 20]
    assert found.reads == ("adapter of round 1", "seat 1", "seat 2")
    assert found.sheet is not None
    sheet: Any = load(found.sheet)
    assert sheet.ids == tuple(i for ids in IDS.values() for i in ids)
    assert sheet.silos == ("silo-0",) * 20 + ("silo-1",) * 20
    assert sheet.clusters == tuple(range(40))
    assert sheet.member.tolist() == [True, False] * 20
    assert sheet.scores["loss"].tolist() == [1.0, 0.0] * 20
    assert figures(found)["auc:loss"] == 1.0
    assert figures(found)["auc:level"] == 0.5


def test_one_coalition_s_sheet_is_about_its_victims_only() -> None:
    found = played(Told({"loss": right}), seats=1)
    assert found.sheet is not None
    assert load(found.sheet).ids == IDS["silo-0"]  # type: ignore[union-attr]


def test_a_score_that_some_coalition_does_not_give_is_missing() -> None:
    found = played(Told({"loss": right, "first": level}, {"loss": right, "second": level}))
    assert {name for name in figures(found) if name.startswith("auc:")} >= {"auc:loss"}
    assert not {"auc:first", "auc:second"} & set(figures(found))
    assert found.note == "no first: not every coalition has it; no second: not every coalition has it"


def test_an_attack_that_says_why_it_has_no_score_opened_nothing() -> None:
    found = played(Told({}, missing={"loss": "both models are one", "zlib": "no text"}))
    assert (found.status, found.leakage, found.sheet) == ("nothing-opened", (), None)
    assert found.note == "no loss: both models are one; no zlib: no text"
    assert found.reads == ("adapter of round 1", "seat 1", "seat 2")


def test_no_score_that_all_coalitions_have_is_nothing_opened_too() -> None:
    found = played(Told({"first": right}, {"second": right}))
    assert found.status == "nothing-opened"
    assert found.note == "no first: not every coalition has it; no second: not every coalition has it"


def test_no_score_without_a_reason_is_the_attack_s_fault() -> None:
    with pytest.raises(SiloBenchError, match="no score and does not say why"):
        played(Told({}))


@pytest.mark.parametrize(
    ("score", "shape"),
    [(lambda n: n[:-1], r"\(19,\)"), (lambda n: n[:, None], r"\(20, 1\)"), (lambda n: 1.0, r"\(\)")],
)
def test_a_score_that_is_not_one_number_a_candidate_is_the_attack_s_fault(score: Score, shape: str) -> None:
    with pytest.raises(SiloBenchError, match=rf"score 'loss' has shape {shape}, expected one number for each of 20"):
        played(Told({"loss": score}))


def test_members_that_are_told_apart_without_a_view_void_the_result() -> None:
    found = played(Told({"loss": level}), Materials(lambda i: "x" * (9 if int(i) % 2 == 0 else 5)))
    assert found.status == "void"
    assert "characters" in found.note
    assert found.sheet is not None


def test_the_baseline_does_not_hang_on_the_order_of_questions() -> None:
    table: Any = SimpleNamespace(materials=Materials(lambda i: f"w{int(i) % 5} v{int(i) % 3}"), memo=Memo())
    ids = [i for held in IDS.values() for i in held]
    member, clusters = np.array([int(i) % 2 == 0 for i in ids]), np.arange(40)
    usual = _no_view(table, ids, member, clusters)
    assert usual.keys() == {"loss", "zlib", "length", "characters", "fit:words"}
    assert usual["length"].tolist() == [2.0] * 40
    assert usual["loss"].tolist() == [-1.0] * 40
    order = np.random.default_rng(0).permutation(40)
    other = _no_view(table, [ids[k] for k in order], member[order], clusters[order])
    for name, values in usual.items():
        np.testing.assert_array_equal(other[name], values[order])
