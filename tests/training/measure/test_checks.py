"""What can't be measured is refused before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.core.errors import UsageError
from bench.corpus.task import Record, Task
from bench.training.measure.checks import check

GOOD = (Record("a", "one", answer=":x", label="x"), Record("b", "two", answer=":y", label="y"), Record("c", "three"))


class Labelled(Task):
    labels = ("x", "y")
    answer_prefix = ":"
    wanted: tuple[str, ...] = ("text-perplexity", "answer-perplexity", "accuracy", "evaluate:f1")

    def records(self, assets: Any) -> Any:
        return GOOD

    def metrics(self) -> tuple[str, ...]:
        return self.wanted


def materials(records: Any = GOOD, heldout: tuple[str, ...] = ("a", "b"), *wanted: str) -> Any:
    task = Labelled()
    task.wanted = wanted or task.wanted
    pool = SimpleNamespace(records={r.id: r for r in records}, heldout=heldout)
    return SimpleNamespace(corpus=SimpleNamespace(task=task, records=records), pool=pool, label_rows=((1,), (2,)))


def test_what_can_be_measured_is_not_refused() -> None:
    check(materials())
    check(materials(GOOD, ("c",), "text-perplexity", "perplexity"))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (materials(GOOD, ("a",), "text-perplexty"), r"no metric 'text-perplexty'. Did you mean 'text-perplexity'\?"),
        (materials(GOOD, ("c",), "accuracy"), "'accuracy' needs records with a label, and the held-out ones have none"),
        (materials(GOOD, ("c",), "evaluate:f1"), "'evaluate:f1' needs records with a label"),
        (materials(GOOD, ("c",), "answer-perplexity"), "'answer-perplexity' needs records with an answer"),
        (materials((*GOOD, Record("a", "again"))), "Two records of the task have the id 'a'"),
        (materials((*GOOD, Record("d", "t", label="z"))), r"Record 'd' has the label 'z', which is none .* \(x, y\)"),
    ],
)
def test_what_can_not_be_measured_is_named(made: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check(made)
