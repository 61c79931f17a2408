"""What everybody knows: layouts that default to the summand's, and randomness that everybody can redraw."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.streams import Streams
from bench.core.update import Layout
from bench.defense.public import Public

SUMMED = Layout(("s",), ((7, 2),))
ADAPTER = Layout(("a", "b"), ((2,), (3,)))
STATE = Layout(("a", "b", "c"), ((2,), (3,), (4,)))
SILOS = ("silo-0", "silo-1")
PUBLIC = Public(SUMMED, SILOS, dict.fromkeys(SILOS, 1), 2, (SILOS, SILOS), nonce=5)


def test_adapter_and_state_are_of_the_summand_s_layout_unless_they_are_given() -> None:
    assert (PUBLIC.adapter, PUBLIC.state) == (SUMMED, SUMMED)
    one = replace(PUBLIC, adapter=ADAPTER)
    assert (one.adapter, one.state) == (ADAPTER, SUMMED)
    both = replace(one, state=STATE)
    assert (both.layout, both.adapter, both.state) == (SUMMED, ADAPTER, STATE)


def test_only_layouts_that_differ_are_written_down() -> None:
    assert PUBLIC.layouts() == {"layout": {"names": ["s"], "shapes": [[7, 2]]}}
    assert replace(PUBLIC, adapter=SUMMED) == PUBLIC
    assert replace(PUBLIC, adapter=ADAPTER, state=STATE).layouts() == {
        "layout": {"names": ["s"], "shapes": [[7, 2]]},
        "adapter": {"names": ["a", "b"], "shapes": [[2], [3]]},
        "state": {"names": ["a", "b", "c"], "shapes": [[2], [3], [4]]},
    }


LAYOUTS = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(
    lambda shapes: Layout(tuple(f"t{i}" for i in range(len(shapes))), tuple(shapes))
)


@given(LAYOUTS, LAYOUTS, LAYOUTS)
@settings(max_examples=30, deadline=None)
def test_layouts_come_back_from_what_is_written_down(layout: Layout, adapter: Layout, state: Layout) -> None:
    one = replace(PUBLIC, layout=layout, adapter=adapter, state=state)
    found: dict[str, Any] = one.layouts()
    written = {name: Layout(tuple(value["names"]), tuple(map(tuple, value["shapes"]))) for name, value in found.items()}
    assert Public(silos=SILOS, weights=one.weights, rounds=2, participants=one.participants, nonce=5, **written) == one


def test_everybody_draws_the_same_from_the_nonce_and_the_name() -> None:
    drawn = PUBLIC.generator("mask", 1, 2).integers(0, 2**62, 4).tolist()
    assert drawn == Streams(5).generator("public/mask", 1, 2).integers(0, 2**62, 4).tolist()
    others = [
        PUBLIC.generator("mask", 2, 1),
        PUBLIC.generator("other", 1, 2),
        replace(PUBLIC, nonce=6).generator("mask", 1, 2),
        Streams(5).generator("mask", 1, 2),
    ]
    assert all(other.integers(0, 2**62, 4).tolist() != drawn for other in others)


def test_a_federation_without_a_nonce_has_0_and_nothing_public_changes() -> None:
    assert Public(SUMMED, SILOS, {}, 0, ()).nonce == 0
    with pytest.raises(FrozenInstanceError):
        PUBLIC.rounds = 3  # type: ignore[misc]
