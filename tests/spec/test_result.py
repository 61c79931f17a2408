"""The record: what is written can be read, what is unknown survives, what is malformed is refused in a sentence."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.spec.result import RESULT_SCHEMA, Leakage, NewerSchema, Result
from tests.results_factory import result

names = st.text(st.characters(codec="utf-8"), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
FIELDS = {*Result.model_fields, "schema"}


def line(**changes: object) -> str:
    return json.dumps({**json.loads(result().to_json()), **changes})


def test_a_result_survives_a_round_trip() -> None:
    one = result()
    assert Result.from_json(one.to_json()) == one
    assert json.loads(one.to_json())["schema"] == RESULT_SCHEMA
    assert "schema_version" not in json.loads(one.to_json())


def test_what_an_attack_went_by_is_written_where_it_is_not_the_candidates() -> None:
    usual, blind = result(), result(knows="population")
    assert "knows" not in usual.to_json()
    assert '"knows":"population"' in blind.to_json()
    assert [Result.from_json(one.to_json()).knows for one in (usual, blind)] == ["candidates", "population"]


def test_the_text_is_canonical() -> None:
    text = result().to_json()
    value = json.loads(text)
    assert text == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    shuffled = json.dumps(dict(reversed(value.items())), indent=3)
    assert Result.from_json(shuffled).to_json() == text


@given(st.dictionaries(names.filter(lambda name: name not in FIELDS), json_values, max_size=4), json_values)
@settings(max_examples=200, deadline=None)
def test_fields_that_are_unknown_survive_at_every_level(unknown: dict[str, object], inner: object) -> None:
    value = json.loads(line(**unknown, cost={"new": inner}))
    value["leakage"][0]["later"] = inner
    again = json.loads(Result.from_json(json.dumps(value)).to_json())
    for key, kept in unknown.items():
        assert again[key] == kept
    assert again["leakage"][0]["later"] == inner
    assert again["cost"] == {"new": inner}


def test_a_newer_schema_is_refused_with_upgrade() -> None:
    with pytest.raises(NewerSchema, match=r"^shared\.jsonl line 3 has result schema 3, .*upgrade silobench\.$"):
        Result.from_json(line(schema=3, leakage="of another shape"), "shared.jsonl line 3")


@pytest.mark.parametrize("schema", [None, "1", 0, -1, True, 1.0, [1]])
def test_what_has_no_schema_is_no_result(schema: object) -> None:
    with pytest.raises(UsageError, match="no positive integer field 'schema'"):
        Result.from_json(line(schema=schema))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("[1, 2]", "should be an object"),
        ('"schema"', "should be an object"),
        ("{" * 100_000, "not valid JSON"),
        ("[" * 100_000 + "]" * 100_000, "not valid JSON"),
        ('{"schema": ' + "1" * 5000 + "}", "not valid JSON"),
        ('{"schema": NaN}', "it holds NaN"),
        ('{"schema": 1, "x": -Infinity}', "it holds NaN, or a number out of range"),
        ('{"schema": 1, "x": 1e999}', "out of range"),
        (line(status="fine"), "'status' should be 'ok'"),
        (line(leakage=[{"name": "auc"}]), r"'leakage\.0\.value' is missing"),
        (line(leakage=[{"name": "auc", "value": 10**400}]), r"leakage\.0\.value|not valid"),
        (line(note="\ud800"), "not valid JSON"),
        (line(spec={"a": {"b": "\ud800"}}), "not valid JSON"),
    ],
)
def test_malformed_text_is_refused_in_one_sentence_that_names_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Result.from_json(text, "a.jsonl line 7")
    assert str(caught.value).startswith("a.jsonl line 7 ")
    assert str(caught.value).endswith(".")


def test_nesting_that_could_not_be_written_again_is_refused() -> None:
    deep: object = 1
    for _ in range(400):
        deep = [deep]
    with pytest.raises(UsageError, match="not valid JSON"):
        Result.from_json(line(spec={"deep": deep}))


@given(json_values)
@settings(max_examples=300, deadline=None)
def test_any_json_gives_a_result_that_can_be_written_or_a_usage_error(value: object) -> None:
    try:
        parsed = Result.from_json(json.dumps(value))
    except UsageError:
        return
    assert Result.from_json(parsed.to_json()) == parsed


@given(st.sampled_from(sorted(FIELDS)), json_values)
@settings(max_examples=300, deadline=None)
def test_any_field_may_be_hostile(field: str, value: object) -> None:
    try:
        parsed = Result.from_json(line(**{field: value}))
    except UsageError:
        return
    parsed.to_json().encode()
    assert Result.from_json(parsed.to_json()) == parsed


def test_a_figure_that_is_no_number_is_never_written() -> None:
    one = result(leakage=(Leakage(name="auc", value=math.nan),))
    with pytest.raises(ValueError, match="JSON compliant"):
        one.to_json()


def test_a_refused_figure_is_not_a_zero() -> None:
    refused = Leakage(name="tpr@0.1%", value=None, note="needs 5,000 non-members")
    again = Result.from_json(result(leakage=(refused,)).to_json())
    assert again.leakage[0].value is None
    assert again.leakage[0].note == "needs 5,000 non-members"


def test_a_result_of_schema_1_called_the_id_of_its_row_a_cell() -> None:
    value = json.loads(result(versions={}).to_json()) | {"schema": 1}
    value["cell"] = value.pop("row")
    one = Result.from_json(json.dumps(value))
    assert (one.row, one.versions, one.schema_version) == (value["cell"], {}, RESULT_SCHEMA)
    assert "versions" not in json.loads(one.to_json())
