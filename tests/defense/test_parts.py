"""Parts of a defense: what one that says nothing of itself is taken to be and to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UsageError
from bench.core.update import Layout, Update
from bench.corpus.task import Record
from bench.defense.aggregator import Aggregator, Plan, ServerStep
from bench.defense.flow import Flow
from bench.defense.parts import Mechanism, Promise, RecordsPart, Trainer, Training, TrainJob, Transform
from bench.defense.public import Public

LAYOUT = Layout(("a",), ((4,),))
SILOS = ("silo-0", "silo-1", "silo-2")


class Idle(Trainer):
    def train(self, job: TrainJob) -> Training:
        return Training(0, 0, (), ())


class Same(Transform):
    def apply(self, update: Update, context: Any) -> Update:
        return update


class All(RecordsPart):
    def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        return records


class Sum(Aggregator):
    def weight(self, nominal_size: int) -> int:
        return 1

    def summand(self, update: Update, global_adapter: Any, public: Public) -> Update:
        return update

    def apply(self, total: Any, silos: Sequence[str], global_adapter: Any, public: Public) -> Any:
        return global_adapter + total

    def implied_total(self, before: Any, after: Any, silos: Sequence[str], public: Public) -> Any:
        return after - before

    def implied_adapter(self, summand: Any, weight: int, global_adapter: Any, public: Public) -> Any:
        return global_adapter + summand


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        (Trainer, {"train"}),
        (Transform, {"apply"}),
        (RecordsPart, {"apply"}),
        (Aggregator, {"apply", "implied_adapter", "implied_total", "summand", "weight"}),
    ],
)
def test_a_part_must_do_its_own_work(kind: Any, own: set[str]) -> None:
    assert kind.__abstractmethods__ == own
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_a_part_promises_nothing_unless_it_says_so() -> None:
    assert (Idle().promise, Same().promise, ServerStep().promise) == (None, None, None)
    assert not All().per_record


def test_a_trainer_plans_no_mechanism_and_logs_none() -> None:
    assert Idle().plan(3, None, 10) == ()  # type: ignore[arg-type]
    assert Training(1, 7, (0.5,), ((0, 2),)).mechanisms == ()


def test_a_transform_takes_and_gives_real_values_and_vouches_for_no_bound() -> None:
    one = Same()
    after = one.follow(Flow().bounded())
    assert after == Flow(unbounded="Same, which comes between, may raise the norm")
    with pytest.raises(UsageError, match="takes real values but is handed grid ones"):
        one.follow(Flow().on_grid())
    update = Update(np.zeros(4, np.float32), LAYOUT)
    context: Any = None
    assert one.mechanism(update, context) is None
    assert one.support(context) is None


def test_an_aggregator_sums_whole_adapters_for_whoever_opens() -> None:
    one = Sum()
    assert one.plan(LAYOUT, SILOS) == Plan(LAYOUT, LAYOUT, None, {})
    assert one.opener == "server"
    assert one.follow(flow := Flow()) is flow


def test_a_server_step_adds_no_noise_moves_as_far_as_it_is_told_and_remembers_nothing() -> None:
    total, memory, context = np.arange(4.0), dict[str, Any](), None
    same, mechanism = ServerStep().randomise(total, context)  # type: ignore[arg-type]
    assert same is total
    assert mechanism is None
    assert ServerStep().move(total, memory) is total
    assert ServerStep().undo(total, memory) is total
    assert ServerStep().follow(flow := Flow()) is flow
    assert (memory, ServerStep.has_memory, ServerStep.counts_called) == ({}, False, False)


@pytest.mark.parametrize(
    ("base", "name", "says"),
    [
        (Transform, "gives", "Old.gives is no longer read: 'follow' answers with the flow that leaves the transform."),
        (Transform, "needs_norm", "Old.needs_norm is no longer read: 'follow' answers"),
        (Aggregator, "personal", "Old.personal is no longer read: 'plan' lays a federation out."),
        (Aggregator, "bound", "Old.bound is no longer read: 'summand', 'apply' and the like are handed 'public'."),
        (Aggregator, "step", "Old.step is no longer read: a ServerStep in the defense's 'steps' does that."),
        (Aggregator, "sparse", "Old.sparse is no longer read: 'follow' answers"),
    ],
)
def test_a_part_that_says_what_nobody_asks_any_more_is_told_what_took_its_place(
    base: Any, name: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        type("Old", (base,), {name: True})
    assert says in str(caught.value)


def test_mechanisms_are_the_same_in_whichever_round_they_acted() -> None:
    params = {"rate": 0.1, "sigma": 2.0}
    one = Mechanism("poisson-gaussian", params)
    assert one.round == -1
    assert one == Mechanism("poisson-gaussian", dict(params), 7)
    assert one != Mechanism("poisson-gaussian", {**params, "sigma": 3.0})
    assert one != Mechanism("gaussian", params)


def test_a_promise_says_towards_whom_it_holds_for_whose_records() -> None:
    promise = Promise("record", "add-remove", lambda coalition, victim: victim not in coalition)
    assert promise.against(frozenset({"server"}), "silo-0")
    assert not promise.against(frozenset({"silo-0"}), "silo-0")
    assert promise.note == ""
