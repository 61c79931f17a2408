"""Whether what a task asks to be measured can be, known before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import UsageError, unknown_name
from bench.corpus.task import Record, Task
from bench.training.materials import Materials
from bench.training.measure.metrics import FOREIGN, OURS, known

#: by metric, the field of a record that it is computed from
_OF: dict[str, str] = {"answer-perplexity": "answer", "accuracy": "label"}


def check(materials: Materials) -> None:
    """Raises UsageError where the task's metrics, its held-out records or its labels can't be used."""
    task, pool = materials.corpus.task, materials.pool
    check_metrics(task)
    check_records(materials.corpus.records, task)
    heldout = [pool.records[i] for i in pool.heldout]
    for name in task.metrics():
        wanted = "label" if FOREIGN.fullmatch(name) else _OF.get(name)
        if wanted and not any(getattr(record, wanted) for record in heldout):
            a = "an" if wanted == "answer" else "a"
            raise UsageError(f"The metric '{name}' needs records with {a} {wanted}, and the held-out ones have none.")
    _ = materials.label_rows  # raises where labels can't be told apart


def check_metrics(task: Task) -> None:
    """Raises UsageError for a metric that there is not, with the nearest name."""
    for name in task.metrics():
        if not known(name):
            raise unknown_name("metric", name, [*OURS, "evaluate:NAME"])


def check_records(records: Sequence[Record], task: Task) -> None:
    """Raises UsageError where two records have one id, or one has a label that the task does not list."""
    ids: set[str] = set()
    for record in records:
        if record.id in ids:
            raise UsageError(f"Two records of the task have the id '{record.id[:80]}': every record needs its own.")
        ids.add(record.id)
        if record.label is not None and task.labels and record.label not in task.labels:
            raise UsageError(
                f"Record '{record.id[:80]}' has the label '{record.label[:80]}', which is none of the task's labels "
                f"({', '.join(task.labels)[:200]})."
            )
