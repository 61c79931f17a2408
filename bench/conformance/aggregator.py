"""Checks of an aggregator: what is summed, how a sum is applied, and what both give away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.conformance.checks import Check, expect
from bench.conformance.fixtures import LAYOUT
from bench.defense import Aggregator, State
from bench.update import Update

#: rounding of float32 adapters
TOLERANCE = 1e-5


def checks(aggregator: Aggregator) -> Iterator[Check]:
    name = type(aggregator).__name__
    yield Check(f"aggregator: {name} weighs silos", lambda: _weights(aggregator))
    yield Check(f"aggregator: {name} applies a sum", lambda: _applies(aggregator))
    yield Check(f"aggregator: {name} says what it gives away", lambda: _implied(aggregator))
    if aggregator.has_memory:
        yield Check(f"aggregator: {name} steps and unsteps", lambda: _steps(aggregator))


def _weights(aggregator: Aggregator) -> str:
    weights = [aggregator.weight(size) for size in (1, 30, 1000)]
    whole = all(isinstance(weight, int) and weight >= 1 for weight in weights)
    expect(whole, f"weights of silos of 1, 30 and 1000 records are {weights}, expected positive integers.")
    return f"silos of 1, 30 and 1000 records weigh {', '.join(map(str, weights))}"


def _applies(aggregator: Aggregator) -> str:
    """The next adapter is finite, of the right shape, and does not depend on the order of the silos."""
    before, updates = _values(0), [_values(seed) for seed in (1, 2, 3)]
    weights = [aggregator.weight(size) for size in (10, 20, 30)]
    after = aggregator.apply(_total(aggregator, updates, weights, before), weights, before)
    expect(after.shape == before.shape, f"the next adapter has shape {after.shape}, expected {before.shape}.")
    real = after.dtype in (np.float32, np.float64)
    expect(bool(real), f"the next adapter is {after.dtype}, expected float32 or float64.")
    expect(np.isfinite(after).all(), "the next adapter holds values that are not finite.")
    turned = aggregator.apply(_total(aggregator, updates[::-1], weights[::-1], before), weights[::-1], before)
    expect(np.allclose(after, turned, atol=TOLERANCE), "the next adapter depends on the order of the silos.")
    expect(np.array_equal(before, _values(0)), "it changes the global adapter in place.")
    return "the next adapter is finite and independent of the silos' order"


def _steps(aggregator: Aggregator) -> str:
    """``unstep`` with the memory before a step gives the change back, or says that it can't be told."""
    memory: State = {}
    told = 0
    for seed in range(4):
        change = _values(seed).astype(np.float64)
        before, given = dict(memory), change.copy()
        moved = aggregator.step(change, memory)
        expect(moved.shape == change.shape and bool(np.isfinite(moved).all()), "'step' gives no finite move.")
        expect(np.array_equal(change, given), "'step' alters the change that it was given.")
        expect(all(isinstance(v, np.ndarray) for v in memory.values()), "its memory holds what is no array.")
        found = aggregator.unstep(moved, before)
        if found is None:
            continue
        far = float(np.linalg.norm(found - change))
        expect(far <= 1e-3 * float(np.linalg.norm(change)), f"'unstep' is off by {far:.3g} from the change.")
        same = all(np.allclose(before[key], memory[key]) for key in memory)
        expect(set(before) == set(memory) and same, "'unstep' leaves another memory than 'step'.")
        told += 1
    return f"{told} of 4 moves tell the change"


def _implied(aggregator: Aggregator) -> str:
    before, update = _values(0), _values(1)
    weight = aggregator.weight(10)
    summand = aggregator.summand(Update(update, LAYOUT, weight), before)
    own = aggregator.implied_adapter(summand.values.astype(np.float64), weight, before)
    far = float(np.abs(own - (before + update)).max())
    expect(far <= TOLERANCE, f"'implied_adapter' is off by {far:.3g} from the adapter that the silo trained.")
    weights = [weight, aggregator.weight(20)]
    total = _total(aggregator, [update, _values(2)], weights, before)
    after = aggregator.apply(total, weights, before).astype(np.float32)
    implied = aggregator.implied_total(before, after, weights)
    if implied is None:
        return "a silo's adapter follows from its summand; a sum does not follow from the adapters around it"
    far = float(np.abs(implied - total).max())
    allowed = TOLERANCE * sum(weights)
    expect(far <= allowed, f"'implied_total' is off by {far:.3g} from the sum that was applied.")
    return "a silo's adapter follows from its summand, and a sum from the adapters around it"


def _total(
    aggregator: Aggregator, updates: list[NDArray[np.float32]], weights: list[int], before: NDArray[np.float32]
) -> NDArray[np.float64]:
    total = np.zeros(LAYOUT.size)
    for values, weight in zip(updates, weights, strict=True):
        total += aggregator.summand(Update(values, LAYOUT, weight), before).values
    return total


def _values(seed: int) -> NDArray[np.float32]:
    return (0.02 * np.random.default_rng(seed).standard_normal(LAYOUT.size)).astype(np.float32)
