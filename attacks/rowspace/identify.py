"""Which tokens a batch held: by threshold where the algebra is exact, by pursuit where entries are missing or noisy, by
rank of the evidence beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.algebra import EXACT, ROUNDING, TOLERANCES, Floats, combine, direction_evidence, residuals
from attacks.rowspace.constraints import Change, Constraint, constraints, judge, largest_rank
from attacks.rowspace.probe import Probe
from attacks.rowspace.pursuit import Projection, pursue

#: expected number of tokens taken by mistake, over the whole vocabulary
FALSE_TOKENS = 0.01
#: a set is claimed where it accounts for this share of the inputs that the rank counts; else tokens are ranked, and
#: those that fit beyond chance get so many nats
MOST, FITTING = 0.7, 5.0
#: how many of the best-ranked tokens a pursuit chooses from, in turn
SHORTLISTS = (128, 1024, 4096)
#: weights of the evidence beyond the exact regime against the log prior odds: about what a logistic regression gives
#: on updates of SmolLM2-135M (one SGD step to two epochs of AdamW, rank 8 and 16), where the likelihood ratio's
#: assumption of independent gradients makes it overconfident
WEIGHT_B, WEIGHT_A = 0.25, 1.0

#: log-chance that token ids (n,), each as the first token of a record, would fit the deeper layers as well as they do
Confirm = Callable[[NDArray[np.int64], float], Floats | None]


@dataclass(frozen=True)
class Identified:
    """``tokens``: sorted ids, all those that carry gradient where ``complete``, else those found, maybe none.
    ``evidence``: (vocabulary,) higher = more likely there. ``tolerance``: the one at which the ranks were read.
    ``counted``: how many inputs the largest rank counts."""

    tokens: NDArray[np.int64]
    evidence: Floats
    complete: bool
    tolerance: float
    counted: int = 0

    @property
    def exact(self) -> bool:
        """True where the ranks held at rounding precision, so that the set is certain but for coincidence."""
        return self.complete and self.tolerance <= EXACT


class Vocabulary:
    """Evidence about every token of the vocabulary from what the first group of projections changed by."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        total = np.zeros((0, 0))
        for _, inputs in probe.vocabulary():
            total = inputs.T @ inputs + (total if total.size else 0.0)
        self.moment: Floats = total / probe.model.vocab_size

    def identify(
        self,
        change: Mapping[str, Change],
        prior: Floats,
        confirm: Confirm,
        more: Sequence[Mapping[str, Change]] = (),
        signs: bool = False,
    ) -> Identified:
        """``prior``: (vocabulary,) log-odds that a token is in the batch, known from the population alone. ``more``:
        changes of other rounds by the same records, which count where tokens are ranked. ``signs``: the changes are no
        sums over positions but their signs, which no few tokens explain."""
        tables: dict[str, Floats] = {}
        rough = not signs and any(change[name].rough for name in self.probe.groups[0])
        best = self._by_pursuit(change, prior, tables) if rough else None
        best = best or self._by_rank_of_space(change, confirm, tables)
        if best is not None and (best.complete or len(best.tokens) >= MOST * best.counted):
            return best
        evidence = self._ranked(change, prior, tables)
        if best is not None:
            evidence[best.tokens] += FITTING
        for other in more:
            evidence += self._ranked(other, prior, {}) - prior
        return Identified(np.zeros(0, np.int64), evidence, False, ROUNDING)

    def _by_rank_of_space(
        self, change: Mapping[str, Change], confirm: Confirm, tables: dict[str, Floats]
    ) -> Identified | None:
        """The tokens that fit the row spaces, ranks being read at one tolerance after the other."""
        best: Identified | None = None
        ranks: set[tuple[int, ...]] = set()
        for tolerance in TOLERANCES:
            found = self._constraints(change, tolerance, tables)
            key = tuple(c.space.rank for c in found)
            if key in ranks or not any(c.usable for c in found):
                continue
            ranks.add(key)
            guess = _by_threshold(found, [tables[c.name] for c in found], confirm, tolerance)
            if guess.complete:
                return guess
            if best is None or len(guess.tokens) > len(best.tokens):
                best = guess
        return best if best is not None and len(best.tokens) else None

    def _by_pursuit(self, change: Mapping[str, Change], prior: Floats, tables: dict[str, Floats]) -> Identified | None:
        """The fewest tokens that explain what survived of the changes of B, from the best-ranked ones first."""
        evidence = self._ranked(change, prior, tables)
        moved = [change[name] for name in self.probe.groups[0] if np.any(change[name].db)]
        order = np.argsort(-evidence, kind="stable")
        best: tuple[float, Identified] | None = None
        for count in dict.fromkeys(min(c, len(order)) for c in SHORTLISTS):
            ids = np.sort(order[:count])
            inputs = np.concatenate([x[ids[(ids >= s) & (ids < s + len(x))] - s] for s, x in self.probe.vocabulary()])
            parts = [
                Projection(c.db, np.ones_like(c.db, bool) if c.known_b is None else c.known_b, inputs @ c.a.T,
                           c.deviation)
                for c in moved
            ]  # fmt: skip
            most = max((int(p.known.sum(1).max()) - 1 for p in parts), default=0)
            fit = pursue(parts, most, len(prior), TOLERANCES) if most > 0 else None
            if fit is not None and (best is None or fit.surplus > best[0]):
                tokens = np.sort(ids[list(fit.chosen)]).astype(np.int64)
                found = Identified(tokens, evidence, True, max(ROUNDING, float(np.sqrt(fit.share))))
                best = fit.surplus, found
                if found.exact:
                    break
        return best[1] if best else None

    def _ranked(self, change: Mapping[str, Change], prior: Floats, tables: dict[str, Floats]) -> Floats:
        """(vocabulary,) log-odds: the population's and what the update adds."""
        found = self._constraints(change, ROUNDING, tables)
        expected = float(np.exp(-np.logaddexp(0, -prior)).sum())
        return np.asarray(prior + _by_rank(found, tables, expected)) if found else prior.astype(np.float64)

    def _constraints(
        self, change: Mapping[str, Change], tolerance: float, tables: dict[str, Floats]
    ) -> list[Constraint]:
        found = constraints(self.probe.groups[0], change, self.moment, tolerance)
        for constraint in found:
            if constraint.name not in tables:
                tables[constraint.name] = self._table(constraint)
        return found

    def _table(self, constraint: Constraint) -> Floats:
        return np.concatenate([constraint.vectors(inputs) for _, inputs in self.probe.vocabulary()])


