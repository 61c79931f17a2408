"""Checks of a defense's server steps: what each makes of a sum and of a move, and whether that can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.conformance.checks import Check, expect
from bench.conformance.fixtures import LAYOUT, open_context
from bench.core.streams import State
from bench.defense.aggregator import ServerStep

MOVES = 4


def checks(step: ServerStep) -> Iterator[Check]:
    name = type(step).__name__
    yield Check(f"step: {name} hands on a sum", partial(_sums, step))
    yield Check(f"step: {name} moves, and back", partial(_moves, step))


def _sums(step: ServerStep) -> str:
    """A sum stays one: finite, of its shape, the one that was given left alone, noise named as a mechanism."""
    noisy = 0
    for seed in range(MOVES):
        total = _values(seed)
        given = total.copy()
        after, mechanism = step.randomise(total, open_context())
        expect(np.array_equal(total, given), "'randomise' changes the sum that it was given; make a new one.")
        expect(after.shape == total.shape and bool(np.isfinite(after).all()), "'randomise' gives no finite sum.")
        changed = not np.array_equal(after, given)
        expect(not changed or mechanism is not None, "'randomise' changes a sum and names no mechanism.")
        noisy += changed
    return "adds noise to a sum, and says how much" if noisy else "leaves a sum as it is"


def _moves(step: ServerStep) -> str:
    """``undo`` with the memory before a move gives the change back, or says that it can't be told."""
    memory: State = {}
    told = 0
    for seed in range(MOVES):
        change = _values(seed)
        before, given = dict(memory), change.copy()
        moved = step.move(change, memory)
        expect(moved.shape == change.shape and bool(np.isfinite(moved).all()), "'move' gives no finite move.")
        expect(np.array_equal(change, given), "'move' alters the change that it was given.")
        expect(all(isinstance(v, np.ndarray) for v in memory.values()), "its memory holds what is no array.")
        expect(step.has_memory or not memory, "it keeps a memory: say has_memory = True.")
        found = step.undo(moved, before)
        if found is None:
            continue
        far = float(np.linalg.norm(found - change))
        expect(far <= 1e-3 * float(np.linalg.norm(change)), f"'undo' is off by {far:.3g} from the change.")
        same = set(before) == set(memory) and all(np.allclose(before[key], memory[key]) for key in memory)
        expect(same, "'undo' leaves another memory than 'move'.")
        told += 1
    return f"{told} of {MOVES} moves tell the change"


def _values(seed: int) -> NDArray[np.float64]:
    return 0.02 * np.random.default_rng(seed).standard_normal(LAYOUT.size)
