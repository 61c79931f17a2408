"""The mean of LoRA factors against the formula, and what two adapters give away about it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.update import Layout, Update
from bench.defense.defaults.mean import Mean
from tests.defense.toys import public_of

LAYOUT = Layout(("a",), ((7,),))
OF = st.sampled_from(["delta", "weights"])


def draw(seed: int, silos: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=7).astype(np.float32), rng.normal(size=(silos, 7)).astype(np.float32)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 50), min_size=1, max_size=5), st.booleans(), OF)
def test_the_next_adapter_is_the_weighted_mean(
    seed: int, sizes: list[int], weighted: bool, of: Literal["delta", "weights"]
) -> None:
    start, deltas = draw(seed, len(sizes))
    mean = Mean(weighted, of)
    weights = [mean.weight(size) for size in sizes]
    updates = [Update(d, LAYOUT, w) for d, w in zip(deltas, weights, strict=True)]
    public = public_of(weights)
    summands = [mean.summand(u, start, public).values for u in updates]
    total = np.sum(np.asarray(summands, dtype=np.float64), axis=0)
    after = mean.apply(total, public.silos, start, public)
    used = np.array(sizes if weighted else [1] * len(sizes), dtype=np.float64)
    by_hand = start + (used[:, None] * deltas).sum(0) / used.sum()
    np.testing.assert_allclose(after, by_hand, atol=2e-5)
    # whoever sees both adapters knows the sum, and from a summand the silo's own adapter follows
    implied = mean.implied_total(start, after, public.silos, public)
    assert implied is not None
    np.testing.assert_allclose(implied, total, atol=2e-4 * used.sum())
    own = mean.implied_adapter(summands[0], weights[0], start, public)
    np.testing.assert_allclose(own, start + deltas[0], atol=2e-5)


def test_a_norm_bound_grows_with_the_weight_and_is_lost_for_weights() -> None:
    update = Update(np.ones(7, np.float32), LAYOUT, weight=3, norm_bound=2.0)
    start, public = np.zeros(7, np.float32), public_of([3])
    assert Mean().summand(update, start, public).norm_bound == pytest.approx(6.0)
    assert Mean(of="weights").summand(update, start, public).norm_bound is None
