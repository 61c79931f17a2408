"""Which tokens a batch held: by threshold where the algebra is exact, by rank of the evidence beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.algebra import ROUNDING, TOLERANCES, Floats, combine, direction_evidence, residuals
from attacks.rowspace.constraints import Change, Constraint, constraints
from attacks.rowspace.probe import Probe

#: expected number of tokens taken by mistake, over the whole vocabulary
FALSE_TOKENS = 0.01
#: weights of the evidence beyond the exact regime against the log prior odds: about what a logistic regression gives
#: on updates of SmolLM2-135M (one SGD step to two epochs of AdamW, rank 8 and 16), where the likelihood ratio's
#: assumption of independent gradients makes it overconfident
WEIGHT_B, WEIGHT_A = 0.25, 1.0

#: log-chance that token ids (n,), each as the first token of a record, would fit the deeper layers as well as they do
Confirm = Callable[[NDArray[np.int64], float], Floats | None]


@dataclass(frozen=True)
class Identified:
    """``tokens``: sorted ids, all those that carry gradient where ``complete``, else those found, maybe none.
    ``evidence``: (vocabulary,) higher = more likely there. ``tolerance``: the one at which the ranks were read."""

    tokens: NDArray[np.int64]
    evidence: Floats
    complete: bool
    tolerance: float

    @property
    def exact(self) -> bool:
        """True where the ranks held at rounding precision, so that the set is certain but for coincidence."""
        return self.complete and self.tolerance == ROUNDING


class Vocabulary:
    """Evidence about every token of the vocabulary from what the first group of projections changed by."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        total = np.zeros((0, 0))
        for _, inputs in probe.vocabulary():
            total = inputs.T @ inputs + (total if total.size else 0.0)
        self.moment: Floats = total / probe.model.vocab_size

    def identify(self, change: Mapping[str, Change], prior: Floats, confirm: Confirm) -> Identified:
        """``prior``: (vocabulary,) log-odds that a token is in the batch, known from the population alone."""
        best: Identified | None = None
        ranks: set[tuple[int, ...]] = set()
        tables: dict[str, Floats] = {}
        found: list[Constraint] = []
        for tolerance in TOLERANCES:
            found = constraints(self.probe.groups[0], change, self.moment, tolerance)
            for constraint in found:
                if constraint.name not in tables:
                    tables[constraint.name] = self._table(constraint)
            exact = [c for c in found if c.complete and not c.space.full]
            key = tuple(c.space.rank for c in exact)
            if not exact or key in ranks:
                continue
            ranks.add(key)
            guess = _by_threshold(exact, tables, confirm, tolerance)
            if guess.complete:
                return guess
            if best is None or len(guess.tokens) > len(best.tokens):
                best = guess
        if best is not None and len(best.tokens):
            return best
        found = constraints(self.probe.groups[0], change, self.moment, ROUNDING)
        return Identified(np.zeros(0, np.int64), _by_rank(found, tables, prior), False, ROUNDING)

    def _table(self, constraint: Constraint) -> Floats:
        return np.concatenate([constraint.vectors(inputs) for _, inputs in self.probe.vocabulary()])


def _by_threshold(
    exact: Sequence[Constraint], tables: Mapping[str, Floats], confirm: Confirm, tolerance: float
) -> Identified:
    """Tokens that fit every constraint, and those that fit all but the ones which do not see a first token.

    The largest rank is the number of distinct tokens. A projection of smaller rank sees fewer of them: at the first
    position attention has one key, so the query there has no gradient.
    """
    tests = {c.name: c.test(tables[c.name]) for c in exact}
    count = max(c.space.rank for c in exact)
    widest = [c.name for c in exact if c.space.rank == count]
    fits = np.all([tests[name][0] for name in widest], axis=0)
    evidence = -combine([chance for _, chance in tests.values()])
    limit = np.log(len(evidence) / FALSE_TOKENS)
    taken = np.flatnonzero(fits & (evidence > limit))
    if len(taken) < count:
        alone = np.where(fits, -combine([tests[name][1] for name in widest]), -np.inf)
        alone[taken] = -np.inf
        rest = np.argsort(-alone, kind="stable")[: 4 * count]
        rest = rest[alone[rest] > np.log(len(alone)) - 3]  # some twenty get here by chance
        total = alone[rest]
        deeper = confirm(rest, tolerance) if len(rest) else None
        if deeper is not None:
            total = -combine([-total, deeper])
        better = np.argsort(-total, kind="stable")
        rest = rest[better[total[better] > limit]][: count - len(taken)]
        evidence[rest] = np.maximum(evidence[rest], limit)
        taken = np.union1d(taken, rest)
    return Identified(np.sort(taken).astype(np.int64), evidence, len(taken) == count, tolerance)


def _by_rank(found: Sequence[Constraint], tables: Mapping[str, Floats], prior: Floats) -> Floats:
    score = prior.astype(np.float64).copy()
    for constraint in found:
        vectors = tables[constraint.name]
        if constraint.on_inputs:
            inside = 1 - np.square(residuals(constraint.space, vectors))
            share = constraint.space.rank / constraint.space.width
            score += WEIGHT_A * np.log(np.maximum(inside, 1e-12) / share)
        else:
            score += WEIGHT_B * direction_evidence(constraint.change, vectors)
    return score
