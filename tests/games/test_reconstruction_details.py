"""What a reconstruction's sheet tells of a record (its grades) and what only the private details tell (its text)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import games
from bench.attack.attack import Reconstruction, Target
from bench.core.errors import UsageError
from bench.games import reconstruction_grading
from bench.games.reconstruction_grading import Graded, grade
from bench.games.reconstruction_sheet import GradedTarget, ReconstructionSheet
from tests.games.test_reconstruction_sheet import VOCABULARY, Game, Ids, answer, decode, played


@given(played(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_other_tokens_and_words_in_the_same_pattern_give_the_same_sheet(game: Game, random: Random) -> None:
    targets, truth, *sides = game
    codes, letters = random.sample(range(50), 12), random.sample("abcdefghijklmnopqrstuvwxyz", 26)

    def renamed(ids: Iterable[int]) -> Ids:
        return tuple(codes[i] for i in ids)

    def moved(a: Reconstruction) -> Reconstruction:
        scores = np.full(50, -1.0)
        scores[codes] = a.token_scores
        held = np.array(renamed(a.token_set.tolist()), np.int64)
        return replace(a, token_scores=scores, token_set=held, sequences=tuple(renamed(ids) for ids in a.sequences))

    def padded(a: Reconstruction) -> Reconstruction:
        return replace(a, token_scores=np.concatenate([a.token_scores, np.full(38, -1.0)]))

    def other_words(ids: Sequence[int]) -> str:
        return " ".join(letters[i % 26] * (1 + i // 26) for i in ids)

    one = grade(targets, truth, *([padded(a) for a in side] for side in sides), decode)
    hidden = [[renamed(ids) for ids in records] for records in truth]
    two = grade(targets, hidden, *([moved(a) for a in side] for side in sides), other_words)
    assert one.sheet.to_json() == two.sheet.to_json()
    assert one.details != two.details


@given(st.permutations(range(4)), st.permutations(range(3)))
@settings(deadline=None, max_examples=30)
def test_neither_order_nor_numbers_of_records_are_told(order: Sequence[int], later: Sequence[int]) -> None:
    check_order(order, later)


def check_order(order: Sequence[int], later: Sequence[int]) -> None:
    """Records that are graded alike can't be told apart by where a silo holds them."""
    records = [(1, 2, 3, 0), (4, 5, 6, 0), (7, 8, 9, 0), (10, 11, 12, 0)]
    targets = [Target(0, "a", 4, 1), Target(1, "a", 3, 1)]
    # all are graded alike in round 0; in round 1, where record 3 is not there, they differ
    answers = [answer(targets[1], [1, 2, 4], [], [0.0] * VOCABULARY)]
    guessed = [answer(targets[0], [1, 4, 7, 10], [], [0.0] * VOCABULARY)]
    truth = [[records[i] for i in order], [records[i] for i in later]]
    sheet = grade(targets, truth, answers, guessed, decode).sheet
    assert sheet == grade(targets, [records, records[:3]], answers, guessed, decode).sheet
    assert [t.units for t in sheet.targets] == [(0, 1, 2, 3), (1, 2, 3)]


def broken_in_the_silos_order(targets: Iterable[GradedTarget]) -> ReconstructionSheet:
    """What first comes to mind: records stand, and are numbered, as the silo holds them."""
    return ReconstructionSheet(tuple(sorted(targets, key=lambda t: (t.round, t.silo))))


def test_a_sheet_in_the_silos_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction_grading, "arranged", broken_in_the_silos_order)
    with pytest.raises(AssertionError):
        check_order((0, 1, 2, 3), (0, 1, 2))


def real_words() -> Graded:
    words = ["Warfarin", "gave", "me", "bruises", "Zofran", "überhaupt", "40417", "nausea", "stopped", "mg"]
    targets = [Target(0, "north", 2, 1), Target(0, "south", 1, 1)]
    numbers = [31_001 + 977 * i for i in range(10)]
    of = dict(zip(numbers, words, strict=True))

    def spelled(ids: Sequence[int]) -> str:
        return " ".join(of.get(i, "?") for i in ids)

    truth = [[tuple(numbers[:4]), tuple(numbers[4:8])], [(numbers[8], numbers[9], numbers[0])]]
    scores = np.zeros(49_152)
    scores[numbers[:6]] = 1.0
    answers = [Reconstruction(t, scores, np.array(numbers[:6]), (tuple(numbers[:3]),), True) for t in targets]
    return grade(targets, truth, answers, answers[:1], spelled)


def test_no_token_and_no_word_of_a_record_stands_in_the_sheet() -> None:
    graded = real_words()
    text, details = graded.sheet.to_json(), json.loads(graded.details)
    records = [record for target in details["targets"] for record in target["records"]]
    words = {word for record in records for word in record["text"].split()}
    assert {"Warfarin", "überhaupt", "40417"} <= words
    assert not [word for word in words - {"me"} if word.casefold() in text.casefold()]
    assert not [i for record in records for i in record["tokens"] if str(i) in text]
    # the whole vocabulary of the sheet: field names, the silos' names, counts below 10 and fractions
    said = set(re.findall(r'"([^"]*)"', text)) - {"north", "south"}
    assert said == {
        *("format", "silobench-scores", "version", "game", "reconstruction", "targets"),
        *("round", "silo", "steps", "units", "answer", "baseline", "records", "target"),
    }
    assert all(float(number) < 10 for number in re.findall(r"[-+0-9.e]*[0-9]", re.sub(r'"[^"]*"', "", text)))


def broken_with_digests(sheet: ReconstructionSheet, graded: Graded) -> str:
    """A sheet that still names its records, by a digest that anybody could search for."""
    value = json.loads(sheet.to_json())
    for target, detail in zip(value["targets"], json.loads(graded.details)["targets"], strict=True):
        target["units"] = [hash(tuple(record["tokens"])) % 2**50 for record in detail["records"]]
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def test_a_sheet_that_names_records_by_a_digest_is_refused() -> None:
    graded = real_words()
    with pytest.raises(UsageError, match="canonical"):
        games.load(broken_with_digests(graded.sheet, graded))


def test_details_suffice_to_grade_again() -> None:
    graded = real_words()
    details = json.loads(graded.details)
    assert details["scores"] == graded.sheet.sha256
    for target in details["targets"]:
        truth = [record["tokens"][:-1] for record in target["records"]]
        there = {i for ids in truth for i in ids}
        given = target["answer"]
        m, n = len(there), given["vocabulary"] - len(there)
        area = (sum(given["ranks"]) - m * (m + 1) / 2) / (m * n)
        precision = len(there & set(given["held"])) / len(given["held"])
        assert given["grades"]["target"] == [pytest.approx(precision), pytest.approx(area)]
        for ids, guess, row in zip(truth, given["assigned"], given["grades"]["records"], strict=True):
            assert row[0] == len(set(ids) & set(given["held"])) / len(set(ids))
            assert row[5] == (guess is not None and given["guesses"][guess]["tokens"] == ids)
    assert [t["answer"]["guesses"][0]["text"] for t in details["targets"]] == ["Warfarin gave me"] * 2
    assert details["targets"][1]["baseline"] is None
