"""Reconstruction sheets: grades by hand, the same figures as from the texts, and text from anybody."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import games, stats
from bench.attack.attack import Reconstruction, Target
from bench.core.errors import UsageError
from bench.games.matching import assign
from bench.games.reconstruction import BASELINE
from bench.games.reconstruction_grading import Graded, grade
from bench.games.reconstruction_sheet import (
    RECORD_FIGURES,
    TARGET_FIGURES,
    GradedTarget,
    Grades,
    ReconstructionSheet,
    arranged,
)

VOCABULARY = 40
Ids = tuple[int, ...]
#: targets, truth, answers, baseline
Game = tuple[list[Target], list[list[Ids]], list[Reconstruction], list[Reconstruction]]


def decode(ids: Sequence[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


def answer(of: Target, held: Sequence[int], sequences: Sequence[Ids], scores: Sequence[float]) -> Reconstruction:
    return Reconstruction(of, np.array(scores, float), np.array(held, np.int64), tuple(sequences), exact=False)


# -- grades by hand ------------------------------------------------------------------------------------------------


def two_silos() -> Graded:
    """silo-0 in two rounds (one record comes back), silo-1 in one, which nobody answers for."""
    targets = [Target(0, "silo-0", 2, 3), Target(1, "silo-0", 1, 3), Target(0, "silo-1", 1, 3)]
    truth = [[(1, 2, 3, 4), (5, 6, 7, 8, 9)], [(5, 6, 7, 8, 9)], [(10, 11)]]
    ranking = [1.0 if i in (1, 2, 3, 30) else 0.0 for i in range(VOCABULARY)]
    answers = [
        answer(targets[0], [1, 2, 5, 30], [(1, 2, 3), (6, 5, 7, 8)], ranking),
        answer(targets[1], [], [], [0.0] * VOCABULARY),
    ]
    return grade(targets, truth, answers, [], decode)


def test_grades_by_hand() -> None:
    first, silent, second = two_silos().sheet.targets
    # 1 2 3 and 5 6 7 8 carry gradient; w6 w5 w7 w8 shares all words, one pair of three and a subsequence of three
    first_row = (1 / 4, 1.0, 1 / 3, 3 / 4, 0.0, 0.0)
    second_row = (2 / 3, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert first.answer is not None
    assert [pytest.approx(row) for row in (first_row, second_row)] == list(first.answer.records)
    # 7 of 40 tokens were there; 1 2 3 tie with token 30 above 32 zeros, 5 6 7 8 tie with those zeros
    area = (3 * (32 + 1 / 2) + 4 * (32 / 2)) / (7 * 33)
    assert first.answer.target == (3 / 4, pytest.approx(area))
    assert second.answer == Grades(((0.0,) * 6,), (0.0, 0.5))
    assert silent.answer is first.baseline is second.baseline is None
    # 5 6 7 8 9 is graded lower, so it is record 0, in both rounds
    assert [t.units for t in (first, silent, second)] == [(0, 1), (2,), (0,)]
    assert [(t.round, t.silo, t.steps) for t in (first, silent, second)] == [
        (0, "silo-0", 3),
        (0, "silo-1", 3),
        (1, "silo-0", 3),
    ]


def test_figures_by_hand() -> None:
    rows = {row.name: row for row in games.leakage(two_silos().sheet).leakage}
    assert set(rows) == {name + of for name in (*RECORD_FIGURES, *TARGET_FIGURES) for of in ("", BASELINE)}
    assert rows["token_recall"].value == pytest.approx((1 / 4 + 2 / 3) / 4)
    assert rows["exact"].value == 1 / 4
    assert rows["token_precision"].value == 1 / 4
    assert rows["token_recall"].n == {"targets": 3, "records": 4, "answered": 2, "units": 3}
    assert rows["token_precision"].n == {"targets": 3, "records": 4, "answered": 2, "units": 2}
    assert rows["token_auc" + BASELINE].value == 0.5
    assert rows["exact"].note == "1 of 3 targets unanswered: failures"


def test_the_text_is_pinned() -> None:
    """Committed sheets are named by their SHA-256, so their form must not drift."""
    sheet = arranged(
        [
            GradedTarget(1, "b", 2, (7,), None, Grades(((0.5, 0.0, 0.0, 0.0, 1.0, 0.0),), (0.25, 1.0))),
            GradedTarget(0, "a", 2, (7, 3), Grades(((1.0,) * 6, (0.0,) * 6), (0.0, 0.5)), None),
        ]
    )
    assert sheet.to_json() == (
        '{"format":"silobench-scores","game":"reconstruction","targets":['
        '{"answer":{"records":[[0.0,0.0,0.0,0.0,0.0,0.0],[1.0,1.0,1.0,1.0,1.0,1.0]],"target":[0.0,0.5]},'
        '"baseline":null,"round":0,"silo":"a","steps":2,"units":[0,1]},'
        '{"answer":null,"baseline":{"records":[[0.5,0.0,0.0,0.0,1.0,0.0]],"target":[0.25,1.0]},'
        '"round":1,"silo":"b","steps":2,"units":[1]}],"version":2}'
    )


# -- the same figures as from tokens and texts ---------------------------------------------------------------------

tokens = st.integers(0, 9)
record = st.lists(tokens, min_size=2, max_size=6).map(tuple)


@st.composite
def played(draw: st.DrawFn) -> Game:
    pool = draw(st.lists(record, min_size=1, max_size=5))
    places = draw(st.sets(st.tuples(st.integers(0, 2), st.sampled_from("abc")), min_size=1, max_size=5))
    truth = [draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3)) for _ in places]
    targets = [Target(round, silo, len(t), 1) for (round, silo), t in zip(sorted(places), truth, strict=True)]
    guess = st.one_of(st.sampled_from(pool), st.sampled_from(pool).map(lambda ids: ids[:-1]), record)

    def side(always: bool) -> list[Reconstruction]:
        asked = [t for t in targets if always or draw(st.booleans())]
        scores = st.lists(st.integers(0, 3), min_size=12, max_size=12)
        return [
            answer(t, draw(st.lists(tokens)), draw(st.lists(guess, max_size=t.records)), draw(scores)) for t in asked
        ]

    return targets, truth, side(False), side(True)


def f1(one: Sequence[Any], other: Sequence[Any]) -> float:
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other)) if common else 0.0


def longest(one: Sequence[Any], other: Sequence[Any]) -> int:
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return 1 + longest(one[:-1], other[:-1])
    return max(longest(one[:-1], other), longest(one, other[:-1]))


def graded_from_texts(truth: Sequence[Ids], given: Reconstruction | None) -> tuple[list[list[float]], list[float]]:
    """Grades of one target straight from the ids (which are the words), without the harness's own counting."""
    if given is None:
        return [[0.0] * 6 for _ in truth], [0.0, 0.5]
    claimed, there = set(given.token_set.tolist()), {i for ids in truth for i in ids[:-1]}
    rows = []
    for ids, guess in zip(truth, assign([ids[:-1] for ids in truth], given.sequences), strict=True):
        row = [len(claimed & set(ids[:-1])) / len(set(ids[:-1]))] + [0.0] * 5
        if guess is not None:
            mine, theirs = ids[:-1], given.sequences[guess]
            pairs = [list(pairwise(side)) for side in (mine, theirs)]
            both = longest(mine, theirs) * 2 / (len(mine) + len(theirs))
            same = float(theirs in (mine, ids))
            row[1:] = [f1(mine, theirs), f1(*pairs), both, same, same]
        rows.append(row)
    scores = given.token_scores
    wins = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2 for i in there for j in set(range(len(scores))) - there
    ]
    return rows, [len(claimed & there) / len(claimed) if claimed else 0.0, float(np.mean(wins))]


