"""What a reconstruction can be guessed from without any update: the population that every adversary knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.attack.attack import Reconstruction, Target
from bench.core.tokens import Tokens

Floats = NDArray[np.float64]


def carriers(tokens: Tokens) -> list[NDArray[np.int64]]:
    """Per record the ids at positions that carry gradient: those before the last predicted token, in order.

    The last token is only ever predicted, never read for a prediction, so no gradient depends on it as an input.
    """
    last = [np.flatnonzero(row)[-1:] for row in tokens.predicted]
    return [row[: int(end[0]) if len(end) else 0].astype(np.int64) for row, end in zip(tokens.ids, last, strict=True)]


def inclusion(population: Tokens, vocabulary: int, records: int) -> Floats:
    """(vocabulary,) probability, strictly within (0, 1), that a batch of ``records`` records holds each token.

    1 - (1 - q)^records, with q the share of population records that hold the token. Tokens that none holds share the
    mass that Good (1953) gives to unseen kinds: the expected number of new ones in a record is (tokens that exactly one
    record holds) / (records).
    """
    held = np.zeros(vocabulary)
    for ids in carriers(population):
        held[np.unique(ids)] += 1
    n = max(len(population), 1)
    unseen = max(float((held == 1).sum()), 0.5) / n / max(int((held == 0).sum()), 1)
    q = np.clip(np.where(held > 0, held / n, unseen), 1e-12, 1 - 0.5 / (n + 1))
    return np.asarray(np.clip(-np.expm1(records * np.log1p(-q)), 1e-12, 1 - 1e-12))


def expected_distinct(population: Tokens, vocabulary: int, records: int) -> int:
    """Expected number, at least 1, of distinct tokens that carry gradient in ``records`` records of this kind."""
    if not len(population):
        return 1
    return int(np.clip(round(float(inclusion(population, vocabulary, records).sum())), 1, vocabulary))


def most_likely(scores: Floats, count: int) -> NDArray[np.int64]:
    """The ids of the ``count`` highest scores, ascending; ties go to the lower id."""
    return np.sort(np.argsort(-scores, kind="stable")[:count]).astype(np.int64)


def no_update(targets: Sequence[Target], population: Tokens, vocabulary: int) -> list[Reconstruction]:
    """The reconstruction of an adversary that sees no update.

    Tokens are scored by how many population records hold them, as many are claimed as a batch of that size is expected
    to hold, and the sequences are the population records whose tokens are most common.
    """
    found = []
    for target in targets:
        p = inclusion(population, vocabulary, target.records)
        held = most_likely(p, expected_distinct(population, vocabulary, target.records))
        sequences = typical(population, p, target.records)
        found.append(Reconstruction(target, np.log(p), held, sequences, exact=False, reads="population only"))
    return found


def typical(population: Tokens, p: Floats, count: int) -> tuple[tuple[int, ...], ...]:
    """The ``count`` population records with the highest mean inclusion probability over their distinct tokens."""
    rows = [population.ids[i, : population.lengths[i]] for i in range(len(population))]
    means = np.array([float(p[np.unique(row)].mean()) for row in rows])
    chosen = np.argsort(-means, kind="stable")[:count]
    return tuple(tuple(int(t) for t in rows[i]) for i in chosen)
