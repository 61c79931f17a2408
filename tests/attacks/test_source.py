"""Source: a planted leak is found, none gives chance, order and ids do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from attacks import source
from bench.assess.plays.participation import _hits as participation_hits
from bench.assess.plays.source import _hits as source_hits
from bench.attack.attack import Candidates
from bench.core.tokens import Tokens, TokenStats


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
    from bench.attack.attack import Answers

    hits = source_hits(Answers(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]]), ()), [0, 2, 1], 3)
    assert hits == [0.5, pytest.approx(1 / 3), 0.0]
    assert participation_hits(Answers(np.array([1.0, 1.0, 2.0, 1.0]), ()), [0, 1]) == [0.5, 0.0]
