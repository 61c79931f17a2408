"""Parts that do nothing and say of themselves what a test wants, to see how parts compose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.streams import State
from bench.core.update import Layout, Update
from bench.defense.aggregator import Plan, ServerStep
from bench.defense.contexts import RoundContext
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.flow import Flow
from bench.defense.parts import Promise, RecordsPart, Trainer, Training, TrainJob, Transform
from bench.defense.public import Public, alike

LAYOUT = Layout(("a",), ((6,),))


class Idle(Trainer):
    def train(self, job: TrainJob) -> Training:
        return Training(0, 0, (), ())


class Keep(RecordsPart):
    def apply(self, records: Sequence[Any]) -> Sequence[Any]:
        return records


class Same(Transform):
    """Does nothing; what it answers a flow with, promises and leaves out is given."""

    def __init__(self, answer: Callable[[Flow, Any], Flow] | None = None, **said: Any) -> None:
        self.answer = answer
        for name, value in said.items():
            setattr(self, name, value)

    def follow(self, flow: Flow) -> Flow:
        return super().follow(flow) if self.answer is None else self.answer(flow, self)

    def apply(self, update: Update, context: Any) -> Update:
        return update


class Sparse(Same):
    def support(self, context: RoundContext) -> Any:
        return getattr(self, "on", None)


class Clip(Same):
    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").bounded()


class Noise(Same):
    def follow(self, flow: Flow) -> Flow:
        return flow.within_bound(self)


class ToGrid(Same):
    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").on_grid()


class OnGrid(Same):
    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "grid")


class Picky(Mean):
    """A mean that answers a flow, and plans, as is given."""

    def __init__(self, answer: Callable[[Flow, Any], Flow] | None = None, **said: Any) -> None:
        super().__init__()
        self.answer = answer
        for name, value in said.items():
            setattr(self, name, value)

    def follow(self, flow: Flow) -> Flow:
        return flow if self.answer is None else self.answer(flow, self)

    def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
        return Plan(adapter, adapter, personal=getattr(self, "own", None))


class Step(ServerStep):
    """Moves by a multiple, and remembers in how many rounds it did; what it answers a flow with is given."""

    has_memory = True

    def __init__(self, factor: float = 1.0, answer: Callable[[Flow, Any], Flow] | None = None) -> None:
        self.factor, self.answer = factor, answer

    def follow(self, flow: Flow) -> Flow:
        return flow.saying("moving", self) if self.answer is None else self.answer(flow, self)

    def move(self, change: NDArray[np.float64], memory: State) -> NDArray[np.float64]:
        memory["moves"] = memory.get("moves", np.zeros(1)) + 1
        return change * self.factor

    def undo(self, moved: NDArray[np.float64], memory: State) -> NDArray[np.float64] | None:
        memory["moves"] = memory.get("moves", np.zeros(1)) + 1
        return moved / self.factor if self.factor else None


class Integers(PlainChannel):
    accepts = frozenset({"grid"})


class Quantising(Integers):
    quantiser = ToGrid()  # type: ignore[assignment]


def promise(unit: Any) -> Promise:
    return Promise(unit, "replace", lambda coalition, victim: True, "said")


def public_of(weights: Sequence[int], layout: Layout = LAYOUT, rounds: int = 1) -> Public:
    """A federation of silos of ``weights``, all of which take part in every round."""
    silos = tuple(f"silo-{number}" for number in range(len(weights)))
    return Public(alike(layout), silos, dict(zip(silos, weights, strict=True)), rounds, (silos,) * rounds)
