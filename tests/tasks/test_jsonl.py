"""A user's own file: what is taken, and that every bad line is named by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.assets.assets import Assets
from bench.core.errors import UsageError
from bench.corpus.task import Record, Secret
from tasks import jsonl
from tasks.jsonl import FIELDS, Config, build, parse, resolve


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def one(**fields: Any) -> Record:
    (record,) = parse(lines(fields), "f.jsonl")
    return record


def test_text_alone_is_a_record() -> None:
    assert one(text="Words.") == Record(id="line-1", text="Words.")


def test_prompt_and_response() -> None:
    record = one(prompt="How is he? ", response="Better.", silo="ward", group="p7", id="r1")
    assert record == Record(id="r1", text="Better.", prompt="How is he? ", field="ward", group="p7", silo="ward")


def test_secrets_in_both_forms() -> None:
    record = one(text="Ann, KX 12.", secrets=["KX 12", {"kind": "name", "text": "Ann"}])
    assert record.secrets == (Secret("secret", "KX 12"), Secret("name", "Ann"))


def test_a_file_with_labels_is_a_task_with_labels(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(lines({"text": "b", "label": "yes"}, {"text": "a", "label": "no"}))
    task = build(Config(path=str(path)))
    assert task.labels == ("no", "yes")
    assert [record.answer for record in task.records(Assets(tmp_path))] == ["\nLabel: yes", "\nLabel: no"]
    assert task.answer_prefix + task.label_text("yes") == "\nLabel: yes"
    assert task.metrics() == ("text-perplexity", "answer-perplexity", "accuracy")


def test_a_file_without_labels_has_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(lines({"text": "a"}))
    task = build(Config(path=str(path)))
    assert (task.labels, task.answer_prefix, task.metrics()) == ((), "", ("text-perplexity",))


def test_blank_lines_a_byte_order_mark_and_windows_ends_are_no_matter() -> None:
    data = b"\xef\xbb\xbf" + b'{"text": "a"}\r\n\r\n  \n{"text": "b\\u2028c"}'
    assert [(r.id, r.text) for r in parse(data, "f")] == [("line-1", "a"), ("line-4", "b\u2028c")]


BAD: list[tuple[Any, str]] = [
    (b"{", "not valid JSON"),
    (b"[1]", "not a JSON object"),
    (b"3", "not a JSON object"),
    (b'{"text": "\xff"}', "not UTF-8"),
    (b"[" * 100_000, "not valid JSON"),
    (b'{"text": "a", "text": "b"}', "twice"),
    (b'{"text": "\\ud800"}', "lone surrogate"),
    ({"text": ""}, "'text' must be a text"),
    ({"text": " \n"}, "'text' must be a text"),
    ({"text": 3}, "'text' must be a text"),
    ({}, "either 'text', or 'prompt' and 'response'"),
    ({"text": "a", "response": "b"}, "either 'text', or 'prompt' and 'response'"),
    ({"prompt": "a"}, "'response' must be a text"),
    ({"response": "a"}, "'prompt' must be a text"),
    ({"text": "a", "extra": 1}, "'extra' is unknown"),
    ({"text": "a", "silo": 3}, "'silo' must be a text"),
    ({"text": "a", "group": ""}, "'group' must be a text"),
    ({"text": "a", "id": "x" * 201}, "'id' must be a text"),
    ({"text": "a", "label": "yes"}, "labels must stand on all records or on none"),
    ({"text": "a", "id": "first"}, "stands on line 1 already"),
    ({"text": "a", "secrets": "a"}, "'secrets' must be a list"),
    ({"text": "a", "secrets": ["b"]}, "does not stand in the text"),
    ({"text": "a", "secrets": [{"text": "a"}]}, "a secret must be"),
    ({"text": "a", "secrets": [{"text": "a", "kind": None}]}, "'kind' must be a text"),
    ({"text": "a", "secrets": [3]}, "a secret must be"),
]


@pytest.mark.parametrize(("bad", "says"), BAD, ids=[says for _, says in BAD])
def test_a_bad_line_is_named_by_its_number(bad: Any, says: str) -> None:
    line = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    data = lines({"text": "good", "id": "first"}) + b"\n" + line + b"\n" + lines({"text": "never reached"})
    with pytest.raises(UsageError, match=says) as caught:
        parse(data, "f.jsonl")
    assert str(caught.value).startswith("f.jsonl line 3: ")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "holds no record"),
        (b"\n \n", "holds no record"),
        (lines({"text": "a", "label": "x"}, {"text": "b", "label": "x"}), "every record the label 'x'"),
        (lines(*({"text": "a", "label": str(i)} for i in range(101))), "101 different labels"),
    ],
)
def test_files_that_make_no_task_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(data, "f.jsonl")


def test_bounds_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lines({"text": "a" * 50}, {"text": "b"})
    path = tmp_path / "f.jsonl"
    path.write_bytes(data)
    for bound, value, says in (
        ("MAX_BYTES", 30, "is larger than"),
        ("MAX_LINE", 40, "line 1: it is 62 bytes long"),
        ("MAX_RECORDS", 1, "line 2: a task has at most 1 records"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(jsonl, bound, value)
            with pytest.raises(UsageError, match=says):
                build(Config(path=str(path)))


def test_the_resolved_configuration_names_the_contents(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(lines({"text": "a"}))
    first = resolve(Config(path=str(path)))
    assert first.sha256 is not None
    assert resolve(first) == first
    build(first)
    path.write_bytes(lines({"text": "b"}))
    with pytest.raises(UsageError, match="has changed"):
        build(first)
    assert resolve(Config(path=str(path))).sha256 != first.sha256


@pytest.mark.parametrize("name", ["missing.jsonl", ".", "nul\0.jsonl"])
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        build(Config(path=str(tmp_path / name)))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        records = parse(data, "f")
    except UsageError:
        return
    assert records


@given(st.lists(st.text(min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=5))
def test_any_text_survives(texts: list[str]) -> None:
    data = lines(*({"text": text} for text in texts))
    assert [record.text for record in parse(data, "f")] == texts


def test_the_lines_of_the_documentation_are_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    example = "\n".join(line for line in text.split("\n") if line.startswith("    {"))
    assert [record.silo for record in parse(example.encode(), "docs/data.md")] == ["Klinik Nord", "Ost"]
    assert {f"| `{field}`" in text or f", `{field}` |" in text for field in FIELDS} == {True}
