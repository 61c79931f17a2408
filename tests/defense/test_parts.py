"""Parts of a defense: what one that says nothing of itself is taken to be and to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.core.update import Layout, Update
from bench.corpus.task import Record
from bench.defense.parts import Aggregator, Mechanism, Promise, RecordsPart, Trainer, Training, TrainJob, Transform
from bench.defense.public import Public

LAYOUT = Layout(("a",), ((4,),))
SILOS = ("silo-0", "silo-1", "silo-2")
PUBLIC = Public(LAYOUT, SILOS, {"silo-0": 1, "silo-1": 20, "silo-2": 300}, 1, (SILOS,))


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

    def summand(self, update: Update, global_adapter: Any) -> Update:
        return update

    def apply(self, total: Any, weights: Sequence[int], global_adapter: Any) -> Any:
        return global_adapter + total

    def implied_total(self, before: Any, after: Any, weights: Sequence[int]) -> Any:
        return after - before

    def implied_adapter(self, summand: Any, weight: int, global_adapter: Any) -> Any:
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
    assert (Idle().promise, Same().promise, Sum().promise) == (None, None, None)
    assert not All().per_record


def test_a_trainer_plans_no_mechanism_and_logs_none() -> None:
    assert Idle().plan(3, None, 10) == ()  # type: ignore[arg-type]
    assert Training(1, 7, (0.5,), ((0, 2),)).mechanisms == ()


def test_a_transform_takes_and_gives_real_values_and_vouches_for_no_bound() -> None:
    one = Same()
    assert (one.accepts, one.gives, one.norm) == (frozenset({"real"}), "real", "drops")
    assert not any([one.sparse, one.needs_norm, one.only_in_sums, one.carries])
    update = Update(np.zeros(4, np.float32), LAYOUT)
    context: Any = None
    assert one.mechanism(update, context) is None
    assert one.support(context) is None


def test_an_aggregator_sums_whole_adapters_for_whoever_opens() -> None:
    one = Sum()
    assert (one.summed(LAYOUT, SILOS), one.state(LAYOUT), one.bound(PUBLIC)) == (LAYOUT, LAYOUT, one)
    assert (one.slot("silo-0"), one.personal(LAYOUT)) == (None, None)
    assert (one.opener, one.openers) == ("server", frozenset({"server", "silos"}))
    assert (one.sparse, one.keeps_norm) == (True, True)
    assert not any([one.fresh, one.needs_norm, one.has_memory])


def test_an_aggregator_is_handed_the_public_weights_of_the_silos_that_were_summed() -> None:
    assert Sum().weights(PUBLIC, 0, ("silo-2", "silo-0")) == [300, 1]
    with pytest.raises(KeyError, match="silo-9"):
        Sum().weights(PUBLIC, 0, ("silo-9",))


def test_an_aggregator_adds_no_noise_and_moves_as_far_as_the_sum_says() -> None:
    total, context = np.arange(4.0), None
    same, mechanism = Sum().randomise(total, context)  # type: ignore[arg-type]
    assert same is total
    assert mechanism is None
    memory: dict[str, Any] = {}
    assert Sum().step(total, memory) is total
    assert Sum().unstep(total, memory) is total
    assert memory == {}


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
