"""The interface of a task: where records come from and how the model's usefulness is measured.

A task is one file in ``tasks/`` with ``api = 1``, a ``Config`` (subclass of ``bench.Config``) and
``build(config) -> Task``. The module imports no torch at its top.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.assets.assets import Assets


@dataclass(frozen=True)
class Secret:
    """A marked secret inside a record's text: ``kind`` (name, date, record-number, ...) and the exact ``text``."""

    kind: str
    text: str


@dataclass(frozen=True)
class Record:
    """One record of one person.

    The model sees ``prompt + text + answer`` and is trained on the tokens of ``text + answer``. Where a record is
    longer than ``pool.max_tokens``, ``text`` is cut at its end; ``answer`` (which names the label) is kept whole.
    """

    id: str
    text: str
    prompt: str = ""
    answer: str = ""
    label: str | None = None
    field: str | None = None  # what a by-field partition divides silos by
    group: str | None = None  # the person; records of one group are never split
    secrets: tuple[Secret, ...] = ()
    silo: str | None = None  # the organisation that holds it, by its name


class Task(ABC):
    """Records, and the names of the metrics that measure utility on held-out ones."""

    #: labels in order, or empty where there is nothing to classify; each is the answer's text after ``answer_prefix``
    labels: tuple[str, ...] = ()
    #: the constant start of every answer, e.g. "\nRating:"; ``answer == answer_prefix + label_text[label]``
    answer_prefix: str = ""
    #: licence and origin of the records, printed by ``bench show``
    source: str = ""
    #: whether records name their organisations (``Record.silo``): they are then the silos, unless asked otherwise
    organised: bool = False

    @abstractmethod
    def records(self, assets: Assets) -> Sequence[Record]:
        """All records, in a deterministic order, ids unique. Raises UsageError on bad input."""

    def label_text(self, label: str) -> str:
        """What follows ``answer_prefix`` for ``label``: no two labels may be the same tokens."""
        return f" {label}"

    def metrics(self) -> tuple[str, ...]:
        """Names of metrics (``bench.training.measure.metrics``); the first is the one that is tuned for. The gain on
        the text is measured beside them, and decides ``learned``."""
        return ("text-perplexity", "answer-perplexity", "accuracy") if self.labels else ("text-perplexity",)
