"""JSON from anybody: whatever does not fit ends in one sentence that begins with the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from bench.core.errors import UsageError
from bench.spec.foreign import Foreign, Json, parsed, read


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("it is odd")
    return value


class Inner(Foreign):
    size: Annotated[int, Field(ge=1, le=9)]


class Note(Foreign):
    format: Literal["note"] = "note"
    version: Literal[3] = 3
    name: str = ""
    flag: bool = False
    share: float = 0.0
    number: int | float | None = None
    word: Literal["a", "b"] = "a"
    pairs: Annotated[tuple[tuple[str, int], ...], Field(max_length=2)] = ()
    table: dict[str, Inner] = Field(default_factory=dict)
    even: Annotated[int, AfterValidator(_even)] = 0
    free: Json = None


def said(text: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        parsed(Note, text, "F")
    assert caught.value.__suppress_context__  # the sentence alone, without pydantic's own
    return str(caught.value)


def test_what_fits_is_read_with_its_types() -> None:
    found = parsed(Note, '{"pairs": [["a", 1]], "number": 5, "table": {"x": {"size": 2}}, "free": [1.5, {}]}', "F")
    assert found == Note(pairs=(("a", 1),), number=5, table={"x": Inner(size=2)}, free=[1.5, {}])
    assert type(found.number) is int
    assert parsed(dict[str, int], b'{"a": 1}', "F") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not valid JSON (EOF while parsing a value at line 1 column 0)."),
        ("[" * 100_000, "is not valid JSON (recursion limit exceeded at line 1 column 202)."),
        ('{"even": ' + "2" * 5000 + "}", "is not valid JSON (number out of range at line 1 column 4311)."),
        ('{"name": "\\ud800"}', "is not valid JSON (unexpected end of hex escape at line 1 column 17)."),
        ('{"name": "\ud800"}', "is not valid JSON (it holds half a surrogate pair)."),
        ("[]", "is malformed: it should be an object, not []."),
        ('{"format": "x", "version": 2, "more": 1}', "is no note: its 'format' is \"x\"."),
        ('{"version": 4, "more": 1}', "has version 4, and this silobench reads version 3: upgrade silobench."),
        ('{"version": 2}', "has version 2, and this silobench reads version 3: run it again with --refresh."),
        ('{"version": "3"}', "is malformed: 'version' should be 3, not \"3\"."),
        ('{"version": true}', "is malformed: 'version' should be 3, not true."),
        ('{"more": 1}', "is malformed: 'more' is no field that is known here."),
        ('{"na\\nme": 1}', "is malformed: 'na\\nme' is no field that is known here."),
        ('{"table": {"x": {}}}', "is malformed: 'table.x.size' is missing."),
        ('{"table": {"x": {"size": 10}}}', "is malformed: 'table.x.size' should be less than or equal to 9, not 10."),
        ('{"table": {"x": {"size": true}}}', "is malformed: 'table.x.size' should be a valid integer, not true."),
        ('{"even": 1e999}', "is malformed: 'even' should be a valid integer, not Infinity."),
        ('{"even": 3}', "is malformed: 'even' is refused: it is odd."),
        ('{"flag": 1}', "is malformed: 'flag' should be a valid boolean, not 1."),
        ('{"name": null}', "is malformed: 'name' should be a valid string, not null."),
        ('{"share": NaN}', "is malformed: 'share' should be a finite number, not NaN."),
        ('{"share": true}', "is malformed: 'share' should be a valid number, not true."),
        ('{"word": "c"}', "is malformed: 'word' should be 'a' or 'b', not \"c\"."),
        ('{"number": "5"}', "is malformed: 'number' should be a valid integer or a valid number, not \"5\"."),
        ('{"pairs": [["a"]]}', "is malformed: 'pairs.0.1' is missing."),
        ('{"pairs": [[], [], []]}', "is malformed: 'pairs.0.0' is missing."),
        ('{"pairs": [["a", 1], ["a", 1], ["a", 1]]}', "is malformed: 'pairs' should have at most 2 items, not 3."),
        ('{"pairs": [["a", 1, 2]]}', "is malformed: 'pairs.0' should have at most 2 items, not 3."),
        ('{"free": [{"a": 1e999}]}', "is malformed: 'free' is refused: it holds NaN, or a number out of range."),
        ('{"free": NaN}', "is malformed: 'free' is refused: it holds NaN, or a number out of range."),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(text: str, says: str) -> None:
    assert said(text) == f"F {says}"


def test_bytes_that_are_no_text_and_values_that_are_long_are_one_short_sentence() -> None:
    assert said(b"\xff").startswith("F is not valid JSON (")
    assert said(b'{"name": "\xff"}').startswith("F is not valid JSON (")
    assert said('{"word": "' + "x" * 10**6 + '"}').endswith(f'not "{"x" * 56}....')
    assert len(said('{"%s": 1}' % ("k" * 10**6))) < 200


def test_a_file_is_read_named_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    assert read(Note, path) is None
    path.write_text('{"name": "x"}')
    assert read(Note, path) == Note(name="x")
    path.write_text('{"name": 1}')
    with pytest.raises(UsageError, match=r"note\.json is malformed: 'name' should be a valid string, not 1\.$"):
        read(Note, path)
    with pytest.raises(UsageError, match=r"can't be read \(Is a directory\)\.$"):
        read(Note, tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(Note.model_fields)), json_values)
@settings(max_examples=100, deadline=None)
def test_any_field_may_be_hostile(field: str, value: Any) -> None:
    text = json.dumps({field: value})
    try:
        found = parsed(Note, text, "F")
    except UsageError:
        assert len(said(text)) < 300
    else:
        assert json.loads(found.model_dump_json())[field] == json.loads(text)[field]
