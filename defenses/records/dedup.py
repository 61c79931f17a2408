"""Removal of near-duplicates among a silo's own records."""

from __future__ import annotations

from collections.abc import Sequence

from bench.corpus.clusters import cluster, word_shingles
from bench.corpus.task import Record
from bench.defense.parts import RecordsPart


class NearDuplicates(RecordsPart):
    """Keeps the first record of every cluster of near-duplicates: the connected components of the relation "Jaccard
    similarity of the sets of word 5-grams of prompt and text is at least ``threshold``", found exactly
    (``bench.corpus.clusters``). Records of one person are no duplicates for that; answers are not compared."""

    # one record more or less may let others in or keep them out
    per_record = False

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        texts = [f"{record.prompt} {record.text}" for record in records]
        numbers = cluster(texts, threshold=self.threshold, by=(word_shingles,))
        first: dict[int, Record] = {}
        for number, record in zip(numbers, records, strict=True):
            first.setdefault(number, record)
        return list(first.values())
