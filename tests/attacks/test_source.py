"""Source and label shares: a planted leak is found, none gives chance, order and ids do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from attacks import label_distribution, source
from bench import attack as attack_interface
from bench.attack import Candidates
from bench.plays.participation import _hits as participation_hits
from bench.plays.property import _grades
from bench.plays.source import _hits as source_hits
from bench.tokens import Tokens, TokenStats


@dataclass(frozen=True)
class Reading:
    silo: str
    kind: str = "upload"
    round: int = 2
    handle: str = "x"

    @property
    def silos(self) -> frozenset[str]:
        return frozenset({self.silo})


@dataclass
class View:
    known: Mapping[str, Reading]
    victims: tuple[str, ...] = ("silo-0", "silo-1", "silo-2")

    def uploads(self, silo: str) -> tuple[Reading, ...]:
        return tuple(r for name, r in self.known.items() if name == silo and r.kind == "upload")

    def last_adapter(self, silo: str) -> Reading | None:
        return self.known.get(silo)


@dataclass
class Tools:
    """Losses by (silo of the reading, or None for the base model) and record's first token."""

    losses: Mapping[tuple[str | None, int], float]
    population: Tokens
    labels: tuple[str, ...] = ()
    population_labels: Any = field(default_factory=lambda: np.zeros(0, np.int64))

    def token_stats(self, reading: Reading | None, tokens: Tokens) -> TokenStats:
        name = None if reading is None else reading.silo
        logp = np.zeros(tokens.ids.shape, np.float32)
        for row, ids in enumerate(tokens.ids):
            logp[row] = -self.losses.get((name, int(ids[0])), 3.0)
        return TokenStats(np.where(tokens.predicted, logp, 0), tokens.predicted)


def tokens(first: list[int], length: int = 5) -> Tokens:
    ids = np.tile(np.arange(length, dtype=np.int32), (len(first), 1))
    ids[:, 0] = first
    predicted = np.ones(ids.shape, np.bool_)
    predicted[:, 0] = False
    return Tokens(ids, np.full(len(first), length, np.int32), predicted, np.full(len(first), length - 1, np.int32))


SILOS = ("silo-0", "silo-1", "silo-2")
ALL = {name: Reading(name) for name in SILOS}


def records(first: list[int]) -> Candidates:
    return Candidates(tuple(f"c{i}" for i in range(len(first))), ("",) * len(first), ("",) * len(first), tokens(first))


def test_the_holder_s_own_model_knows_its_records_best() -> None:
    rng = np.random.default_rng(0)
    holders = rng.integers(0, 3, 60)
    losses = {(name, i): 3.0 + rng.normal(0, 0.1) for name in SILOS for i in range(60)}
    losses |= {(SILOS[h], i): 2.0 + rng.normal(0, 0.1) for i, h in enumerate(holders)}
    # silo-2's model is better at everything, and must not win every record for it
    losses = {k: v - (1.5 if k[0] == "silo-2" else 0.0) for k, v in losses.items()}
    losses |= {("silo-2", 100 + i): 1.5 for i in range(20)}
    tools = Tools(losses, tokens([100 + i for i in range(20)]))
    attack = source.build(source.Config())
    found = attack.attribute(View(ALL), records(list(range(60))), SILOS, tools)  # type: ignore[arg-type]
    assert np.mean(source_hits(found, holders.tolist(), 3)) > 0.95
    order = rng.permutation(60)
    again = attack.attribute(View(ALL), records(order.tolist()), SILOS, tools)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.scores, found.scores[order])


def test_without_a_leak_the_source_is_a_guess_within_one_in_a_million() -> None:
    rng = np.random.default_rng(1)
    n = 900
    holders = rng.integers(0, 3, n)
    losses = {(name, i): 3.0 + rng.normal(0, 0.1) for name in SILOS for i in range(n)}
    tools = Tools(losses, tokens([5000]))
    found = source.build(source.Config()).attribute(View(ALL), records(list(range(n))), SILOS, tools)  # type: ignore[arg-type]
    assert abs(np.mean(source_hits(found, holders.tolist(), 3)) - 1 / 3) < 4.9 * np.sqrt(2 / 9 / n)


