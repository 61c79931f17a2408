"""Parts that do nothing and say of themselves what a test wants, to see how parts compose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.core.update import Layout, Update
from bench.defense.contexts import RoundContext
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.parts import Promise, RecordsPart, Trainer, Training, TrainJob, Transform

LAYOUT = Layout(("a",), ((6,),))


class Idle(Trainer):
    def train(self, job: TrainJob) -> Training:
        return Training(0, 0, (), ())


class Keep(RecordsPart):
    def apply(self, records: Sequence[Any]) -> Sequence[Any]:
        return records


class Same(Transform):
    """Does nothing; what it says of itself is given."""

    def __init__(self, **said: Any) -> None:
        for name, value in said.items():
            setattr(self, name, value)

    def apply(self, update: Update, context: Any) -> Update:
        return update

    def support(self, context: RoundContext) -> Any:
        return getattr(self, "on", None)


class Clip(Same):
    norm = "bounds"


class Noise(Same):
    needs_norm = True
    norm = "keeps"


class ToGrid(Same):
    gives = "grid"


class OnGrid(Same):
    accepts = frozenset({"grid"})
    gives = "grid"


class Picky(Mean):
    """A mean; what it says of itself is given."""

    def __init__(self, **said: Any) -> None:
        super().__init__()
        for name, value in said.items():
            setattr(self, name, value)

    def personal(self, layout: Layout) -> Any:
        return getattr(self, "own", None)


class Integers(PlainChannel):
    accepts = frozenset({"grid"})


class Quantising(Integers):
    quantiser = ToGrid()  # type: ignore[assignment]


class Trains(PlainChannel):
    trains = "server"


def promise(unit: Any) -> Promise:
    return Promise(unit, "replace", lambda coalition, victim: True, "said")
