"""What the parts of a filled-in defense (``bench.defense.compose.Parts``) promise and send together."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.defense.aggregator import ServerStep
from bench.defense.compose import Parts
from bench.defense.contexts import RoundContext
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.parts import Mechanism, RecordsPart
from bench.defense.public import Public, alike
from tests.defense.toys import LAYOUT, Idle, Keep, Picky, Same, Sparse, Step, promise, public_of


def parts(**more: Any) -> Parts:
    return Parts(**{"records": (), "trainer": Idle(), "transforms": (), "channel": PlainChannel(), **more})


def test_promises_are_those_of_trainer_transforms_and_server_steps_in_order() -> None:
    made = [promise(unit) for unit in ("record", "group", "silo", "silo")]
    trainer = Idle()
    trainer.promise = made[0]
    private = Step()
    private.promise = made[3]
    whole = parts(
        trainer=trainer,
        transforms=(Same(), Same(promise=made[1])),
        encoders=(Same(promise=made[2]),),
        aggregator=Mean(),
        steps=(Step(), private),
    )
    assert whole.promises == tuple(made)


def test_where_records_are_chosen_by_comparing_them_only_promises_about_silos_hold() -> None:
    alone, together = Keep(), Keep()
    alone.per_record = True
    transforms = tuple(Same(promise=promise(unit)) for unit in ("record", "group", "silo"))

    def held(*records: RecordsPart) -> list[bool]:
        found = parts(records=records, transforms=transforms, aggregator=Mean()).promises
        return [one.against(frozenset(), "silo-0") for one in found]

    assert held() == held(alone) == [True, True, True]
    assert held(alone, together) == [False, False, True]
    void, _, kept = parts(records=(together,), transforms=transforms, aggregator=Mean()).promises
    assert void.note == "records are chosen by comparing them, so that one record's removal may bring others back"
    assert (void.unit, void.adjacency, kept.note) == ("record", "replace", "said")


def context() -> RoundContext:
    public = Public(alike(LAYOUT), ("silo-0",), {"silo-0": 1}, 1, (("silo-0",),))
    return RoundContext(public=public, round=0, global_adapter=np.zeros(6, np.float32), lr=0.1, steps=1)


INDICES = st.none() | st.sets(st.integers(0, 5)).map(sorted)


@given(INDICES, INDICES, INDICES)
@settings(max_examples=60, deadline=None)
def test_a_silo_sends_what_all_supports_name_and_nothing_of_its_own(
    one: list[int] | None, other: list[int] | None, own: list[int] | None
) -> None:
    first, second, personal = (None if s is None else np.array(s, dtype=np.int64) for s in (one, other, own))
    whole = parts(transforms=(Sparse(on=first), Same()), encoders=(Sparse(on=second),), aggregator=Picky(own=personal))
    found = whole.support(context())
    if one is None and other is None and own is None:
        assert found is None
        return
    assert found is not None
    everything = set(range(6))
    named = everything if one is None else set(one)
    named &= everything if other is None else set(other)
    assert found.tolist() == sorted(named - set(own or ()))


def test_what_is_shared_is_what_is_nobody_s_own() -> None:
    public = context().public
    assert parts(aggregator=Mean()).shared(public) is None
    assert parts(aggregator=Picky(own=np.array([0, 4]))).shared(public).tolist() == [1, 2, 3, 5]  # type: ignore[union-attr]


# -- what whoever opens a sum does -----------------------------------------------------------------------------------


def test_steps_move_in_turn_and_each_keeps_a_memory_of_its_own() -> None:
    whole = parts(aggregator=Mean(), steps=(Step(2.0), ServerStep(), Step(5.0)))
    start, public, memory = np.array([1.0, 1.0], np.float32), public_of([1, 3]), dict[str, Any]()
    after = whole.moved(np.array([4.0, 8.0]), public.silos, start, public, memory)
    np.testing.assert_array_equal(after, [11.0, 21.0])  # 4/4 and 8/4, ten times
    assert {key: float(value[0]) for key, value in memory.items()} == {"step-0/moves": 1, "step-2/moves": 1}
    again = dict[str, Any]()
    np.testing.assert_array_equal(whole.unmoved(start, after.astype(np.float32), again), [2.0, 3.0])
    assert again == memory


def test_without_steps_the_aggregator_s_own_adapter_is_taken_as_it_is() -> None:
    made = np.array([1e20, 1.0])

    class Fixed(Mean):
        def apply(self, total: Any, silos: Any, global_adapter: Any, public: Any) -> Any:
            return made

    plain, start = parts(aggregator=Fixed()), np.zeros(2, np.float32)
    assert plain.moved(np.zeros(2), (), start, public_of([1]), {}) is made
    after = np.ones(2, np.float32)
    assert plain.unmoved(start, after, {}) is after


def test_the_step_that_can_not_be_undone_is_named() -> None:
    still = Step(0.0)
    whole = parts(aggregator=Mean(), steps=(still, Step(2.0)))
    assert whole.unmoved(np.zeros(2, np.float32), np.ones(2, np.float32), {}) is still

    class Rounds(ServerStep):
        def move(self, change: Any, memory: Any) -> Any:
            return np.rint(change)

    assert Rounds().undo(np.ones(2), {}) is None  # moves, and gives no inverse
    assert ServerStep().undo(after := np.ones(2), {}) is after


def test_a_step_that_counts_who_was_called_weighs_all_alike() -> None:
    class Called(ServerStep):
        counts_called = True

    public = Public(alike(LAYOUT), ("silo-0", "silo-1"), {"silo-0": 1, "silo-1": 9}, 1, (("silo-0", "silo-1"),))
    for steps, weight, counted in (((), 30, ("silo-1",)), ((Step(), Called()), 1, ("silo-0", "silo-1"))):
        whole = parts(aggregator=Mean(), steps=steps)
        assert (whole.weight(30), tuple(whole.counted(public, 0, ("silo-1",)))) == (weight, counted)


def test_noise_is_added_by_every_step_and_named() -> None:
    class Adds(ServerStep):
        def randomise(self, total: Any, context: Any) -> Any:
            return total + 1, Mechanism("gaussian", {"sigma": 2.0})

    context: Any = None
    total = np.zeros(3)
    noisy, mechanism = parts(aggregator=Mean(), steps=(Adds(), Step())).randomised(total, context)
    assert (noisy.tolist(), mechanism) == ([1, 1, 1], Mechanism("gaussian", {"sigma": 2.0}))
    assert parts(aggregator=Mean(), steps=(Step(),)).randomised(total, context) == (total, None)
