"""What one reading shows of a silo's update: which entries of it are known, and how exactly.

Everything is taken from the reading itself and from public settings. Magnitude pruning leaves its trace in the values:
a pruned weight is exactly zero, a pruned change is exactly none. A grid leaves its trace too: all values are whole
multiples of one step. What is missing is unknown, not zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attacks.sparse import stated_size
from bench.core.update import Array, Layout

if TYPE_CHECKING:
    from bench.attack.attack import Target
    from bench.view.view import Reading, View

#: share of a tensor's entries that must look dropped before they are taken for missing
SPARSE = 0.01
#: a grid is recognised where values are multiples of its step to this share of it, and few enough levels are used
ON_GRID, MOST_LEVELS = 1e-2, 2**15
#: standard deviation, in steps, of stochastic rounding at a uniform fraction f: sqrt(E f (1 - f)) (Gupta et al. 2015)
ROUNDED = 1 / np.sqrt(6)


@dataclass(frozen=True)
class Observed:
    """One silo's update of one round. ``before``: the adapter that it started from, which may hold more than silos
    train (``Reading.before``). ``change``: (public.adapter.size,) of the trained values, 0 where not ``known``.
    ``deviation``: of the noise that a public grid put on every known entry, 0 without one. ``signs``: the public
    settings say that silos train with AdamW, which divides a gradient by its size and keeps little but signs."""

    before: Array
    change: NDArray[np.float64]
    known: NDArray[np.bool_]
    deviation: float
    reads: str
    signs: bool = False

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of all that is observed."""
        state = hashlib.sha256(repr((self.deviation, self.reads, self.signs)).encode())
        for values in (self.before, self.change, self.known):
            state.update(np.ascontiguousarray(values).tobytes())
        return state.hexdigest()

    @property
    def whole(self) -> bool:
        """True where nothing is missing and nothing was rounded to a grid."""
        return bool(self.known.all()) and self.deviation == 0


def observe(view: View, silo: str, round: int) -> Observed | None:
    """The upload of ``silo`` in ``round``, else the largest part of it that opened; None where the adapter that it
    started from is not known: only the difference tells."""
    for reading in view.uploads(silo=silo, round=round):
        before, after = reading.before, reading.adapter
        if before is not None and after is not None:
            trained = view.public.adapter.size  # what follows is no silo's to change
            old, new = before[:trained], after[:trained]
            known = survivors(view.public.adapter, old, new)
            change = np.where(known, new.astype(np.float64) - old, 0.0)
            step = _step(reading, change)
            return Observed(before, change, known, step * ROUNDED, f"upload of {silo}, round {round}", signs(view.spec))
    parts = [o for r in view.readings if r.round == round and (o := _partial(view, r, silo)) is not None]
    return max(parts, key=lambda o: int(o.known.sum()), default=None)


def _partial(view: View, reading: Reading, silo: str) -> Observed | None:
    """Some coordinates of a single silo's summand. Where the coalition does not know the adapter of the round, the
    first one stands in for it: exact while A has not moved, an approximation later."""
    if reading.kind != "partial" or reading.silos != {silo} or reading.support is None:
        return None
    if view.public.layout.size != view.public.adapter.size:
        return None  # a summand of another shape than what was trained
    if view.public.layout != view.public.adapter:  # a summand is no update
        return None
    before = reading.before if reading.before is not None else view.initial
    if before is None:
        return None
    known = np.zeros(view.public.layout.size, dtype=bool)
    known[reading.support] = True
    values = np.asarray(reading.values, np.float64) / view.public.weights.get(silo, 1)
    change = np.where(known, _less(values, before, known), 0.0)
    return Observed(
        before, change, known, 0.0, f"part of the upload of {silo}, round {reading.round}", signs(view.spec)
    )


def signs(spec: Mapping[str, Any]) -> bool:
    """True where the public settings say that silos train with AdamW."""
    local = spec.get("federation", {}).get("local", {})
    return str(local.get("optimizer", "sgd")) == "adamw"


def _less(values: NDArray[np.float64], before: Array, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The change from a summand of changes or of whole weights, whichever its values are nearer to."""
    near = np.linalg.norm((values - before)[known]) < 0.5 * np.linalg.norm(before[known])
    return values - before if near else values


def survivors(layout: Layout, before: Array, after: Array) -> NDArray[np.bool_]:
    """(size,) False where an entry was dropped: a weight that became exactly zero, or one that stayed exactly as it was
    in a tensor of which others moved."""
    known = np.ones(layout.size, dtype=bool)
    parts = zip(layout.tensors(before), layout.tensors(after), layout.tensors(known), strict=True)
    for (_, old), (_, new), (_, kept) in parts:
        zeroed = (new == 0) & (old != 0)
        still = new == old
        dropped = zeroed | still if (~zeroed & ~still).any() else zeroed
        if SPARSE * dropped.size < dropped.sum():
            kept[dropped] = False
    return known


def _step(reading: Reading, change: NDArray[np.float64]) -> float:
    """The step of the grid that the summand's values lie on, in units of the change; 0 where they lie on none."""
    try:
        values = np.asarray(reading.values, np.float64)
    except AttributeError:
        return 0.0
    moved = np.abs(values[values != 0])
    if len(moved) < 64 or len(values) != len(change):
        return 0.0
    step = float(moved.min())
    levels = moved / step
    if levels.max() > MOST_LEVELS or np.abs(levels - np.rint(levels)).max() > ON_GRID or levels.max() < 1.5:
        return 0.0
    scale = float(np.linalg.norm(values))
    return step * float(np.linalg.norm(change)) / scale if scale else 0.0


def whole_silo(view: View, target: Target) -> bool:
    """True where the target's records are all that its silo trains on (public nominal size), so that its uploads of
    other rounds speak of the same records."""
    size = stated_size(view, target.silo)
    return size is not None and target.records >= size


def others(view: View, target: Target, most: int = 8) -> Sequence[Observed]:
    """What opened of the same silo's other rounds, where they are about the same records; the earliest ``most``."""
    if not whole_silo(view, target):
        return ()
    rounds = sorted({r.round for r in view.readings if r.kind in ("upload", "partial") and target.silo in r.silos})
    found = (observe(view, target.silo, r) for r in rounds if r != target.round)
    return [o for o in found if o is not None][:most]
