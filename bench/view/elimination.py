"""What follows linearly from a few combinations of many unknowns: Gaussian elimination, sparse and row by row.

Combinations that share no unknown, not even through others, have nothing to do with each other, and are solved apart
(``components``). So rounds that nothing links cost what one of them costs, times their number, and no bound on the
number of rows is needed. A row that follows from those before it adds nothing and is let go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: smaller coefficients are rounding
ZERO = 1e-9

#: a silo's summand of a round
Unknown = tuple[int, str]


@dataclass(frozen=True)
class Solved:
    """A combination of unknowns, and by number the given rows, weighted, of which it is the sum."""

    terms: Mapping[Unknown, float]
    weights: Mapping[int, float]


def components(rows: Sequence[Mapping[Unknown, float]]) -> list[list[int]]:
    """The numbers of the rows that hang together by the unknowns that they share, each list ascending; rows without an
    unknown are in none."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Unknown, int] = {}
    for number, row in enumerate(rows):
        for unknown in row:
            parent[root(number)] = root(first.setdefault(unknown, number))
    found: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        if row:
            found.setdefault(root(number), []).append(number)
    return list(found.values())


def eliminate(rows: Mapping[int, Mapping[Unknown, float]]) -> list[Solved]:
    """The reduced row echelon form of the numbered ``rows``, unknowns in their order, each row with what makes it.

    A single unknown follows from ``rows`` exactly when it stands alone in a row of this form. Of rows that follow from
    each other the earlier ones are used.
    """
    found: dict[Unknown, tuple[dict[Unknown, float], dict[int, float]]] = {}
    for number, row in rows.items():
        terms, weights = {unknown: float(c) for unknown, c in row.items() if c}, {number: 1.0}
        for lead in [unknown for unknown in row if unknown in found]:
            _subtract(terms, weights, terms.get(lead, 0.0), *found[lead])
        if not terms:
            continue
        lead = min(terms)
        scale = terms[lead]
        terms = {unknown: c / scale for unknown, c in terms.items()}
        weights = {n: w / scale for n, w in weights.items()}
        for others in found.values():
            _subtract(*others, others[0].get(lead, 0.0), terms, weights)
        found[lead] = terms, weights
    return [Solved(terms, dict(sorted(weights.items()))) for _, (terms, weights) in sorted(found.items())]


def _subtract(
    terms: dict[Unknown, float],
    weights: dict[int, float],
    times: float,
    other: Mapping[Unknown, float],
    other_weights: Mapping[int, float],
) -> None:
    """Take ``times`` another row off a row, in place; what comes to nothing goes."""
    if times == 0.0:
        return
    for unknown, c in other.items():
        left = terms.get(unknown, 0.0) - times * c
        terms[unknown] = left
        if abs(left) <= ZERO:
            del terms[unknown]
    for number, w in other_weights.items():
        weights[number] = weights.get(number, 0.0) - times * w