def connected(truth: Sequence[Sequence[Ids]]) -> list[int]:
    """Per target the first target that it is tied to by shared records."""
    groups = list(range(len(truth)))
    for _ in truth:
        for i, one in enumerate(truth):
            groups[i] = min(groups[j] for j, other in enumerate(truth) if set(one) & set(other))
    return groups


@given(played())
@settings(deadline=None, max_examples=30)
def test_the_grades_give_the_figures_that_the_texts_give(game: Game) -> None:
    targets, truth, *sides = game
    text = grade(targets, truth, sides[0], sides[1], decode).sheet.to_json()
    found = {row.name: row for row in games.leakage(games.load(text)).leakage}
    for answers, suffix in zip(sides, ("", BASELINE), strict=True):
        by_target = {(a.target.round, a.target.silo): a for a in answers}
        pairs = [graded_from_texts(t, by_target.get((of.round, of.silo))) for of, t in zip(targets, truth, strict=True)]
        records = [ids for t in truth for ids in t]
        for names, values, units in (
            (RECORD_FIGURES, [row for rows, _ in pairs for row in rows], records),
            (TARGET_FIGURES, [row for _, row in pairs], connected(truth)),
        ):
            for column, name in enumerate(names):
                wanted = stats.mean_interval(np.array(values)[:, column], [hash(u) for u in units])
                row, limits = found[name + suffix], (wanted.value, wanted.low, wanted.high)
                assert (row.value, row.low, row.high) == pytest.approx(limits, abs=1e-9)
                assert row.n == {
                    "targets": len(targets),
                    "records": len(records),
                    "answered": len(answers),
                    "units": len(set(units)),
                }


