"""Checks of a defense's transforms, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial, reduce

import numpy as np
from numpy.typing import NDArray

from bench.conformance.checks import Check, expect
from bench.conformance.fixtures import LAYOUT, transform_context
from bench.core.streams import State
from bench.core.update import Update
from bench.defense.compose import Defense
from bench.defense.contexts import TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform

ROUNDS = 4


def checks(defense: Defense) -> Iterator[Check]:
    for position, transform in enumerate(defense.transforms):
        name = type(transform).__name__
        before = defense.transforms[:position]
        yield Check(f"transform: {name} keeps its rules", partial(_rules, before, transform))
        yield Check(f"transform: {name} on an update of zeros", partial(_zeros, before, transform))
        yield Check(f"transform: {name} on its own memory", partial(_memory, before, transform))


def _rules(before: tuple[Transform, ...], transform: Transform) -> str:
    changed, flow = 0, _flow(before, transform)
    for round in range(ROUNDS):
        update, adapter = _given(before, round, _values(round)), _values(99)
        kept = update.values.copy(), adapter.copy()
        after = transform.apply(update, _context(round, adapter, {}))
        expect(np.array_equal(update.values, kept[0]), "it changes the update that it was given; make a new one.")
        expect(np.array_equal(adapter, kept[1]), "it changes the global adapter.")
        _check_update(flow, after, update)
        changed += after.values.shape != update.values.shape or not np.array_equal(after.values, update.values)
    return f"changes the update in {changed} of {ROUNDS} rounds and leaves a valid one"


def _zeros(before: tuple[Transform, ...], transform: Transform) -> str:
    for adapter in (np.zeros(LAYOUT.size, np.float32), _values(99)):
        update = _given(before, 0, np.zeros(LAYOUT.size, np.float32))
        _check_update(_flow(before, transform), transform.apply(update, _context(0, adapter, {})), update)
    return "a silo that has nothing to say is handled"


def _memory(before: tuple[Transform, ...], transform: Transform) -> str:
    """With the same secret and state it does the same; what it keeps between rounds is arrays in its state."""
    states: list[State] = [{}, {}]
    results: list[list[Update]] = [[], []]
    for state, found in zip(states, results, strict=True):
        for round in range(ROUNDS):
            update = _given(before, round, _values(round))
            found.append(transform.apply(update, _context(round, _values(99), state)))
    for one, other in zip(*results, strict=True):
        expect(np.array_equal(one.values, other.values), "two runs of the same seeds and states differ.")
    for key, value in states[0].items():
        expect(isinstance(value, np.ndarray) and value.dtype != object, f"its state '{key}' is no array of numbers.")
    return f"keeps {len(states[0])} arrays between rounds" if states[0] else "keeps nothing between rounds"


def _values(seed: int) -> NDArray[np.float32]:
    return (0.02 * np.random.default_rng(seed).standard_normal(LAYOUT.size)).astype(np.float32)


def _given(before: tuple[Transform, ...], round: int, values: NDArray[np.float32]) -> Update:
    """What this transform is handed: an update that the transforms before it have been applied to."""
    update = Update(values, LAYOUT)
    for transform in before:
        update = transform.apply(update, _context(round, _values(99), {}))
    return replace(update, values=update.values.copy())


def _context(round: int, adapter: NDArray[np.float32], state: State) -> TransformContext:
    return transform_context(adapter, round, ROUNDS, state=state)


def _flow(before: tuple[Transform, ...], transform: Transform) -> Flow:
    """What leaves the transform by what it and those before it say."""
    return reduce(lambda reaching, part: part.follow(reaching), (*before, transform), Flow())


def _check_update(flow: Flow, after: Update, update: Update) -> None:
    expect(after.layout == update.layout, "it changes the layout.")
    expect(after.weight == update.weight, "it changes the public weight, which the aggregator decides.")
    size = LAYOUT.size if after.support is None else len(after.support)
    expect(after.values.shape == (size,), f"it gives values of shape {after.values.shape}, expected ({size},).")
    expect(np.isfinite(after.values).all(), "it gives values that are not finite.")
    _check_kind(flow, after)
    if after.support is not None:
        ordered = bool((np.diff(after.support) > 0).all())
        inside = size == 0 or (after.support[0] >= 0 and after.support[-1] < LAYOUT.size)
        expect(ordered and inside, "its support is not a sorted list of distinct positions in the adapter.")
    if after.norm_bound is not None:
        scale = 1.0 if after.grid is None else after.grid.step
        norm = float(np.linalg.norm(after.values.astype(np.float64) * scale))
        expect(
            norm <= after.norm_bound * (1 + 1e-6),
            f"its norm is {norm:.4g}, above the {after.norm_bound:.4g} it states.",
        )
    # what is refused or let through for the noise that follows goes by what the transform says of norms
    expect(bool(flow.unbounded) or after.norm_bound is not None, "it says that a norm bound holds and gives none.")


def _check_kind(flow: Flow, after: Update) -> None:
    if flow.values == "real":
        expect(after.grid is None, "it states that it gives real values and gives integers on a grid.")
        expect(after.values.dtype == np.float32, f"it gives {after.values.dtype} values, expected float32.")
        return
    expect(after.grid is not None, "it states that it gives integers on a grid and gives none.")
    expect(after.values.dtype == np.int64, f"it gives {after.values.dtype} values on a grid, expected int64.")
    if after.grid is not None:
        expect(np.abs(after.values).max(initial=0) <= after.grid.levels, "it gives integers outside its grid.")
