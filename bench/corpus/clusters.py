"""Clusters of near-duplicate texts: the unit that splits never cut and that resampling draws.

Two texts are near-duplicates where the Jaccard similarity of their sets of word 5-grams, or of letter 8-grams, is at
least ``THRESHOLD``: words tell texts of which a sentence was moved, letters those of scripts without spaces and those
that were typed anew. Before that, how a text is encoded is taken off it (``words_of``). Clusters are the connected
components of that relation and of equal groups. The comparison is exact: every pair that could reach the threshold is
found by prefix filtering (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007) and then counted, so there
is neither randomness nor a missed pair.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from math import ceil

import numpy as np
from numpy.typing import NDArray

#: Jaccard similarity from which two texts count as one. Verbatim copies with a word or two changed in fifty keep .6 to
#: .8; independent reviews stay below .08
THRESHOLD = 0.5
WORDS, LETTERS = 5, 8
# Chinese characters and Japanese kana stand without spaces, so each counts as a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
#: marks on letters (accents, vowel points) and characters that nobody sees (zero width, soft hyphen)
_UNSEEN = ("Mn", "Me", "Cf")

_AT_ONCE = 4096

#: ascending 64-bit hashes of a set of n-grams; two different n-grams share one with a chance of about 2^-64
Shingles = NDArray[np.uint64]


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


def seen_alike(text: str) -> str:
    """``text`` as a reader sees it: compatible forms (full width, ligatures), case, marks on letters and characters
    without width taken off."""
    if text.isascii():
        return text.casefold()
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in plain if unicodedata.category(c) not in _UNSEEN)


def words_of(text: str) -> list[str]:
    """The words of ``seen_alike(text)``, punctuation aside; of a text without any, its characters."""
    return _WORD.findall(seen_alike(text)) or list(text.strip())


def word_shingles(texts: Sequence[Sequence[str]]) -> list[Shingles]:
    """Of 5 words in a row, for each of ``texts``, which are words; fewer than that are one shingle."""
    known: dict[str, int] = {}
    return _grams(([known.setdefault(word, _hash(word)) for word in words] for words in texts), WORDS)


def letter_shingles(texts: Sequence[Sequence[str]]) -> list[Shingles]:
    """Of 8 letters in a row, across words; fewer than that are one shingle."""
    return _grams((list(map(ord, "".join(words))) for words in texts), LETTERS)


def cluster(
    texts: Sequence[str],
    groups: Iterable[str | None] = (),
    threshold: float = THRESHOLD,
    by: Sequence[Callable[[Sequence[Sequence[str]]], list[Shingles]]] = (word_shingles, letter_shingles),
) -> list[int]:
    """Cluster number of every text, counted from 0 in the order of the clusters' first texts. ``groups``: of each text,
    if any; equal ones are one cluster. ``by``: the n-grams of which any may be alike."""
    words = [words_of(text) for text in texts]
    union = UnionFind(len(texts))
    _join_equal(union, groups)
    _join_equal(union, map(tuple, words))
    # of equal ones one stands for all, so that a text repeated a thousand times is compared once
    stand = sorted({tuple(found): i for i, found in reversed(list(enumerate(words)))}.values())
    for shingled in by:
        for one, other in _similar(shingled([words[i] for i in stand]), stand, union, threshold):
            union.join(one, other)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(union.find(i), len(numbers)) for i in range(len(texts))]


def jaccard(one: Shingles, other: Shingles) -> float:
    """|A and B| / |A or B|, in [0, 1]."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _grams(texts: Iterable[Sequence[int]], size: int) -> list[Shingles]:
    """Of each text the hashes of ``size`` items in a row, or of all where there are fewer. A few thousand texts at a
    time, so that memory is that of the result."""
    found: list[Shingles] = []
    rest = iter(texts)
    while some := list(islice(rest, _AT_ONCE)):
        lengths = np.array([max(len(text), size) for text in some])
        items = np.zeros(lengths.sum(), dtype=np.uint64)  # zero: no item, behind a short text
        ends = np.cumsum(lengths)
        for text, begin in zip(some, ends - lengths, strict=True):
            items[begin : begin + len(text)] = np.array(text, dtype=np.uint64) + np.uint64(1)
        owners = np.repeat(np.arange(len(some)), lengths)
        starts = np.flatnonzero(np.arange(len(items)) <= ends[owners] - size)
        hashes = np.full(len(starts), size, dtype=np.uint64)
        for k in range(size):
            hashes = _mixed(hashes ^ items[starts + k])
        owners = owners[starts]
        order = np.lexsort((hashes, owners))
        hashes, owners = hashes[order], owners[order]
        new = np.append(True, (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1]))
        found += np.split(hashes[new], np.searchsorted(owners[new], np.arange(1, len(some))))
    return found


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of 64-bit numbers in which every bit depends on all (the finaliser of SplitMix64, Steele, Lea and
    Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _join_equal(union: UnionFind, keys: Iterable[Hashable | None]) -> None:
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        if key is not None:
            union.join(first.setdefault(key, i), i)


def _similar(
    sets: Sequence[Shingles], names: Sequence[int], union: UnionFind, threshold: float
) -> Iterator[tuple[int, int]]:
    """Pairs of ``names`` whose ``sets`` have similarity ``threshold`` or more and that are not joined yet.

    Two sets that reach the threshold t share a shingle among the first |x| - ceil(t |x|) + 1 of each, whatever the
    common order; with rare shingles first, few pairs share one by chance.
    """
    if not sets:
        return
    _, numbers, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    places = np.empty(len(counts), dtype=np.int64)
    places[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    index: dict[int, list[int]] = defaultdict(list)
    begin = 0
    for i, mine in enumerate(sets):
        n = len(mine)
        held = numbers[begin : begin + n]
        begin += n
        first = held[np.argsort(places[held])][: n - ceil(threshold * n) + 1]
        prefix = first[counts[first] > 1].tolist()
        for j in sorted({j for shingle in prefix for j in index[shingle]}):
            near = min(n, len(sets[j])) >= threshold * max(n, len(sets[j]))
            if near and union.find(names[i]) != union.find(names[j]) and jaccard(mine, sets[j]) >= threshold:
                yield names[i], names[j]
        for shingle in prefix:
            index[shingle].append(i)