@given(played())
@settings(deadline=None, max_examples=30)
def test_round_trip_is_exact(game: Game) -> None:
    sheet = grade(*game, decode).sheet
    again = ReconstructionSheet.from_json(sheet.to_json())
    assert again == sheet
    assert (again.to_json(), again.sha256) == (sheet.to_json(), sheet.sha256)
    assert arranged(sheet.targets) == sheet


# -- text from anybody ---------------------------------------------------------------------------------------------


def test_an_older_sheet_is_refused_in_a_sentence_that_says_what_to_do() -> None:
    old = {
        "format": "silobench-scores",
        "game": "reconstruction",
        "targets": [{"answer": None, "baseline": None, "round": 0, "silo": "a", "steps": 1, "texts": ["x"]}],
        "version": 1,
    }
    with pytest.raises(UsageError, match=r"has version 1, and this silobench reads version 2: .* --refresh\.$"):
        games.load(json.dumps(old, sort_keys=True, separators=(",", ":")))


def leaves(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything within ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(path for key, item in inner for path in leaves(item, (*way, key)))]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def refusal(text: str) -> str | None:
    """Why ``text`` is no sheet; None where it is one."""
    try:
        games.load(text)
    except UsageError as error:
        return str(error)
    return None


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_whatever_is_put_in_its_place_is_read_or_refused(data: st.DataObject) -> None:
    """Ten changes an example: each is refused in a sentence, or gives figures as any sheet does."""
    original = json.loads(two_silos().sheet.to_json())
    for _ in range(10):
        value = copy.deepcopy(original)
        *way, last = data.draw(st.sampled_from(leaves(original)[1:]))
        at = value
        for key in way:
            at = at[key]
        at[last] = data.draw(anything)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        said = refusal(text)
        if said is not None:
            assert len(said) < 500
            continue
        sheet = games.load(text)
        assert sheet.to_json() == text
        assert len(games.leakage(sheet).leakage) == 16


def test_a_grade_out_of_range_is_named_with_its_place() -> None:
    """A parser without the bounds would let a figure's formula meet values that it is not made for."""
    text = two_silos().sheet.to_json().replace("[0.0,0.5]", "[0.0,1.5]")
    with pytest.raises(UsageError, match=r"'targets\.\d\.answer\.target\.1' should be less .* 1, not 1\.5\.$"):
        games.load(text)
