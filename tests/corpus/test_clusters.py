"""Near-duplicates: exact against brute force, and by hand on what the threshold is for."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.corpus.clusters import THRESHOLD, UnionFind, cluster, jaccard, shingles
from bench.corpus.task import Record

TEXT = "the patient took one pill each day for ten weeks and then felt much better than in the years before it all"
WORDS = TEXT.split()


def make_records(*texts: str, groups: tuple[str | None, ...] | None = None) -> list[Record]:
    chosen = groups if groups is not None else (None,) * len(texts)
    return [Record(id=str(i), text=text, group=g) for i, (text, g) in enumerate(zip(texts, chosen, strict=True))]


def brute_force(records: list[Record], words: int) -> list[int]:
    """All pairs, then components by relabelling until nothing changes."""
    sets = [shingles(f"{r.prompt} {r.text}", words) for r in records]
    labels = list(range(len(records)))
    linked = [
        (i, j)
        for i, j in combinations(range(len(records)), 2)
        if jaccard(sets[i], sets[j]) >= THRESHOLD
        or (records[i].group is not None and records[i].group == records[j].group)
    ]
    for _ in records:
        for i, j in linked:
            labels[i] = labels[j] = min(labels[i], labels[j])
    seen: dict[int, int] = {}
    return [seen.setdefault(label, len(seen)) for label in labels]


word_lists = st.lists(st.sampled_from("ab"), min_size=0, max_size=12)


@given(
    st.lists(word_lists, max_size=12), st.lists(st.sampled_from([None, None, None, "p", "q"]), min_size=12, max_size=12)
)
def test_clusters_are_those_of_brute_force(texts: list[list[str]], groups: list[str | None]) -> None:
    records = make_records(*(" ".join(text) for text in texts), groups=tuple(groups[: len(texts)]))
    assert cluster(records, words=10) == brute_force(records, words=10)


def test_a_changed_word_or_two_make_no_new_record() -> None:
    """22 words have 18 shingles; one word changed in the middle leaves 13 of 23 in common: .57."""
    text = TEXT
    changed = " ".join([*WORDS[:11], "instead", *WORDS[12:]])
    assert jaccard(shingles(text, 99), shingles(changed, 99)) == pytest.approx(13 / 23)
    other = "nothing that this text says has been said by the one above nor will be said by any that follows here"
    assert cluster(make_records(text, other, changed.upper() + "!!"), words=99) == [0, 1, 0]


def test_only_what_the_model_sees_is_compared() -> None:
    start = TEXT
    one, other = (f"{start} {' '.join(f'{tail}{i}' for i in range(60))}" for tail in "xy")
    assert cluster(make_records(one, other), words=len(WORDS)) == [0, 0]
    assert cluster(make_records(one, other), words=80) == [0, 1]


def test_groups_are_never_split_and_chains_are_followed() -> None:
    records = make_records("one text here", "some other words", "a third of them", groups=("p", None, "p"))
    assert cluster(records, words=50) == [0, 1, 0]
    chain = [" ".join(WORDS[i : i + 15]) for i in range(0, 9, 3)]  # each like the next, the first unlike the last
    first, middle, last = (shingles(text, 99) for text in chain)
    assert jaccard(first, middle) >= THRESHOLD > jaccard(first, last)
    assert cluster(make_records(*chain), words=99) == [0, 0, 0]


def test_prompts_count_and_short_texts_compare_whole() -> None:
    records = [
        Record(id=str(i), prompt=p, text="yes") for i, p in enumerate(("is it red?", "is it blue?", "is it red?"))
    ]
    assert cluster(records, words=50) == [0, 1, 0]
    assert cluster(make_records("yes", "Yes.", "no", "!!", "??"), words=50) == [0, 0, 1, 2, 3]


def test_text_without_spaces_is_compared_by_character() -> None:
    one = "患者每天服用一粒药片十周后感觉比前几年好多了"
    assert cluster(make_records(one, one[:-1] + "呢", "今天下午在公园里散步遇到了一位多年未见的老朋友"), words=99) == [
        0,
        0,
        1,
    ]


def test_a_thousand_copies_are_compared_once() -> None:
    """Comparing 5,000 equal texts pair by pair would take most of a minute."""
    assert set(cluster(make_records(*([TEXT] * 5_000)), words=50)) == {0}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=15))
def test_union_find_keeps_the_smallest_as_representative(pairs: list[tuple[int, int]]) -> None:
    union = UnionFind(10)
    sets = [{i} for i in range(10)]
    for one, other in pairs:
        union.join(one, other)
        joined = sets[one] | sets[other]
        for i in joined:
            sets[i] = joined
    assert [union.find(i) for i in range(10)] == [min(s) for s in sets]
