"""Membership by looking: how much of a candidate is found in records that a view holds in clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.attack.attack import Candidates

if TYPE_CHECKING:
    from bench.view.view import View

Bags = Mapping[str, Sequence[Counter[int]]]


def records_read(view: View) -> Bags:
    """By silo, the tokens of each of its records that the view holds, counted."""
    held: dict[str, list[Counter[int]]] = {}
    for reading in view.readings:
        if reading.kind == "records":
            counts = [Counter(row[row >= 0].tolist()) for row in reading.values]
            for silo in reading.silos:
                held.setdefault(silo, []).extend(counts)
    return held


def overlap(candidates: Candidates, held: Bags) -> NDArray[np.float64]:
    """(n,) the largest share of a candidate's tokens that one record of its silo holds, as often as they occur: 1 for a
    record that is there, 0 where none of its silo's is read."""
    rows = zip(candidates.tokens.own(), candidates.silos, strict=True)
    return np.array([_best(Counter(own.tolist()), held.get(silo, ())) for own, silo in rows], dtype=np.float64)


def _best(candidate: Counter[int], held: Sequence[Counter[int]]) -> float:
    return max(((candidate & record).total() / candidate.total() for record in held), default=0.0)
