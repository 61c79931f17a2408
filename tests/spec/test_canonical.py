"""Canonical text of a sheet, and parsing such text from anybody: what is not as it is written is refused."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError, UsageError
from bench.spec import canonical
from bench.spec.canonical import Label, Many, Table
from bench.spec.foreign import Foreign

WHAT = "silobench-test"


class Text(Foreign):
    format: Literal["silobench-test"]
    version: Literal[2]
    labels: Many[Label]
    table: Table


@dataclass(frozen=True)
class Sheet:
    labels: tuple[str, ...]
    table: dict[str, tuple[float, ...]]

    def to_json(self) -> str:
        table = {name: list(values) for name, values in self.table.items()}
        return canonical.write({"format": WHAT, "version": 2, "labels": list(self.labels), "table": table})


def understood(value: Text) -> Sheet:
    if len(set(value.labels)) < len(value.labels):
        raise SiloBenchError("a label stands twice")
    return Sheet(value.labels, value.table)


def read(text: str) -> Sheet:
    return canonical.read(Text, text, WHAT, understood)


NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=5)
FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple)
SHEETS = st.builds(Sheet, st.lists(NAMES, unique=True, max_size=3).map(tuple), st.dictionaries(NAMES, FLOATS))
ONE = Sheet(("a", "é"), {"x": (0.5, 2.0)})


def test_text_has_sorted_keys_no_spaces_and_shortest_floats() -> None:
    assert canonical.write({"b": [1, 0.1], "a": {"d": "é", "c": None}}) == '{"a":{"c":null,"d":"é"},"b":[1,0.1]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical.write({"a": math.inf})


def test_a_text_s_name_is_its_sha_256_in_utf_8() -> None:
    assert canonical.sha256("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()


@given(SHEETS)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_and_written_the_same(sheet: Sheet) -> None:
    text = sheet.to_json()
    again = read(text)
    assert again == sheet
    assert again.to_json() == text


@pytest.mark.parametrize("written", [{"indent": 1}, {"separators": (", ", ":")}, {"ensure_ascii": True}])
def test_the_same_contents_in_another_text_are_refused(written: dict[str, Any]) -> None:
    form = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False} | written
    with pytest.raises(UsageError, match=f"^The {WHAT} is not in canonical form"):
        read(json.dumps(json.loads(ONE.to_json()), **form))


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.5", "0.50"), ("2.0]", "2]"), ('"version":2}', '"version":2}\n'), ('"version":2', '"version":2,"version":2')],
)
def test_an_edited_text_is_refused_by_its_digits_end_or_repetition(old: str, new: str) -> None:
    assert old in ONE.to_json()
    with pytest.raises(UsageError, match=r"not in canonical form|gives a key twice"):
        read(ONE.to_json().replace(old, new))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "another"}, "is no silobench-test: its 'format' is \"another\"."),
        ({"version": 3}, "has version 3, and this silobench reads version 2: upgrade silobench."),
        ({"version": 10**400}, "'version' can't be taken (Unable to parse"),
        ({"version": True}, "'version' should be 2, not true."),
        ({"version": "2"}, "'version' should be 2, not \"2\"."),
        ({"labels": [""]}, "'labels.0' should have at least 1 character, not \"\"."),
        ({"labels": ["a" * 501]}, "'labels.0' should have at most 500 characters, not"),
        ({"labels": ["a", 5]}, "'labels.1' should be a valid string, not 5."),
        ({"labels": {}}, "'labels' should be a valid array, not {}."),
        ({"labels": ["a", "a"]}, "contradicts itself: a label stands twice."),
        ({"table": {"a\n": []}}, "is refused: it holds characters that can't be printed."),
        ({"table": {"a": [None]}}, "'table.a.0' should be a valid number, not null."),
        ({"table": {"a": [math.nan]}}, "'table.a.0' should be a finite number, not NaN."),
        ({"table": {"a": [10**400]}}, "'table.a.0' should be a finite number, not 1000"),
        ({"more": 1}, "'more' is no field that is known here."),
    ],
)
def test_a_field_that_does_not_fit_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(json.dumps(json.loads(ONE.to_json()) | changes))
    assert str(caught.value).startswith(f"The {WHAT} ")
    assert says in str(caught.value)


@pytest.mark.parametrize("field", ["format", "version", "labels", "table"])
def test_a_field_that_is_missing_is_named(field: str) -> None:
    value = json.loads(ONE.to_json())
    del value[field]
    with pytest.raises(UsageError, match=f"'{field}' is missing"):
        read(json.dumps(value))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_a_number_out_of_range_is_refused(number: str) -> None:
    with pytest.raises(UsageError, match=r"'table\.x\.0' should be a finite number"):
        read(ONE.to_json().replace("0.5", number))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, '"\ud800"', '{"a":"\\udfff"}'])
def test_what_is_no_json_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(UsageError, match=rf"^The {WHAT} is not valid JSON \(.*\)\.$"):
        read(text)


def test_more_text_than_the_bound_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ONE.to_json()
    monkeypatch.setattr(canonical, "MAX_TEXT", len(text))
    assert read(text) == ONE
    with pytest.raises(UsageError) as caught:
        read(text + " ")
    assert str(caught.value) == f"A {WHAT} has at most {len(text)} characters, this text has {len(text) + 1}."


def test_columns_are_there_without_rows_too() -> None:
    assert canonical.columns([("a", 1), ("b", 2)], 2) == [["a", "b"], [1, 2]]
    assert canonical.columns([], 2) == [[], []]
