"""Grows records whose simulated gradient agrees with an update: a beam search with a language prior, then swaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.simulate import Flat, Matcher, Spent, log_next, log_records

Ids = tuple[int, ...]

#: a cosine from which a record counts as found, and rounds of swaps without a better one after which they end
MATCHED, STALE = 0.9999, 8


@dataclass(frozen=True)
class Plan:
    """``width``: beams. ``choices``: tokens tried after each beam. ``longest``: tokens of a record. ``start``: first
    position with loss. ``directions``: in how many independent directions gradients of other records point, so that
    1 / directions is the mean squared cosine of gradients that have nothing to do with each other. ``expected``: nats
    that a token of a record costs on average, which makes records of different lengths comparable."""

    width: int
    choices: int
    longest: int
    start: int
    directions: float
    expected: float

    def length(self, ids: Ids) -> float:
        """Nats that a record of this length is expected to cost."""
        return self.expected * max(len(ids) - self.start, 0)

    def evidence(self, cosines: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) nats: the log-likelihood ratio of so small a rest, under a Gaussian with that many directions."""
        rest = 1 - np.square(np.clip(cosines, 0, 1))
        return np.asarray(-self.directions / 2 * np.log(np.maximum(rest, 1e-6)))


@dataclass(frozen=True)
class Grown:
    """A record's tokens, the sum of its positions' gradients, its cosine with what was to be matched, its
    log-probability under the base model, and the sum of that and the gradient's evidence: its score, in nats."""

    ids: Ids
    total: Flat
    cosine: float
    log_probability: float
    score: float


def grow(matcher: Matcher, plan: Plan, openings: Sequence[Ids], prior: NDArray[np.float64], target: Flat) -> Grown:
    """One record that agrees with ``target`` best, from one of the ``openings`` (at least a token each, no loss).

    ``prior``: (vocabulary,) nats that the row space gives for each token being there, by which the base model's
    distribution over next tokens is tilted. Raises Spent where no step was affordable.
    """
    zero = np.zeros_like(target)
    beams = [Grown(ids, zero, 0.0, 0.0, 0.0) for ids in openings]
    best: Grown | None = None
    while len(beams[0].ids) < plan.longest and (best is None or best.cosine < MATCHED):
        try:
            beams = _step(matcher, plan, beams, prior, target)
        except Spent:
            if best is None:
                raise
            break
        best = max([*beams, *([best] if best else [])], key=lambda b: b.score + plan.length(b.ids))
    if best is None:
        raise Spent
    return best


def _step(
    matcher: Matcher, plan: Plan, beams: Sequence[Grown], prior: NDArray[np.float64], target: Flat
) -> list[Grown]:
    """Every beam's most promising next tokens, of which the best ``width`` are kept. Beams are of one length."""
    matcher.spend(len(beams))
    logs = log_next(matcher.model, matcher.before, [b.ids for b in beams])
    choices = max(2, plan.choices // (1 if len(beams) <= plan.width else 3))
    tilted = logs + prior
    tilted -= np.logaddexp.reduce(tilted, axis=1, keepdims=True)
    rows = [
        (beam, int(t), float(log[t]))
        for beam, log in zip(beams, tilted, strict=True)
        for t in np.argsort(-log, kind="stable")[:choices]
    ]
    terms = matcher.terms([(*beam.ids, t) for beam, t, _ in rows])
    sums = np.stack([beam.total for beam, _, _ in rows]) + terms
    cosines = matcher.agreement(sums, target)
    likely = np.array([beam.log_probability + log for beam, _, log in rows])
    scores = likely + plan.evidence(cosines)
    order = sorted(range(len(rows)), key=lambda i: (-scores[i], rows[i][0].ids, rows[i][1]))[: plan.width]
    return [
        Grown((*rows[i][0].ids, rows[i][1]), sums[i], float(cosines[i]), float(likely[i]), float(scores[i]))
        for i in order
    ]


def begin(matcher: Matcher, plan: Plan, rows: Sequence[Ids], target: Flat) -> Grown:
    """The one of ``rows`` (longer than ``plan.start``) that scores best. Raises Spent."""
    matcher.spend(len(rows))
    sums = matcher.records(rows, plan.start)
    cosines = matcher.agreement(sums, target)
    likely = log_records(matcher.model, matcher.before, rows, plan.start)
    scores = likely + plan.evidence(cosines)
    best = int(np.argmax(scores + [plan.length(ids) for ids in rows]))
    return Grown(rows[best], sums[best], float(cosines[best]), float(likely[best]), float(scores[best]))


def swap(
    matcher: Matcher, plan: Plan, guess: Grown, tokens: Sequence[int], target: Flat, rng: np.random.Generator
) -> Grown:
    """``guess`` after changes of single tokens and exchanges of two, while they score better and the budget lasts."""
    best, stale = guess, 0
    while stale < STALE and len(best.ids) > plan.start and best.cosine < MATCHED:
        rows = _variants(best.ids, tokens, rng, plan.choices)
        try:
            other = begin(matcher, plan, [row for row in rows if len(row) > plan.start], target)
        except Spent:
            return best
        stale += 1
        if other.score + plan.length(other.ids) > best.score + plan.length(best.ids):
            best, stale = other, 0
    return best


def _variants(ids: Ids, tokens: Sequence[int], rng: np.random.Generator, count: int) -> list[Ids]:
    """Half change one token into one of ``tokens``, the others exchange two positions, move, drop or add a token."""
    found: list[Ids] = []
    for number in range(count):
        row = list(ids)
        i, j = (int(x) for x in rng.integers(0, len(row), 2))
        if number % 2:
            row[i] = int(tokens[int(rng.integers(len(tokens)))])
        elif number % 8 == 0:
            row[i], row[j] = row[j], row[i]
        elif number % 8 == 2:
            row.insert(j, row.pop(i))
        elif number % 8 == 4:
            row.insert(i, int(tokens[int(rng.integers(len(tokens)))]))
        else:
            row.pop(i)
        found.append(tuple(row))
    return found


def directions(matcher: Matcher, records: Sequence[Ids], start: int) -> float:
    """``Plan.directions``, from the gradients of records that have nothing to do with each other: of a prefix of one
    against all of another. Spends twice their number of passes."""
    prefixes = [ids[: max(start + 1, len(ids) // 2)] for ids in records]
    whole, part = matcher.records(records, start), matcher.records(prefixes, start)
    squares = [matcher.agreement(np.delete(part, i, 0), row) ** 2 for i, row in enumerate(whole)]
    return float(np.clip(1 / max(float(np.mean(squares)), 1e-9), 2, 1000))
