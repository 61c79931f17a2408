"""Canonical text of a sheet, and parsing such text from anybody: what is not as it is written is refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.spec import canonical

WHAT = "silobench-test"
HEAD = {"format": WHAT, "version": 2}
NAMES = st.text(st.characters(codec="utf-8"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
SHEETS = st.dictionaries(NAMES, VALUES, max_size=4).map(lambda body: {**body, **HEAD})


def refused(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value) == says


# -- text ----------------------------------------------------------------------------------------------------------


def test_text_has_sorted_keys_no_spaces_and_shortest_floats() -> None:
    assert canonical.write({"b": [1, 0.1], "a": {"d": "é", "c": None}}) == '{"a":{"c":null,"d":"é"},"b":[1,0.1]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical.write({"a": math.inf})


def test_a_text_s_name_is_its_sha_256_in_utf_8() -> None:
    assert canonical.sha256("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()


@given(SHEETS)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_and_written_the_same(sheet: dict[str, Any]) -> None:
    text = canonical.write(sheet)
    again = canonical.parse(text, WHAT, 2)
    assert again == sheet
    canonical.require_canonical(text, canonical.write(again), WHAT)


@given(SHEETS, st.sampled_from([{"indent": 1}, {"separators": (", ", ":")}, {"separators": (",", ": ")}]))
@settings(max_examples=30, deadline=None)
def test_the_same_contents_in_another_text_are_refused(sheet: dict[str, Any], written: dict[str, Any]) -> None:
    text = json.dumps(sheet, sort_keys=True, ensure_ascii=False, **written)
    assume(text != canonical.write(sheet))
    says = f"The {WHAT} is not in canonical form: it holds unknown fields, or was edited by hand."
    refused(lambda: canonical.require_canonical(text, canonical.write(canonical.parse(text, WHAT, 2)), WHAT), says)


@pytest.mark.parametrize(
    "text",
    [
        '{"version":2,"format":"silobench-test"}',
        '{"a":1.50,"format":"silobench-test","version":2}',
        '{"a":"\\u00e9","format":"silobench-test","version":2}',
        '{"format":"silobench-test","version":2}\n',
    ],
)
def test_an_edited_text_is_refused_by_its_order_digits_escapes_or_end(text: str) -> None:
    with pytest.raises(UsageError, match="not in canonical form"):
        canonical.require_canonical(text, canonical.write(canonical.parse(text, WHAT, 2)), WHAT)


# -- parsing -------------------------------------------------------------------------------------------------------


def test_the_object_is_given_back_up_to_the_version_that_is_read() -> None:
    for version in (1, 2):
        assert canonical.parse(json.dumps(HEAD | {"version": version}), WHAT, 2)["version"] == version
    refused(
        lambda: canonical.parse(json.dumps(HEAD | {"version": 3}), WHAT, 2),
        f"The {WHAT} has version 3, this silobench reads 2: upgrade silobench.",
    )


@pytest.mark.parametrize("version", [None, True, "2", 2.0, 10**400])
def test_a_version_that_is_no_integer_is_refused(version: object) -> None:
    refused(lambda: canonical.parse(json.dumps(HEAD | {"version": version}), WHAT, 2), "'version' must be an integer.")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", '{"format": "another", "version": 2}', '{"format": ["x"]}'])
def test_another_format_is_refused(text: str) -> None:
    refused(lambda: canonical.parse(text, WHAT, 2), f"This is no {WHAT}: its 'format' is not '{WHAT}'.")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": [Infinity]}', "Infinity is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "the key 'b' stands twice"),
        ("[" * 100_000, "recursion"),
        ("1" * 5000, "digits"),
    ],
)
def test_what_is_no_json_of_ours_is_refused_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=rf"^The {WHAT} is not valid JSON \(.*{says}.*\)\.$"):
        canonical.parse(text, WHAT, 2)


def test_a_key_that_stands_twice_is_named_in_short() -> None:
    with pytest.raises(UsageError) as caught:
        canonical.parse('{"%s": 1, "%s": 2}' % (("k" * 1000,) * 2), WHAT, 2)
    assert f"the key '{'k' * 79} stands twice" in str(caught.value)


def test_more_text_than_the_bound_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(HEAD)
    monkeypatch.setattr(canonical, "MAX_TEXT", len(text))
    assert canonical.parse(text, WHAT, 2) == HEAD
    says = f"A {WHAT} has at most {len(text)} characters, this text has {len(text) + 1}."
    refused(lambda: canonical.parse(text + " ", WHAT, 2), says)


# -- fields --------------------------------------------------------------------------------------------------------


def test_a_field_that_is_missing_is_named() -> None:
    assert canonical.field({"a": None}, "a") is None
    refused(lambda: canonical.field({"a": 1}, "b"), "The field 'b' is missing.")


TEXT = f"'x' must be printable text of 1 to {canonical.MAX_NAME} characters."
LABEL = f"'x' must have 1 to {canonical.MAX_NAME} characters."


@pytest.mark.parametrize(
    ("check", "good", "bad", "says"),
    [
        (canonical.mapping, [{}, {"a": 1}], [[], None, "a"], "'x' must be an object."),
        (canonical.integer, [0, -(2**53), 2**53], [2**53 + 1, -(2**53) - 1, True, 1.0, "1"], "'x' must be an integer."),
        (canonical.string, ["", "\n", "é\U0001f600"], [1, None, "\ud800", "a\udfff"], "'x' must be text."),
        (canonical.name, ["a", "é b", "a" * 500], ["", "a" * 501, "a\n", "\ud800", 5], TEXT),
        (canonical.label, ["a\n", "a" * 500], ["", "a" * 501], LABEL),
        (canonical.label, [" "], [5, "\ud800"], "'x' must be text."),
    ],
)
def test_a_value_is_given_back_or_refused(check: Any, good: list[Any], bad: list[Any], says: str) -> None:
    for value in good:
        assert check(value, "x") == value
    for value in bad:
        refused(lambda value=value: check(value, "x"), says)  # type: ignore[misc]


def test_lists_are_of_the_length_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "MAX_ENTRIES", 3)
    assert canonical.entries([1, 2, 3], "x") == [1, 2, 3]
    assert canonical.entries([1, 2], "x", 2) == [1, 2]
    assert canonical.entries([], "x", 0) == []
    for value in ([1, 2, 3, 4], (1, 2), "ab", None):
        refused(lambda value=value: canonical.entries(value, "x"), "'x' must be a list of at most 3 entries.")
    for value in ([1], [1, 2, 3], {}):
        refused(lambda value=value: canonical.entries(value, "x", 2), "'x' must be a list of 2 entries.")
    refused(lambda: canonical.entries([0] * 4, "x", 4), "'x' must be a list of 4 entries.")


def test_numbers_are_finite_and_written_as_decimals() -> None:
    assert canonical.numbers([0.5, -1e300], "x", 2) == [0.5, -1e300]
    for wrong in (1, True, math.nan, math.inf, "0.5", None):
        says = "'x' must hold 2 finite decimal numbers."
        refused(lambda wrong=wrong: canonical.numbers([0.5, wrong], "x", 2), says)  # type: ignore[misc]
    refused(lambda: canonical.numbers([0.5], "x", 2), "'x' must be a list of 2 entries.")
