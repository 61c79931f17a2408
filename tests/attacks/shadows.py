"""A game with shadow federations, without a model: a record's first token is its name, a reading names its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from bench.attack.attack import Candidates, Guesses, Shadow, Tools
from bench.core.tokens import Tokens, TokenStats
from bench.view.view import Reading, View

N, LENGTH, MODELS, POPULATION = 300, 8, 8, 60
SILOS = ("silo-0", "silo-1", "silo-2")


def reading(kind: str, *silos: str, model: int = 0) -> Reading:
    return Reading(kind, 2, frozenset(silos), "test", handle=f"{model}")  # type: ignore[arg-type]


class FakeView:
    """What ``last_adapter`` of each silo gives."""

    def __init__(self, readings: Mapping[str, Reading | None]) -> None:
        self.last = readings

    def last_adapter(self, victim: str) -> Reading | None:
        return self.last[victim]


def view(model: int, kind: str = "adapter") -> View:
    """Everything opened, of one model: global adapters, or one upload per silo."""
    return cast(View, FakeView({s: reading(kind, *((s,) if kind == "upload" else ()), model=model) for s in SILOS}))


class FakeTools(Tools):
    """``member[i, k]``: model k trained on record i; model 0 is the target. A record's log-probability differs from
    record to record (``hard``) and a little from model to model; it rises by ``gain`` where the model trained on it."""

    def __init__(self, member: np.ndarray, silo: np.ndarray, gain: float, seed: int) -> None:
        self.member, self.silo, self.gain = member, silo, gain
        rng = np.random.default_rng(seed)
        total = N + POPULATION
        self.hard = rng.normal(-3, 1, total)
        self.moved = rng.normal(0.3, 0.15, (total, member.shape[1]))
        self.population = tokens_of(np.arange(N, total))
        self.rng = np.random.default_rng(0)
        self.calls = 0

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        self.calls += 1
        name = tokens.ids[:, 0]
        logp = self.hard[name].copy()
        if source is not None:
            model = int(source.handle)
            held = np.array([i < N and self.silo[i] in (source.silos or set(SILOS)) for i in name], dtype=bool)
            trained = np.array([i < N and self.member[min(i, N - 1), model] for i in name], dtype=bool)
            logp += self.moved[name, model] + self.gain * (trained & held)
        rows = np.where(tokens.predicted, np.minimum(logp, 0)[:, None], 0).astype(np.float32)
        return TokenStats(rows, tokens.predicted)


def tokens_of(names: np.ndarray) -> Tokens:
    ids = np.tile(names.astype(np.int32)[:, None], (1, LENGTH))
    predicted = np.ones(ids.shape, dtype=bool)
    predicted[:, 0] = False
    return Tokens(ids, np.full(len(ids), LENGTH, np.int32), predicted, np.full(len(ids), -1, np.int32))


@dataclass(frozen=True)
class Game:
    """``member``: of the target. ``tools`` hold the shadows."""

    candidates: Candidates
    member: np.ndarray
    tools: FakeTools

    def shuffled(self, order: np.ndarray) -> Game:
        c = self.candidates
        tools = FakeTools.__new__(FakeTools)
        tools.__dict__ |= self.tools.__dict__
        tools.shadows = tuple(replace(s, member=s.member[order]) for s in self.tools.shadows)
        candidates = Candidates(
            tuple(f"other-{i}" for i in range(len(order))),
            tuple(c.silos[i] for i in order),
            tuple(c.texts[i] for i in order),
            c.tokens.take(order),
        )
        return Game(candidates, self.member[order], tools)


def game(gain: float, seed: int = 0, kind: str = "adapter", models: int = MODELS) -> Game:
    """Half of the records are members of each model, by coins of its own."""
    rng = np.random.default_rng(seed)
    member = np.stack([rng.permutation(N) < N // 2 for _ in range(models + 1)], axis=1)
    silo = rng.choice(SILOS, N)
    tools = FakeTools(member, silo, gain, seed)
    tools.shadows = tuple(Shadow(view(k, kind), member[:, k]) for k in range(1, models + 1))
    names = tuple(f"id-{i}" for i in rng.permutation(N))
    texts = tuple(f"record {i}" for i in range(N))
    return Game(Candidates(names, tuple(silo), texts, tokens_of(np.arange(N))), member[:, 0], tools)


def auc(scores: np.ndarray, member: np.ndarray) -> float:
    """P(member > non-member) + half of ties, from all pairs."""
    gap = scores[member][:, None] - scores[~member][None, :]
    return float((gap > 0).mean() + (gap == 0).mean() / 2)


def margin(count: int) -> float:
    """How far an AUC of ``game`` lies from 1/2 by chance, once in a million, shared out over ``count`` scores."""
    from scipy.stats import norm

    return float(norm.isf(5e-7 / count) * np.sqrt((N + 1) / (12 * (N / 2) ** 2)))


def infer(attack: Any, played: Game, seen: View | None = None) -> Guesses:
    guesses: Guesses = attack.infer(seen or view(0), played.candidates, played.tools)
    return guesses
