"""Sheets as text: canonical, exact, and hostile."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import games
from bench.attack.attack import Reconstruction, Target
from bench.core.errors import UsageError
from bench.games import membership, reconstruction
from bench.games.sheet import load

Value = dict[str, Any]


def membership_text() -> str:
    return membership.make_sheet(
        ["b", "a", "d", "c"],
        ["s", "s", "t", "t"],
        [3, 1, 9, 9],
        [True, False, True, True],
        {"y": [0.1, 1 / 3, -0.0, 1e-300], "x": [1.0, 2.0, 3.0, 4.0]},
        {"length": [5.0, 6.0, 7.0, 8.0]},
    ).to_json()


def reconstruction_text() -> str:
    targets = [Target(0, "silo-1", 2, 1), Target(0, "silo-0", 1, 1)]
    truth = [[(1, 2, 3), (4, 5, 6)], [(7, 8)]]
    given_ = Reconstruction(targets[0], np.arange(10.0), np.array([4, 1]), ((1, 2), (9,)), exact=False)
    guess = Reconstruction(targets[1], np.zeros(10), np.array([], np.int64), (), exact=False)
    graded = reconstruction.grade(targets, truth, [given_], [guess], lambda ids: "é " + " ".join(map(str, ids)))
    return graded.sheet.to_json()


TEXTS = {"membership": membership_text, "reconstruction": reconstruction_text}


@pytest.mark.parametrize("make", TEXTS.values())
def test_round_trip_is_exact_and_gives_the_same_figures(make: Callable[[], str]) -> None:
    sheet = load(make())
    assert sheet.to_json() == make()
    assert sheet.sha256 == hashlib.sha256(make().encode()).hexdigest()
    assert games.leakage(sheet) == games.leakage(load(sheet.to_json()))
    assert games.load(make()).to_json() == make()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=8))
@settings(deadline=None)
def test_every_double_survives(values: list[float]) -> None:
    ids = [f"{i}" for i in range(len(values))]
    member = [i == 0 for i in range(len(values))]
    sheet = membership.make_sheet(ids, ["s"] * len(ids), list(range(len(ids))), member, {"x": values})
    again = load(sheet.to_json())
    assert isinstance(again, membership.MembershipSheet)
    assert again.scores["x"].tobytes() == sheet.scores["x"].tobytes()


def test_the_text_is_pinned() -> None:
    """Committed sheets are named by their SHA-256, so their form must not drift."""
    text = membership_text()
    assert text == (
        '{"baseline":{"length":[6.0,5.0,8.0,7.0]},'
        '"candidates":[["a","s",1,0],["b","s",3,1],["c","t",9,1],["d","t",9,1]],'
        '"format":"silobench-scores","game":"membership",'
        '"scores":{"x":[2.0,1.0,4.0,3.0],"y":[0.3333333333333333,0.1,1e-300,-0.0]},"version":1}'
    )


def dump(value: Value) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def set_at(path: str, new: object) -> Callable[[Value], object]:
    """A change of the value at ``a/0/b``."""

    def change(value: Value) -> None:
        *way, last = path.split("/")
        at: Any = value
        for key in way:
            at = at[int(key)] if isinstance(at, list) else at[key]
        at[int(last) if isinstance(at, list) else last] = new

    return change


HOSTILE_MEMBERSHIP = {
    "format": set_at("format", "x"),
    "newer": set_at("version", 2),
    "game": set_at("game", "source"),
    "game is a list": set_at("game", []),
    "no scores": set_at("scores", {}),
    "scores is a list": set_at("scores", []),
    "short scores": set_at("scores/x", [1.0]),
    "integer score": set_at("scores/x/0", 1),
    "text score": set_at("scores/x/0", "1.0"),
    "null score": set_at("scores/x/0", None),
    "taken name": set_at("scores/baseline", [1.0, 2.0, 3.0, 4.0]),
    "control character": set_at("scores/a\u0007", [1.0, 2.0, 3.0, 4.0]),
    "same id": set_at("candidates/0/0", "b"),
    "unsorted": set_at("candidates/0/0", "z"),
    "empty id": set_at("candidates/0/0", ""),
    "number as id": set_at("candidates/0/0", 7),
    "long id": set_at("candidates/0/0", "a" * 10_000),
    "cluster in two silos": set_at("candidates/0/2", 9),
    "cluster of both classes": set_at("candidates/2/3", 0),
    "huge cluster": set_at("candidates/0/2", 2**60),
    "cluster 1.0": set_at("candidates/0/2", 1.0),
    "member 2": set_at("candidates/0/3", 2),
    "member true": set_at("candidates/1/3", True),
    "row too long": set_at("candidates/0", ["a", "s", 1, 0, 0]),
    "row is no list": set_at("candidates/0", {}),
    "candidates is no list": set_at("candidates", {"0": []}),
    "unknown field": set_at("more", 1),
}
HOSTILE_RECONSTRUCTION = {
    "newer": set_at("version", 3),
    "older": set_at("version", 1),
    "version 0": set_at("version", 0),
    "no target": set_at("targets", []),
    "targets is no list": set_at("targets", {}),
    "target is no object": set_at("targets/0", []),
    "twice": lambda value: value["targets"].append(copy.deepcopy(value["targets"][-1])),
    "unsorted targets": lambda value: value["targets"].reverse(),
    "negative round": set_at("targets/0/round", -1),
    "round is text": set_at("targets/0/round", "0"),
    "negative steps": set_at("targets/0/steps", -1),
    "silo is empty": set_at("targets/0/silo", ""),
    "no record": set_at("targets/0/units", []),
    "more records than grades": set_at("targets/1/units", [1, 2, 3]),
    "fewer records than grades": set_at("targets/1/units", [1]),
    "records in another order": lambda value: value["targets"][1]["answer"]["records"].reverse(),
    "numbers in another order": set_at("targets/1/units", [2, 1]),
    "numbers with a gap": set_at("targets/1/units", [1, 3]),
    "numbers from 1": lambda value: [set_at("targets/0/units", [1])(value), set_at("targets/1/units", [2, 3])(value)],
    "negative number": set_at("targets/0/units", [-1]),
    "huge number": set_at("targets/0/units", [2**60]),
    "number is 0.0": set_at("targets/0/units", [0.0]),
    "number is true": set_at("targets/1/units", [True, 2]),
    "number is a list": set_at("targets/0/units", [[]]),
    "answer is a list": set_at("targets/1/answer", []),
    "answer is false": set_at("targets/0/answer", False),
    "grade above 1": set_at("targets/1/answer/records/0/0", 1.0000000000000002),
    "grade below 0": set_at("targets/1/answer/records/0/1", -1e-300),
    "integer grade": set_at("targets/1/answer/records/0/1", 0),
    "text as a grade": set_at("targets/1/answer/records/0/1", "0.0"),
    "null grade": set_at("targets/1/answer/records/0/1", None),
    "five grades": set_at("targets/1/answer/records/0", [0.0] * 5),
    "seven grades": set_at("targets/1/answer/records/0", [0.0] * 7),
    "grades are an object": set_at("targets/1/answer/records/0", {}),
    "half exact": set_at("targets/1/answer/records/1/4", 0.5),
    "half in order": set_at("targets/1/answer/records/1/5", 0.5),
    "in order and not exact": set_at("targets/1/answer/records/1/4", 0.0),
    "precision above 1": set_at("targets/1/answer/target/0", 2.0),
    "one target grade": set_at("targets/1/answer/target", [0.5]),
    "unknown field of an answer": set_at("targets/1/answer/texts", ["a record"]),
    "unknown field of a target": set_at("targets/1/texts", ["a record"]),
    "field gone": lambda value: value["targets"][0].pop("baseline"),
}


@pytest.mark.parametrize(
    ("make", "change"),
    [
        pytest.param(make, change, id=f"{game}: {name}")
        for game, make, changes in (
            ("membership", membership_text, HOSTILE_MEMBERSHIP),
            ("reconstruction", reconstruction_text, HOSTILE_RECONSTRUCTION),
        )
        for name, change in changes.items()
    ],
)
def test_hostile_values_are_refused_in_a_sentence(make: Callable[[], str], change: Callable[[Value], object]) -> None:
    value = json.loads(make())
    assert dump(value) == make()
    change(value)
    with pytest.raises(UsageError) as caught:
        load(dump(value))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"a":1}',
        "[" * 200_000,
        '{"format":"silobench-scores","version":1}',
        membership_text() + "\n",
        membership_text().replace("2.0", "2.00"),
        membership_text().replace("2.0", "NaN"),
        membership_text().replace("2.0", "Infinity"),
        membership_text().replace("2.0", "1e999"),
        membership_text().replace('"version":1', '"version":1,"version":1'),
        membership_text().replace('"version":1', '"version":' + "9" * 5000),
        membership_text().replace('["a"', '["\\ud800"'),
    ],
)
def test_hostile_text_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(text)
    assert len(str(caught.value)) < 500


def test_nothing_infinite_is_ever_written() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        membership.form.write({"x": math.inf})
