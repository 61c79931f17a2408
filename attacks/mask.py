"""Membership from what sparse messages leave out: their supports, and their sizes.

A silo that sends the largest coordinates of its update says which ones these are, wherever its message opens and, by
its length, sometimes where it does not. A record that it trained on pulls at the coordinates of its own gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks import sparse, supports
from attacks.sparse import Message
from attacks.supports import Floats
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.core.update import Array
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.core.tokens import Tokens
    from bench.view.view import View

api = 1
version = 1


class Config(BaseConfig):
    """``population``: the most records of the population that scores are calibrated by; each costs one gradient per
    message's start."""

    population: int = Field(48, ge=0, le=10_000)


class Mask(MembershipAttack):
    """``jaccard``, ``lift`` and ``likelihood`` of supports (``attacks.supports``), ``size`` of lengths."""

    needs = frozenset({"upload", "partial", "metadata"})
    turn = 1
    ground = "prune"

    def __init__(self, config: Config) -> None:
        self.config = config

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """Scores for every candidate; none, and why, where messages show neither a support nor lengths."""
        population = tools.population.take(np.arange(min(self.config.population, len(tools.population))))
        work = _Work(candidates, population, tools, view.public.adapter.offsets)
        sizes = {silo: sparse.nominal_size(view, silo) for silo in view.public.silos}
        messages = {
            silo: [replace(m, records=sum(sizes[s] for s in m.silos)) for m in sparse.messages(view, silo)]
            for silo in work.silos
        }
        if any(messages.values()):
            work.score_supports(messages)
        if (lengths := sparse.lengths(view)) and sparse.sums_updates(view):
            work.score_sizes(lengths, sparse.starts(view))
        if not work.scores:
            work.missing["jaccard"] = "what opened shows neither which coordinates were sent nor lengths to compare"
        return Guesses(work.scores, tuple(dict.fromkeys(work.reads)), work.missing)


class _Work:
    """Scores in the making."""

    def __init__(self, candidates: Candidates, population: Tokens, tools: Tools, bounds: Sequence[int]) -> None:
        self.candidates, self.population, self.tools, self.bounds = candidates, population, tools, bounds
        self.silos = sorted(set(candidates.silos))
        self.scores: dict[str, Floats] = {}
        self.reads: list[str] = []
        self.missing: dict[str, str] = {}

    def _rows(self, silo: str) -> NDArray[np.int64]:
        """Rows of a silo's candidates in an order of their tokens, so that all who ask share the gradients."""
        ids = self.candidates.tokens.ids
        rows = [i for i, holder in enumerate(self.candidates.silos) if holder == silo]
        return np.array(sorted(rows, key=lambda i: ids[i].tolist()), dtype=np.int64)

    def _put(self, name: str, rows: NDArray[np.int64], values: Floats) -> None:
        self.scores.setdefault(name, np.zeros(len(self.candidates.ids)))[rows] = values

    def score_supports(self, messages: Mapping[str, Sequence[Message]]) -> None:
        """``jaccard``: the mean over a silo's messages. ``lift``, ``likelihood``: the sum over messages, each
        standardised, over the root of their number."""
        for silo, held in messages.items():
            rows = self._rows(silo)
            tokens = self.candidates.tokens.take(rows)
            found = np.sum([self._score(m, tokens) for m in held], axis=0) if held else np.zeros((len(rows), 3))
            count = max(len(held), 1)
            for name, values, share in zip(("jaccard", "lift", "likelihood"), found.T, (1, 0.5, 0.5), strict=True):
                self._put(name, rows, values / count**share)
            self.reads += [f"{m.what} of {', '.join(sorted(m.silos))}, round {m.round}" for m in held]
            if not held:
                self.missing[f"support of {silo}"] = "no message of its shows one"

    def _score(self, message: Message, tokens: Tokens) -> Floats:
        """(n, 3) ``jaccard``, ``lift`` and ``likelihood`` of one message, the last two in deviations of the population,
        each of whose records is held against the others."""
        known = np.array(list(self._gradients(message, self.population)))
        judge = _Judge(message, known, self.bounds)
        return np.array([judge.scores(g) for g in self._gradients(message, tokens)]).reshape(len(tokens), 3)

    def _gradients(self, message: Message, tokens: Tokens) -> Iterator[Array]:
        return self.tools.record_gradients(message.at, tokens) if len(tokens) else iter(())

    def score_sizes(self, lengths: Mapping[tuple[int, str], Floats], starts: Mapping[int, Array]) -> None:
        """``size``: over rounds and frames, the correlation of a silo's lengths (less the mean of all messages) and the
        log energy of the record's gradient in the coordinates of each frame (less the population's mean)."""
        table = {key: values for key, values in lengths.items() if key[0] in starts}
        alive = np.ptp(list(table.values()), axis=0) > 0 if table else np.zeros(0, dtype=np.bool_)
        cuts = _cuts(int(alive.sum()), self.bounds)
        mean = np.mean(list(table.values()), axis=0) if table else alive
        others = {r: self._profiles(starts[r], self.population, cuts) for r in {r for r, _ in table}}
        centres = {r: found.mean(axis=0) if len(found) else 0.0 for r, found in others.items()}
        for silo in self.silos:
            rounds = sorted(r for r, name in table if name == silo)
            if len(rounds) * alive.sum() < 3:
                self.missing[f"size of {silo}"] = "fewer than three lengths of its messages to compare"
                continue
            rows = self._rows(silo)
            tokens = self.candidates.tokens.take(rows)
            seen = np.concatenate([(table[r, silo] - mean)[alive] for r in rounds])
            made = np.concatenate([self._profiles(starts[r], tokens, cuts) - centres[r] for r in rounds], axis=1)
            self._put("size", rows, _correlation(made, seen))
            self.reads.append(f"lengths of messages of {silo}, {len(rounds)} rounds, {alive.sum()} frames")

    def _profiles(self, at: Array, tokens: Tokens, cuts: Sequence[int]) -> Floats:
        """(n, frames)"""
        made = (
            [supports.profile(np.abs(g), cuts) for g in self.tools.record_gradients(at, tokens)] if len(tokens) else []
        )
        return np.array(made).reshape(len(made), len(cuts) - 1)