def _by_threshold(
    found: Sequence[Constraint], vectors: Sequence[Floats], confirm: Confirm, tolerance: float
) -> Identified:
    """The tokens that fit beyond chance, as many at most as the largest rank counts.

    Where the rank leaves little room a first token, which fewer projections see, is not beyond chance in a whole
    vocabulary; then the deeper layers are asked about the few that fit.
    """
    evidence = -judge(found, vectors)
    count, counts = largest_rank(found)
    limit = np.log(len(evidence) / FALSE_TOKENS)
    taken = np.flatnonzero(evidence > limit)
    if len(taken) > count:
        taken = taken[np.argsort(-evidence[taken], kind="stable")][:count]
    elif len(taken) < count:
        rest = np.flatnonzero((evidence <= limit) & (evidence > np.log(len(evidence)) - 3))  # some twenty by chance
        rest = rest[np.argsort(-evidence[rest], kind="stable")][: 4 * count]
        deeper = confirm(rest, tolerance) if len(rest) else None
        if deeper is not None:
            total = -combine([-evidence[rest], deeper])
            better = np.argsort(-total, kind="stable")
            rest = rest[better[total[better] > limit]][: count - len(taken)]
            evidence[rest] = np.maximum(evidence[rest], limit)
            taken = np.union1d(taken, rest)
    return Identified(np.sort(taken).astype(np.int64), evidence, counts and len(taken) == count, tolerance, count)


def _by_rank(found: Sequence[Constraint], tables: Mapping[str, Floats], expected: float) -> Floats:
    """(vocabulary,) nats. ``expected`` tokens share a space of k directions: beyond k each is told by k / expected."""
    score = np.zeros(len(next(iter(tables.values()))) if tables else 0)
    for constraint in found:
        vectors = tables[constraint.name]
        if constraint.on_inputs:
            inside = 1 - np.square(residuals(constraint.space, vectors))
            share = constraint.space.rank / constraint.space.width
            score += WEIGHT_A * np.log(np.maximum(inside, 1e-12) / share)
        else:
            crowded = min(1.0, constraint.space.width / max(expected, 1.0))
            score += WEIGHT_B * crowded * direction_evidence(constraint.change, vectors)
    return score
