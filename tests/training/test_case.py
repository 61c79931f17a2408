"""One training ready to be run: which planting is which, and the public size of a silo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.corpus.planting import Planting
from bench.spec.run import PluginSpec, PoolSpec, RunSpec
from bench.training.case import Case
from bench.training.variant import Variant

NAMES = ("silo-0", "silo-1", "silo-2")
TRAINED = Planting("aaaaaaaa", {"silo-0": ("a",)}, {"silo-0": ("b",)})
ASKED = Planting("bbbbbbbb", {"silo-0": ("c",)}, {"silo-0": ("d",)})


class Adds(Variant):
    """Plants a few records more, and says what it was asked."""

    def nominal_size(self, nominal: int, spec: RunSpec) -> int:
        return nominal + 7 * spec.federation.silos


def case(variant: Variant | None = None, **pool: Any) -> Case:
    spec = RunSpec(task=PluginSpec(name="t"), defense=(PluginSpec(name="d"),), pool=PoolSpec(**pool))
    return of_sizes(spec, [spec.pool.candidates] * 3, variant)


def of_sizes(spec: RunSpec, candidates: Sequence[int], variant: Variant | None = None) -> Case:
    nothing: Any = None
    held = {f"silo-{i}": tuple(map(str, range(size))) for i, size in enumerate(candidates)}
    materials: Any = SimpleNamespace(pool=SimpleNamespace(silos=held))
    return Case(spec, 3, spec.run_id(3), nothing, variant or Variant(), materials, (TRAINED, ASKED))


def test_what_is_trained_on_and_what_is_asked_about_are_told_apart() -> None:
    assert case().trained is TRAINED
    assert case().planting is ASKED


@pytest.mark.parametrize(
    ("candidates", "share", "size"),
    [(60, 0.5, 30), (8, 0.5, 4), (10, 0.33, 3), (10, 0.36, 4), (13, 0.5, 7), (5, 0.1, 1)],
)
def test_a_silo_trains_on_its_share_of_candidates_by_hand(candidates: int, share: float, size: int) -> None:
    assert case(candidates=candidates, share=share).nominal_sizes == dict.fromkeys(NAMES, size)


def test_silos_of_other_sizes_train_on_their_shares_by_hand() -> None:
    spec = RunSpec(task=PluginSpec(name="t"), defense=(PluginSpec(name="d"),), pool=PoolSpec(share=0.25))
    assert list(of_sizes(spec, [128, 64, 2]).nominal_sizes.items()) == [("silo-0", 32), ("silo-1", 16), ("silo-2", 1)]


def test_a_run_of_its_own_says_how_many_records_more() -> None:
    assert case(Adds(), candidates=60).nominal_sizes == dict.fromkeys(NAMES, 30 + 7 * 3)


@given(st.integers(2, 10_000), st.floats(0.01, 0.99))
def test_the_public_size_is_within_half_a_record_of_the_share(candidates: int, share: float) -> None:
    found = set(case(candidates=candidates, share=share).nominal_sizes.values())
    assert len(found) == 1
    assert abs(min(found) - max(1, candidates * share)) <= 0.5


def test_a_case_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        case().seed = 4  # type: ignore[misc]