def test_ties_count_as_their_share() -> None:
    from bench.attack import Answers

    hits = source_hits(Answers(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]]), ()), [0, 2, 1], 3)
    assert hits == [0.5, pytest.approx(1 / 3), 0.0]
    assert participation_hits(Answers(np.array([1.0, 1.0, 2.0, 1.0]), ()), [0, 1]) == [0.5, 0.0]


class Expecting:
    """A model that expects label k at a record's answer with probability ``chances[record, k]``, whatever stands there.
    Records are told by their first token; the token of label k is 900 + k."""

    def __init__(self, chances: np.ndarray, population: Tokens, labels: np.ndarray) -> None:
        self.chances, self.population, self.population_labels = chances, population, labels
        self.labels = ("a", "b", "c")

    word_logp = attack_interface.Tools.word_logp

    def token_stats(self, source: object, asked: Tokens) -> TokenStats:
        assert (asked.predicted.sum(axis=1) == 1).all()
        assert (asked.lengths == asked.answer + 1).all()
        logp = np.zeros(asked.ids.shape, np.float32)
        for row, at in enumerate(asked.answer):
            logp[row, at] = np.log(0.5 * self.chances[asked.ids[row, 0], asked.ids[row, at] - 900])
        return TokenStats(logp, asked.predicted, None, None)


def answered(labels: np.ndarray) -> Tokens:
    """Records of 5 tokens, the label at the fourth."""
    n = len(labels)
    ids = np.column_stack([np.arange(n), np.full((n, 2), 7), 900 + labels, np.full(n, 8)]).astype(np.int32)
    return Tokens(ids, np.full(n, 5, np.int32), np.ones((n, 5), bool), np.full(n, 3, np.int32))


def test_label_shares_are_what_the_model_expects_over_the_population() -> None:
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    chances = np.random.default_rng(0).dirichlet([1, 1, 1], 10)
    tools = Expecting(chances, answered(labels), labels)
    attack = label_distribution.build(label_distribution.Config())
    found = attack.label_shares(View(ALL), ALL, tools).shares  # type: ignore[arg-type]
    for shares in found:
        np.testing.assert_allclose(shares, chances.mean(axis=0), atol=1e-6)  # type: ignore[arg-type]
    assert attack.label_shares(View({}), ALL, tools).shares == (None,) * len(ALL)  # type: ignore[arg-type]


def test_a_label_that_nobody_in_the_population_has_is_expected_nowhere() -> None:
    labels = np.array([0, 0, 1])
    chances = np.array([[0.2, 0.6, 0.2], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    tools = Expecting(chances, answered(labels), labels)
    words = label_distribution.label_tokens(tools.population, labels, 3)
    assert words.tolist() == [900, 901, -1]
    shares = label_distribution.expected(tools, None, words)  # type: ignore[arg-type]
    first = np.mean([0.25, 2 / 3, 0.5])
    np.testing.assert_allclose(shares, [first, 1 - first, 0], atol=1e-6)
    none = answered(labels)
    none.answer[:] = -1
    silent = Expecting(chances, none, labels)
    np.testing.assert_allclose(label_distribution.expected(silent, None, words), np.full(3, 1 / 3))  # type: ignore[arg-type]


def test_grades_of_label_shares() -> None:
    truth = np.array([0.5, 0.25, 0.25])
    assert _grades(truth, truth) == {"similarity": 1.0, "majority": 1.0}
    assert _grades(np.array([0.0, 0.5, 0.5]), truth) == {"similarity": 0.5, "majority": 0.0}
    assert _grades(np.array([0.4, 0.4, 0.2]), truth)["majority"] == 0.5
