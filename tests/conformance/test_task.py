"""The kit passes a sound task and finds each way in which records can't be relied on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.conformance import check, run_checks
from bench.conformance import task as kit
from bench.corpus.task import Record, Secret, Task
from bench.plugins.find import Plugins, from_path
from tests.plugin_files import TASK, write

SOUND = tuple(
    Record(
        f"r{i}",
        f"Anna Berg came on day {i}.",
        answer=f"\nMood: {label}",
        label=label,
        secrets=(Secret("name", "Anna Berg"),),
    )
    for i, label in enumerate(["good", "bad"] * 3)
)


class Moods(Task):
    labels = ("good", "bad")
    answer_prefix = "\nMood:"
    source = "made here"

    def __init__(self, records: Callable[[], list[object]]) -> None:
        self._records = records

    def records(self, assets: object) -> list[Record]:
        return self._records()  # type: ignore[return-value]


class FakePlugin:
    """Builds one task, again and again."""

    def __init__(self, task: object) -> None:
        self.task = task

    def build(self, config: object) -> object:
        return self.task


def wrong(task: object) -> str:
    found = run_checks(kit.checks(FakePlugin(task), None))  # type: ignore[arg-type]
    return " | ".join(finding.says for finding in found if not finding.passed)


def changed(**fields: object) -> Moods:
    """The sound task with its fourth record changed."""
    records = [*SOUND[:3], replace(SOUND[3], **fields), *SOUND[4:]]  # type: ignore[arg-type]
    return Moods(lambda: list(records))


def test_a_sound_task_passes() -> None:
    assert wrong(Moods(lambda: list(SOUND))) == ""


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"id": "r0"}, "1 ids occur more than once, for instance 'r0'"),
        ({"id": ""}, "a record has an empty id"),
        ({"text": " "}, "record 'r3' has an empty text"),
        ({"text": "Anna Berg\0"}, "record 'r3' holds a NUL character"),
        ({"text": "Anna Berg \ud800"}, "no valid Unicode text"),
        ({"label": "ugly"}, "record 'r3' has the label 'ugly', which is not listed"),
        ({"answer": "\nMood: good"}, "record 'r3' answers"),
        ({"secrets": (Secret("name", "Carl"),)}, "marks the name 'Carl', which its text does not hold"),
        ({"secrets": (Secret("", "Anna"),)}, "a secret without a kind or text"),
    ],
)
def test_a_record_that_breaks_a_rule_is_found(fields: dict[str, object], says: str) -> None:
    assert says in wrong(changed(**fields))


def test_what_is_wrong_with_a_whole_task_is_found() -> None:
    count = itertools.count()
    assert "another record at position 0" in wrong(Moods(lambda: [replace(r, id=f"x{next(count)}") for r in SOUND]))
    numbers = iter(range(2, 99))
    assert "a second call gave" in wrong(Moods(lambda: list(SOUND[: next(numbers)])))
    assert "a game needs members and non-members" in wrong(Moods(lambda: list(SOUND[:1])))
    assert "no Record, the first a ['str']" in wrong(Moods(lambda: ["text", *SOUND]))
    assert "no record has the label 'bad'" in wrong(Moods(lambda: list(SOUND[::2])))
    silent = Moods(lambda: list(SOUND))
    silent.source = " "
    assert "'source' is empty" in wrong(silent)
    twins = Moods(lambda: list(SOUND))
    twins.label_text = lambda label: " same"  # type: ignore[method-assign]
    assert "two labels have the same text" in wrong(twins)
    assert "build returned int, not a Task" in wrong(3)


def test_organisations_must_be_announced_and_named_on_all_records() -> None:
    named = [replace(record, silo=f"house {i % 2}") for i, record in enumerate(SOUND)]
    assert "6 records name their organisation, and the task does not say 'organised = True'" in wrong(
        Moods(lambda: list(named))
    )
    task = Moods(lambda: list(named))
    task.organised = True
    assert wrong(task) == ""
    named[3] = SOUND[3]
    assert "1 of 6 records name no organisation" in wrong(task)


def test_the_module_checks_find_heavy_imports_and_missing_documentation(tmp_path: Path) -> None:
    write(tmp_path / "words.py", "import scipy\n" + TASK.replace('"""A task that {name}."""', ""))
    plugin = Plugins(folders={"task": tmp_path}).find("task", "words")
    found = {finding.title: finding for finding in check(plugin)}
    assert "no docstring" in found["documentation"].says
    assert found["deterministic"].passed


def test_heavy_imports_of_a_path_are_found(tmp_path: Path) -> None:
    plugin = from_path(write(tmp_path / "words.py", TASK + "\nimport scipy\n"))
    found = {finding.title: finding for finding in check(plugin)}
    assert found["imports"].says == "importing it imports scipy; do that inside build() or a method."
    sound = from_path(write(tmp_path / "other" / "words.py", TASK))
    assert all(finding.passed for finding in check(sound))
