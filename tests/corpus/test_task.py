"""Records and tasks: what is filled in where a plug-in says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.corpus.task import Record, Secret, Task


class Words(Task):
    """Two records."""

    def records(self, assets: Any) -> Sequence[Record]:
        return [Record("a", "one"), Record("b", "two")]


class Rated(Words):
    labels = ("good", "bad")
    answer_prefix = "\nRating:"


def test_a_record_is_its_text_unless_a_task_says_more() -> None:
    record = Record("a", "some text")
    assert (record.prompt, record.text, record.answer) == ("", "some text", "")
    assert (record.label, record.field, record.group, record.secrets) == (None, None, None, ())


@pytest.mark.parametrize("name", ["id", "text", "label", "secrets"])
def test_a_record_does_not_change(name: str) -> None:
    record = Record("a", "text", secrets=(Secret("name", "Ann"),))
    with pytest.raises(FrozenInstanceError):
        setattr(record, name, "other")
    with pytest.raises(FrozenInstanceError):
        setattr(record.secrets[0], "text", "Bea")  # noqa: B010 - a plain assignment would not type-check


@given(st.text(), st.text(), st.text(), st.text())
def test_records_and_secrets_are_equal_by_what_they_hold(id: str, text: str, kind: str, said: str) -> None:
    one, other = (Record(id, text, secrets=(Secret(kind, said),)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Record(id, text + "x", secrets=(Secret(kind, said),))
    assert Secret(kind, said) != Secret(kind, said + "x")


def test_a_task_without_records_is_none() -> None:
    with pytest.raises(TypeError, match="records"):
        Task()  # type: ignore[abstract]


def test_a_task_without_labels_is_measured_by_perplexity_alone() -> None:
    task = Words()
    assert task.metrics() == ("text-perplexity",)
    assert (task.labels, task.answer_prefix, task.source) == ((), "", "")


def test_labels_add_accuracy_behind_the_metric_that_decides() -> None:
    assert Rated().metrics() == ("text-perplexity", "answer-perplexity", "accuracy")


@given(st.text())
def test_a_label_s_text_begins_with_a_space(label: str) -> None:
    assert Rated().label_text(label) == " " + label
