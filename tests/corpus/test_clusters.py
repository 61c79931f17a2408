"""Near-duplicates: exact against brute force, and by hand on what the threshold is for."""

from __future__ import annotations

import unicodedata
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.corpus.clusters import (
    THRESHOLD,
    UnionFind,
    cluster,
    jaccard,
    letter_shingles,
    word_shingles,
    words_of,
)

TEXT = "the patient took one pill each day for ten weeks and then felt much better than in the years before it all"
WORDS = TEXT.split()


def grams(text: str, size: int, letters: bool) -> frozenset[tuple[str, ...]]:
    """The n-grams themselves."""
    items = list("".join(words_of(text))) if letters else words_of(text)
    return frozenset(tuple(items[i : i + size]) for i in range(max(1, len(items) - size + 1)))


def similarity(one: str, other: str) -> float:
    """The larger one of both, by sets of n-grams."""
    pairs = [[grams(text, size, letters) for text in (one, other)] for size, letters in ((5, False), (8, True))]
    return max(len(a & b) / len(a | b) for a, b in pairs)


def brute_force(texts: list[str], groups: list[str | None]) -> list[int]:
    """All pairs, then components by relabelling until nothing changes."""
    labels = list(range(len(texts)))
    linked = [
        (i, j)
        for i, j in combinations(range(len(texts)), 2)
        if similarity(texts[i], texts[j]) >= THRESHOLD or (groups[i] is not None and groups[i] == groups[j])
    ]
    for _ in texts:
        for i, j in linked:
            labels[i] = labels[j] = min(labels[i], labels[j])
    seen: dict[int, int] = {}
    return [seen.setdefault(label, len(seen)) for label in labels]


texts_of_words = st.lists(st.sampled_from(["a", "b", "lengthy"]), min_size=0, max_size=12).map(" ".join)


@given(
    st.lists(texts_of_words, max_size=12),
    st.lists(st.sampled_from([None, None, None, "p", "q"]), min_size=12, max_size=12),
)
def test_clusters_are_those_of_brute_force(texts: list[str], groups: list[str | None]) -> None:
    groups = groups[: len(texts)]
    assert cluster(texts, groups) == brute_force(texts, groups)


@given(st.lists(texts_of_words, min_size=1, max_size=8), st.randoms())
def test_the_order_of_texts_changes_no_cluster(texts: list[str], rng: Random) -> None:
    order = list(range(len(texts)))
    rng.shuffle(order)
    plain, shuffled = cluster(texts), cluster([texts[i] for i in order])
    pairs = [(order.index(i), order.index(j)) for i, j in combinations(range(len(texts)), 2)]
    together = [plain[i] == plain[j] for i, j in combinations(range(len(texts)), 2)]
    assert together == [shuffled[i] == shuffled[j] for i, j in pairs]


def test_a_changed_word_or_two_make_no_new_record() -> None:
    """22 words have 18 shingles; one word changed in the middle leaves 13 of 23 in common: .57."""
    changed = " ".join([*WORDS[:11], "instead", *WORDS[12:]])
    (one, other) = word_shingles([words_of(TEXT), words_of(changed)])
    assert jaccard(one, other) == pytest.approx(13 / 23)
    unlike = "nothing that this text says has been said by the one above nor will be said by any that follows here"
    assert cluster([TEXT, unlike, changed.upper() + "!!"]) == [0, 1, 0]


def test_letters_tell_what_words_do_not() -> None:
    """Every fifth word mistyped: no five words in a row are the same, and most of eight letters are."""
    typed = " ".join(word if i % 5 else word[:-1] + "x" for i, word in enumerate(WORDS))
    words, letters = [f([words_of(TEXT), words_of(typed)]) for f in (word_shingles, letter_shingles)]
    assert jaccard(*words) < 0.1
    assert jaccard(*letters) == pytest.approx(similarity(TEXT, typed))
    joined = TEXT.replace(" ", "")
    assert jaccard(*word_shingles([words_of(TEXT), words_of(joined)])) == 0
    assert cluster([TEXT, joined]) == [0, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "Zoë's café résumé was naïve, Mr. Muñoz",
            unicodedata.normalize("NFD", "Zoë's café résumé was naïve, Mr. Muñoz"),
        ),
        (TEXT, "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in TEXT)),  # full width
        (TEXT, "\u200b".join(TEXT)),  # zero width
        (TEXT, "\u00ad".join(TEXT)),  # soft hyphen
        (TEXT, "\u2060".join(TEXT)),  # word joiner
        ("שלום עולם זה מבחן", "שָׁלוֹם עוֹלָם זֶה מִבְחָן"),  # Hebrew points
        ("محمد كتب رسالة طويلة", "مُحَمَّدٌ كَتَبَ رِسَالَةً طَوِيلَةً"),  # Arabic vowel marks
        ("ﬁne oﬃce ﬂoor plan", "fine office floor plan"),  # ligatures
        ("STRASSE NUMMER EINS", "Straße Nummer eins"),
    ],
)
def test_how_a_text_is_encoded_makes_no_new_record(one: str, other: str) -> None:
    assert one != other
    assert words_of(one) == words_of(other)
    assert cluster([one, "something else altogether, of other words", other]) == [0, 1, 0]


@pytest.mark.parametrize(
    ("one", "other", "unlike"),
    [
        (
            "患者每天服用一粒药片十周后感觉比前几年好多了",
            "患者每天服用一粒药片十周后感觉比前几年好多呢",
            "今天下午在公园里散步遇到了一位多年未见的老朋友",
        ),
        (
            "ผู้ป่วยรับประทานยาวันละหนึ่งเม็ดเป็นเวลาสิบสัปดาห์แล้วรู้สึกดีขึ้นมาก",
            "ผู้ป่วยรับประทานยาวันละสองเม็ดเป็นเวลาสิบสัปดาห์แล้วรู้สึกดีขึ้นมาก",
            "วันนี้อากาศดีมากเราไปเดินเล่นที่สวนสาธารณะกับเพื่อนเก่า",
        ),
        (
            "患者さんは毎日一錠を十週間飲んで以前よりずっと良くなりました",
            "患者さんは毎日一錠を十週間飲んで以前よりとても良くなりました",
            "今日は公園を散歩して古い友達に会って話をしました",
        ),
    ],
)
def test_scripts_without_spaces_are_compared(one: str, other: str, unlike: str) -> None:
    assert cluster([one, other, unlike]) == [0, 0, 1]


def test_groups_are_never_split_and_chains_are_followed() -> None:
    assert cluster(["one text here", "some other words", "a third of them"], ["p", None, "p"]) == [0, 1, 0]
    chain = [" ".join(WORDS[i : i + 15]) for i in range(0, 9, 3)]  # each like the next, the first unlike the last
    assert similarity(chain[0], chain[1]) >= THRESHOLD > similarity(chain[0], chain[2])
    assert cluster(chain) == [0, 0, 0]


def test_short_texts_compare_whole_and_signs_by_themselves() -> None:
    assert cluster(["is it red? yes", "is it blue? yes", "is it red? yes"]) == [0, 1, 0]
    assert cluster(["yes", "Yes.", "no", "!!", "??", "", ""]) == [0, 0, 1, 2, 3, 4, 4]


def test_a_thousand_copies_are_compared_once() -> None:
    """Comparing 5,000 equal texts pair by pair would take most of a minute."""
    assert set(cluster([TEXT] * 5_000)) == {0}


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
