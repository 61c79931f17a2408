"""What the parts of a filled-in defense (``bench.defense.compose.Parts``) promise and send together."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.defense.compose import Parts
from bench.defense.contexts import RoundContext
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.parts import RecordsPart
from bench.defense.public import Public
from tests.defense.toys import LAYOUT, Idle, Keep, Picky, Same, promise


def parts(**more: Any) -> Parts:
    return Parts(**{"records": (), "trainer": Idle(), "transforms": (), "channel": PlainChannel(), **more})


def test_promises_are_those_of_trainer_transforms_and_aggregator_in_order() -> None:
    made = [promise(unit) for unit in ("record", "group", "silo", "silo")]
    trainer = Idle()
    trainer.promise = made[0]
    whole = parts(
        trainer=trainer,
        transforms=(Same(), Same(promise=made[1])),
        encoders=(Same(promise=made[2]),),
        aggregator=Picky(promise=made[3]),
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
    public = Public(LAYOUT, ("silo-0",), {"silo-0": 1}, 1, (("silo-0",),))
    return RoundContext(public=public, round=0, global_adapter=np.zeros(6, np.float32), lr=0.1, steps=1)


INDICES = st.none() | st.sets(st.integers(0, 5)).map(sorted)


@given(INDICES, INDICES, INDICES)
@settings(max_examples=60, deadline=None)
def test_a_silo_sends_what_all_supports_name_and_nothing_of_its_own(
    one: list[int] | None, other: list[int] | None, own: list[int] | None
) -> None:
    first, second, personal = (None if s is None else np.array(s, dtype=np.int64) for s in (one, other, own))
    whole = parts(transforms=(Same(on=first), Same()), encoders=(Same(on=second),), aggregator=Picky(own=personal))
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
    assert parts(aggregator=Mean()).shared(LAYOUT) is None
    assert parts(aggregator=Picky(own=np.array([0, 4]))).shared(LAYOUT).tolist() == [1, 2, 3, 5]  # type: ignore[union-attr]
