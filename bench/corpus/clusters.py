"""Clusters of near-duplicate records: the unit that splits never cut and that resampling draws.

Two records are near-duplicates where the Jaccard similarity of their sets of word 5-grams is at least ``THRESHOLD``.
Clusters are the connected components of that relation and of equal ``group``s. The comparison is exact: every pair that
could reach the threshold is found by prefix filtering (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007)
and then counted, so there is neither randomness nor a missed pair.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from math import ceil

from bench.corpus.task import Record

#: Jaccard similarity of word 5-grams from which two records count as one. Verbatim copies with a word or two changed in
#: fifty keep .6 to .8; independent reviews stay below .08
THRESHOLD = 0.5
SHINGLE = 5
# Chinese characters and Japanese kana stand without spaces, so each counts as a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

Shingles = frozenset[tuple[str, ...]]


class UnionFind:
    """Disjoint sets over 0..n-1; the representative of a set is its smallest element."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, item: int) -> int:
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low


def shingles(text: str, words: int) -> Shingles:
    """The set of 5-grams of the first ``words`` words, case and punctuation aside.

    A text of fewer than five words is one shingle; one without any word is its own characters.
    """
    found = [match.group() for match in islice(_WORD.finditer(text.casefold()), words)] or list(text.strip())
    count = max(1, len(found) - SHINGLE + 1)
    return frozenset(tuple(found[i : i + SHINGLE]) for i in range(count))


def cluster(records: Sequence[Record], words: int, threshold: float = THRESHOLD) -> list[int]:
    """Cluster number of every record, counted from 0 in the order of the clusters' first records.

    ``words``: how many words of ``prompt + text`` are compared; with the model's token limit here (a word has at
    least one token), two records that the model sees as the same text are compared on little else.
    """
    sets = [shingles(f"{record.prompt} {record.text}", words) for record in records]
    union = UnionFind(len(records))
    _join_equal(union, (record.group for record in records))
    _join_equal(union, sets)
    # of equal sets one stands for all, so that a text repeated a thousand times is compared once
    representatives = list({key: i for i, key in reversed(list(enumerate(sets)))}.values())
    for one, other in _similar(sets, sorted(representatives), union, threshold):
        union.join(one, other)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(union.find(i), len(numbers)) for i in range(len(records))]


def _join_equal(union: UnionFind, keys: Iterable[Hashable | None]) -> None:
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        if key is not None:
            union.join(first.setdefault(key, i), i)


def _similar(
    sets: Sequence[Shingles], order: Sequence[int], union: UnionFind, threshold: float
) -> Iterable[tuple[int, int]]:
    """Pairs of similarity ``threshold`` or more that are not joined yet.

    Two sets that reach the threshold t share a shingle among the first |x| - ceil(t |x|) + 1 of each, whatever the
    common order; with rare shingles first, few pairs share one by chance.
    """
    frequency = Counter(shingle for i in order for shingle in sets[i])
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in order:
        mine = sets[i]
        ranked = sorted(mine, key=lambda shingle: (frequency[shingle], shingle))
        prefix = [s for s in ranked[: len(mine) - ceil(threshold * len(mine)) + 1] if frequency[s] > 1]
        for other in sorted({j for shingle in prefix for j in index[shingle]}):
            if union.find(i) != union.find(other) and jaccard(mine, sets[other]) >= threshold:
                yield i, other
        for shingle in prefix:
            index[shingle].append(i)


def jaccard(one: Shingles, other: Shingles) -> float:
    """|A and B| / |A or B|, in [0, 1]."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)
