"""Deduplication: one record of each cluster, found exactly, and groups and answers left out of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.fixtures import sentences
from bench.corpus.clusters import Shingles, jaccard, word_shingles, words_of
from bench.corpus.task import Record
from defenses import dedup
from defenses.records.dedup import NearDuplicates

BASE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"  # 14 words: 10 shingles
WORDS = BASE.split()


def shingles(text: str) -> Shingles:
    return word_shingles([words_of(text)])[0]


def kept(records: list[Record], threshold: float = 0.5) -> list[str]:
    return [record.id for record in NearDuplicates(threshold).apply(records)]


def named(*texts: str) -> list[Record]:
    return [Record(f"r{i}", text) for i, text in enumerate(texts)]


def test_copies_and_near_copies_go_and_the_first_stays() -> None:
    one_word = BASE.replace("fourteen", "fifteen")  # 9 of 11 shingles in common
    middle = BASE.replace("seven", "SEVENTY")  # 5 of 15
    assert kept(named(BASE, BASE, BASE.upper(), one_word, middle)) == ["r0", "r4"]
    assert kept(named(one_word, BASE)) == ["r0"]


def test_the_threshold_is_the_similarity_itself() -> None:
    pair = named(BASE, BASE.replace("fourteen", "fifteen"))
    assert jaccard(*(shingles(r.text) for r in pair)) == pytest.approx(9 / 11)
    assert kept(pair, 9 / 11 - 1e-9) == ["r0"]
    assert kept(pair, 9 / 11 + 1e-9) == ["r0", "r1"]


def test_two_records_of_one_person_are_no_duplicates_and_copies_of_two_persons_are() -> None:
    notes = [Record("a", BASE, group="p"), Record("b", "quite another text of the same person here", group="p")]
    assert kept(notes) == ["a", "b"]
    assert kept([Record("a", BASE, group="p"), Record("b", BASE, group="q")]) == ["a"]


def test_prompts_are_compared_and_answers_are_not() -> None:
    assert kept([Record("a", BASE, answer=" yes"), Record("b", BASE, answer=" no")]) == ["a"]
    prompt = " ".join(WORDS[::-1] * 2)
    assert kept([Record("a", BASE), Record("b", BASE, prompt=prompt + " ")]) == ["a", "b"]


def test_similar_ones_in_a_chain_are_one_cluster() -> None:
    """r0 - r1 - r2, each like the next, the ends unlike: the first stays, as in the splits."""
    words = [*WORDS, *(word + "teen" for word in WORDS)]
    chain = named(*(" ".join(words[k : k + 14]) for k in (0, 3, 6)))
    first, second, third = (shingles(record.text) for record in chain)
    assert (jaccard(first, second), jaccard(second, third), jaccard(first, third)) == (7 / 13, 7 / 13, 4 / 16)
    assert kept(chain) == ["r0"]


def test_one_record_less_may_bring_others_back() -> None:
    """Why no promise about single records outlives it: without the middle of the chain both its ends are kept."""
    words = [*WORDS, *(word + "teen" for word in WORDS)]
    chain = named(*(" ".join(words[k : k + 14]) for k in (3, 0, 6)))
    assert kept(chain) == ["r0"]
    assert kept(chain[1:]) == ["r1", "r2"]
    assert not NearDuplicates.per_record


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_nothing_kept_is_like_another_and_nothing_dropped_is_without_a_like(seed, picks) -> None:
    pool = list(sentences(6, 14, np.random.default_rng(seed)))
    records = [Record(f"r{i}", pool[pick]) for i, pick in enumerate(picks)]
    found = NearDuplicates(0.5).apply(records)
    sets = {r.id: shingles(r.text) for r in records}
    assert all(jaccard(sets[a.id], sets[b.id]) < 0.5 for a in found for b in found if a.id != b.id)
    ids = [r.id for r in found]
    for record in records:
        if record.id not in ids:
            assert any(jaccard(sets[record.id], sets[i]) >= 0.5 for i in ids)
    assert all(record is records[int(record.id[1:])] for record in found)  # untouched, in order
    assert ids == sorted(ids, key=lambda i: int(i[1:]))


def test_the_defense() -> None:
    (part,) = dedup.build(dedup.Config()).records
    assert part.apply([]) == []
    for wrong in ({"threshold": 0.4}, {"threshold": 1.1}, {"words": 5}):
        with pytest.raises(ValidationError):
            dedup.Config(**wrong)
