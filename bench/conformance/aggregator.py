"""Checks of an aggregator: what is summed, how a sum is applied, and what both give away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bench.conformance.checks import Check, expect
from bench.conformance.fixtures import LAYOUT
from bench.core.parties import silo
from bench.core.update import Array, Update
from bench.defense.aggregator import Aggregator
from bench.defense.public import Layouts, Public
from bench.model.products import widened

#: rounding of float32 adapters
TOLERANCE = 1e-5
#: records of each silo
SIZES = {silo(0): 10, silo(1): 20, silo(2): 30}
SILOS = tuple(SIZES)


def checks(aggregator: Aggregator) -> Iterator[Check]:
    name = type(aggregator).__name__
    yield Check(f"aggregator: {name} weighs silos", lambda: _weights(aggregator))
    yield Check(f"aggregator: {name} applies a sum", lambda: _applies(aggregator))
    yield Check(f"aggregator: {name} says what it gives away", lambda: _implied(aggregator))


def _weights(aggregator: Aggregator) -> str:
    weights = [aggregator.weight(size) for size in (1, 30, 1000)]
    whole = all(isinstance(weight, int) and weight >= 1 for weight in weights)
    expect(whole, f"weights of silos of 1, 30 and 1000 records are {weights}, expected positive integers.")
    return f"silos of 1, 30 and 1000 records weigh {', '.join(map(str, weights))}"


def _applies(aggregator: Aggregator) -> str:
    """The next adapter is finite, of the right shape, and does not depend on the order of the silos."""
    public, before = _public(aggregator), _state(aggregator)
    updates = {name: _values(seed) for seed, name in enumerate(SILOS, 1)}
    after = aggregator.apply(_total(aggregator, updates, before), SILOS, before, public)
    expect(after.shape == before.shape, f"the next adapter has shape {after.shape}, expected {before.shape}.")
    real = after.dtype in (np.float32, np.float64)
    expect(bool(real), f"the next adapter is {after.dtype}, expected float32 or float64.")
    expect(np.isfinite(after).all(), "the next adapter holds values that are not finite.")
    turned = _total(aggregator, dict(reversed(updates.items())), before)
    again = aggregator.apply(turned, SILOS[::-1], before, public)
    expect(np.allclose(after, again, atol=TOLERANCE), "the next adapter depends on the order of the silos.")
    expect(np.array_equal(before, _state(aggregator)), "it changes the global adapter in place.")
    return "the next adapter is finite and independent of the silos' order"


def _implied(aggregator: Aggregator) -> str:
    public, before, update, two = _public(aggregator), _state(aggregator), _values(1), SILOS[:2]
    weights = [public.weights[name] for name in two]
    summand = aggregator.summand(Update(update, LAYOUT, weights[0], silo=two[0]), before, public)
    own = aggregator.implied_adapter(summand.values.astype(np.float64), weights[0], before, public)
    far = float(np.abs(own - before - widened(update, public.state)).max())
    expect(far <= TOLERANCE, f"'implied_adapter' is off by {far:.3g} from the adapter that the silo trained.")
    total = _total(aggregator, {two[0]: update, two[1]: _values(2)}, before)
    after = aggregator.apply(total, two, before, public).astype(np.float32)
    implied = aggregator.implied_total(before, after, two, public)
    if implied is None:
        return "a silo's adapter follows from its summand; a sum does not follow from the adapters around it"
    far = float(np.abs(implied - total).max())
    allowed = TOLERANCE * sum(weights)
    expect(far <= allowed, f"'implied_total' is off by {far:.3g} from the sum that was applied.")
    return "a silo's adapter follows from its summand, and a sum from the adapters around it"


def _total(aggregator: Aggregator, updates: Mapping[str, Array], before: Array) -> NDArray[np.float64]:
    public = _public(aggregator)
    total = np.zeros(public.layout.size)
    for name, values in updates.items():
        update = Update(values, LAYOUT, public.weights[name], silo=name)
        total += aggregator.summand(update, before, public).values
    return total


def _public(aggregator: Aggregator) -> Public:
    weights = {name: aggregator.weight(size) for name, size in SIZES.items()}
    plan = aggregator.plan(LAYOUT, SILOS)
    return Public(Layouts(LAYOUT, plan.summed, plan.state), SILOS, weights, 1, (SILOS,))


def _state(aggregator: Aggregator) -> Array:
    return widened(_values(0), aggregator.plan(LAYOUT, SILOS).state)


def _values(seed: int) -> Array:
    return (0.02 * np.random.default_rng(seed).standard_normal(LAYOUT.size)).astype(np.float32)
