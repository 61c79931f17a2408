"""Configurations and identities: frozen, nothing unknown, and equal values give equal text."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from bench.spec.config import Config, canonical_json, digest, later


class Inner(Config):
    depth: int = 2
    wide: bool = later(False)


class Options(Config):
    clip: float = 1.0
    inner: Inner = Inner()
    rate: float = later(0.5, gt=0, lt=1)


def test_a_configuration_is_frozen_and_refuses_unknown_keys_and_infinities() -> None:
    options = Options()
    with pytest.raises(ValidationError, match="frozen"):
        options.clip = 2.0  # type: ignore[misc]
    for wrong in ({"clp": 1.0}, {"clip": math.inf}, {"clip": math.nan}, {"inner": {"dept": 1}}):
        with pytest.raises(ValidationError, match=r"Extra inputs are not permitted|finite number"):
            Options.model_validate(wrong)


def test_a_default_is_held_to_its_bounds() -> None:
    class Wrong(Config):
        clip: float = Field(0.0, gt=0)

    with pytest.raises(ValidationError, match="greater than 0"):
        Wrong()


def test_a_field_that_came_later_stands_only_where_it_is_not_at_its_default() -> None:
    assert canonical_json(Options()) == '{"clip":1.0,"inner":{"depth":2}}'
    changed = Options(rate=0.25, inner=Inner(wide=True))
    assert canonical_json(changed) == '{"clip":1.0,"inner":{"depth":2,"wide":true},"rate":0.25}'
    for one in (Options(), changed):
        assert Options.model_validate(one.model_dump(mode="json")) == one
    with pytest.raises(ValidationError, match="less than 1"):
        Options(rate=1.0)


def test_a_field_that_was_there_from_the_start_stands_at_its_default_too() -> None:
    class Before(Config):
        clip: float = Field(1.0, json_schema_extra={"unit": "norm"})
        inner: dict[str, int] = Field(default_factory=lambda: {"depth": 2})

    assert digest(Options()) == digest(Before())
    assert Options().model_dump() == {"clip": 1.0, "inner": {"depth": 2}}


# -- canonical text ------------------------------------------------------------------------------------------------


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == '{"a":[1,2],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"Z": None, "a": True, "é": "ü\u2028"}, '{"Z":null,"a":true,"é":"ü\u2028"}'),
        ((0.1, 1e22, 1.0, 5), "[0.1,1e+22,1.0,5]"),
        ({"b": {"d": [], "c": {}}}, '{"b":{"c":{},"d":[]}}'),
        ('a\n"', '"a\\n\\""'),
    ],
)
def test_canonical_json_by_hand(value: object, text: str) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": [value]})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_what_is_read_back_is_the_value_and_gives_the_same_text(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


# -- digests -------------------------------------------------------------------------------------------------------


def test_a_digest_is_the_beginning_of_the_sha_256_of_the_text() -> None:
    whole = hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()
    assert digest({"b": 1, "a": "é"}) == whole[:16]
    assert digest({"b": 1, "a": "é"}, 64) == whole
    assert digest({"b": 1.0, "a": "é"}) != whole[:16]
