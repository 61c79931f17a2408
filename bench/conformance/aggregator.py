"""Checks of an aggregator: what is summed, how a sum is applied, and what both give away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bench.conformance.checks import Check, expect
from bench.conformance.fixtures import LAYOUT
from bench.core.parties import silo
from bench.core.streams import State
from bench.core.update import Array, Update
from bench.defense.parts import Aggregator
from bench.defense.public import Public
from bench.model.products import widened

#: rounding of float32 adapters
TOLERANCE = 1e-5
#: records of each silo
SIZES = {silo(0): 10, silo(1): 20, silo(2): 30}
SILOS = tuple(SIZES)


def checks(aggregator: Aggregator) -> Iterator[Check]:
    """``aggregator``: as a defense brings it, for no federation yet."""
    name = type(aggregator).__name__
    yield Check(f"aggregator: {name} weighs silos", lambda: _weights(aggregator))
    aggregator = aggregator.bound(_public(aggregator))
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
    before, updates = _state(aggregator), {name: _values(seed) for seed, name in enumerate(SILOS, 1)}
    weights = [aggregator.weight(size) for size in SIZES.values()]
    after = aggregator.apply(_total(aggregator, updates, before), weights, before)
    expect(after.shape == before.shape, f"the next adapter has shape {after.shape}, expected {before.shape}.")
    real = after.dtype in (np.float32, np.float64)
    expect(bool(real), f"the next adapter is {after.dtype}, expected float32 or float64.")
    expect(np.isfinite(after).all(), "the next adapter holds values that are not finite.")
    turned = aggregator.apply(_total(aggregator, dict(reversed(updates.items())), before), weights[::-1], before)
    expect(np.allclose(after, turned, atol=TOLERANCE), "the next adapter depends on the order of the silos.")
    expect(np.array_equal(before, _state(aggregator)), "it changes the global adapter in place.")
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
    before, update, (first, second, _) = _state(aggregator), _values(1), SILOS
    weights = [aggregator.weight(SIZES[name]) for name in (first, second)]
    summand = aggregator.summand(Update(update, LAYOUT, weights[0], silo=first), before)
    own = aggregator.implied_adapter(summand.values.astype(np.float64), weights[0], before)
    far = float(np.abs(own - before - widened(update, aggregator.state(LAYOUT))).max())
    expect(far <= TOLERANCE, f"'implied_adapter' is off by {far:.3g} from the adapter that the silo trained.")
    total = _total(aggregator, {first: update, second: _values(2)}, before)
    after = aggregator.apply(total, weights, before).astype(np.float32)
    implied = aggregator.implied_total(before, after, weights)
    if implied is None:
        return "a silo's adapter follows from its summand; a sum does not follow from the adapters around it"
    far = float(np.abs(implied - total).max())
    allowed = TOLERANCE * sum(weights)
    expect(far <= allowed, f"'implied_total' is off by {far:.3g} from the sum that was applied.")
    return "a silo's adapter follows from its summand, and a sum from the adapters around it"


def _total(aggregator: Aggregator, updates: Mapping[str, Array], before: Array) -> NDArray[np.float64]:
    total = np.zeros(aggregator.summed(LAYOUT, SILOS).size)
    for name, values in updates.items():
        update = Update(values, LAYOUT, aggregator.weight(SIZES[name]), silo=name)
        total += aggregator.summand(update, before).values
    return total


def _public(aggregator: Aggregator) -> Public:
    weights = {name: aggregator.weight(size) for name, size in SIZES.items()}
    summed, state = aggregator.summed(LAYOUT, SILOS), aggregator.state(LAYOUT)
    return Public(summed, SILOS, weights, 1, (SILOS,), adapter=LAYOUT, state=state)


def _state(aggregator: Aggregator) -> Array:
    return widened(_values(0), aggregator.state(LAYOUT))


def _values(seed: int) -> Array:
    return (0.02 * np.random.default_rng(seed).standard_normal(LAYOUT.size)).astype(np.float32)
