"""One training ready to be run: which planting is which, and the public size of a silo."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.corpus.planting import Planting
from bench.spec.run import PluginSpec, PoolSpec, RunSpec
from bench.training.case import Case
from bench.training.variant import Variant

TRAINED = Planting("aaaaaaaa", {"silo-0": ("a",)}, {"silo-0": ("b",)})
ASKED = Planting("bbbbbbbb", {"silo-0": ("c",)}, {"silo-0": ("d",)})


class Adds(Variant):
    """Plants a few records more, and says what it was asked."""

    def nominal_size(self, nominal: int, spec: RunSpec) -> int:
        return nominal + 7 * spec.federation.silos


def case(variant: Variant | None = None, **pool: Any) -> Case:
    spec = RunSpec(task=PluginSpec(name="t"), defense=(PluginSpec(name="d"),), pool=PoolSpec(**pool))
    nothing: Any = None
    return Case(spec, 3, spec.run_id(3), nothing, variant or Variant(), nothing, (TRAINED, ASKED))


def test_what_is_trained_on_and_what_is_asked_about_are_told_apart() -> None:
    assert case().trained is TRAINED
    assert case().planting is ASKED


@pytest.mark.parametrize(
    ("candidates", "share", "size"), [(60, 0.5, 30), (8, 0.5, 4), (10, 0.33, 3), (10, 0.36, 4), (7, 0.9, 6)]
)
def test_a_silo_trains_on_its_share_of_candidates_by_hand(candidates: int, share: float, size: int) -> None:
    assert case(candidates=candidates, share=share).nominal_size == size


def test_a_run_of_its_own_says_how_many_records_more() -> None:
    assert case(Adds(), candidates=60).nominal_size == 30 + 7 * 3


@given(st.integers(2, 10_000), st.floats(0.01, 0.99))
def test_the_public_size_is_within_half_a_record_of_the_share(candidates: int, share: float) -> None:
    assert abs(case(candidates=candidates, share=share).nominal_size - candidates * share) <= 0.5


def test_a_case_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        case().seed = 4  # type: ignore[misc]
