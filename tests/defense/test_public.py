"""What everybody knows: layouts, and randomness that everybody can redraw."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from bench.core.streams import Streams
from bench.core.update import Layout
from bench.defense.public import Layouts, Public, alike

SUMMED = Layout(("s",), ((7, 2),))
ADAPTER = Layout(("a", "b"), ((2,), (3,)))
STATE = Layout(("a", "b", "c"), ((2,), (3,), (4,)))
SILOS = ("silo-0", "silo-1")
PUBLIC = Public(Layouts(ADAPTER, SUMMED, STATE), SILOS, dict.fromkeys(SILOS, 1), 2, (SILOS, SILOS), nonce=5)


def test_what_travels_what_is_trained_and_what_is_held_have_a_layout_each() -> None:
    assert (PUBLIC.layout, PUBLIC.adapter, PUBLIC.state) == (SUMMED, ADAPTER, STATE)
    same = replace(PUBLIC, layouts=alike(SUMMED))
    assert (same.layout, same.adapter, same.state) == (SUMMED, SUMMED, SUMMED)


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
    assert Public(alike(SUMMED), SILOS, {}, 0, ()).nonce == 0
    with pytest.raises(FrozenInstanceError):
        PUBLIC.rounds = 3  # type: ignore[misc]
