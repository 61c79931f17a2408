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
from bench.attack import Reconstruction, Target
from bench.errors import UsageError
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
    sheet = reconstruction.make_sheet(targets, truth, [given_], [guess], lambda ids: "é " + " ".join(map(str, ids)))
    return sheet.to_json()


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
    "no target": set_at("targets", []),
    "twice": lambda value: value["targets"].append(copy.deepcopy(value["targets"][-1])),
    "no record": set_at("targets/0/tokens", []),
    "short record": set_at("targets/0/tokens/0", [1]),
    "long record": set_at("targets/0/tokens/0", [1] * 9000),
    "negative token": set_at("targets/0/tokens/0/0", -1),
    "float token": set_at("targets/0/tokens/0/0", 1.0),
    "missing text": set_at("targets/0/texts", []),
    "text is a number": set_at("targets/0/texts/0", 3),
    "long text": set_at("targets/0/texts/0", "a" * 200_000),
    "answer is a list": set_at("targets/1/answer", []),
    "small vocabulary": set_at("targets/1/answer/vocabulary", 5),
    "rank 0": set_at("targets/1/answer/ranks/0", 0.0),
    "rank beyond": set_at("targets/1/answer/ranks/0", 11.0),
    "all ranks top": set_at("targets/1/answer/ranks", [10.0, 10.0, 10.0, 10.0]),
    "too few ranks": set_at("targets/1/answer/ranks", [1.0]),
    "held unsorted": set_at("targets/1/answer/held", [4, 1]),
    "held twice": set_at("targets/1/answer/held", [1, 1]),
    "held beyond": set_at("targets/1/answer/held", [99]),
    "sequence beyond": set_at("targets/1/answer/sequences/0", [99]),
    "three guesses": set_at("targets/1/answer/sequences", [[1], [2], [3]]),
    "exact is 1": set_at("targets/1/answer/exact", 1),
    "unknown field": set_at("targets/1/answer/more", 1),
    "field gone": lambda value: value["targets"][0].pop("baseline"),
    "silo is empty": set_at("targets/0/silo", ""),
    "round is text": set_at("targets/0/round", "0"),
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