class _Judge:
    """Holds records' gradients against one support. ``known``: (m, size) gradients of population records; below three
    of them, lifts are raw and the likelihood is 0."""

    def __init__(self, message: Message, known: NDArray[np.float32], bounds: Sequence[int]) -> None:
        self.message, self.support, self.bounds = message, message.support, bounds
        self.centre: NDArray[np.floating] = np.zeros(int(self.support.told.sum()))
        self.model: supports.Chance | None = None
        self.units = (0.0, 1.0), (0.0, 1.0)
        count = len(known)
        if count < 3:
            return
        told = known[:, self.support.told]
        ranks = [self._ranks(g) for g in known]
        self.centre = np.mean(ranks, axis=0, dtype=np.float64)
        lifts = [supports.lift(r - self.centre, self.support) * count / (count - 1) for r in ranks]
        self.model = supports.chance(told, message.records, self.support, self.bounds, message.offset, message.moves)
        likely = [self._ratio(g, count) for g in told]
        self.units = _units(lifts), _units(likely)

    def scores(self, gradient: Array) -> tuple[float, float, float]:
        (mean, spread), (base, unit) = self.units
        overlap = supports.jaccard(_foretold(self.message, gradient, self.bounds), self.support, self.bounds)
        lift = supports.lift(self._ranks(gradient) - self.centre, self.support)
        return overlap, (lift - mean) / spread, (self._ratio(gradient[self.support.told]) - base) / unit

    def _ranks(self, gradient: Array) -> NDArray[np.float32]:
        return supports.scored(_foretold(self.message, gradient, self.bounds), self.support, self.bounds)

    def _ratio(self, gradient: NDArray[np.float32], count: int = 0) -> float:
        """``count``: of the population's records, where this is one of them and is held against the others."""
        if self.model is None:
            return 0.0
        mean = (count * self.model.mean - gradient) / (count - 1) if count else None
        return self.model.ratio(gradient, mean)


def _units(own: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(own)), max(float(np.std(own, ddof=1)), 1e-12)


def _foretold(message: Message, gradient: Array, bounds: Sequence[int]) -> NDArray[np.floating]:
    """(size,) the magnitudes by which the record alone would have the silo choose: of its gradient; or, of whole
    weights, of the start moved against it by as much as the silo moved, tensor by tensor."""
    if message.offset is None or message.moves is None:
        return np.abs(gradient)
    size = np.abs(message.offset).astype(np.float64)
    for start, stop in pairwise(bounds):
        g, live = gradient[start:stop], message.support.there[start:stop]
        typical = float(np.median(np.abs(g[live]))) if live.any() else 0.0
        if typical > 0:
            scale = float(np.median(message.moves[start:stop][live])) / typical
            size[start:stop] = np.abs(message.offset[start:stop] - scale * g)
    return size


def _cuts(frames: int, bounds: Sequence[int]) -> Sequence[int]:
    """Which coordinates a message's frames hold: a tensor each where there are as many, else equal parts in order."""
    if frames == len(bounds) - 1:
        return bounds
    return [round(float(c)) for c in np.linspace(0, bounds[-1], frames + 1)]


def _correlation(made: Floats, seen: Floats) -> Floats:
    """(n,) Pearson's, of each row of ``made`` (n, k) and ``seen`` (k,); 0 where either is constant."""
    x, y = made - made.mean(axis=1, keepdims=True), seen - seen.mean()
    scale = np.linalg.norm(x, axis=1) * float(np.linalg.norm(y))
    found: Floats = np.divide(x @ y, scale, out=np.zeros(len(x)), where=scale > 0)
    return found


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Mask(config)
