"""What the changes of a group of LoRA projections say about the inputs that the group read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.algebra import (
    Floats,
    RowSpace,
    Whitening,
    combine,
    log_chance,
    residuals,
    row_space,
    storage_noise,
)
from bench.core.update import Layout

#: ridge of the whitening of whole inputs, as a share of the largest eigenvalue: they are many and their tail is noise
INPUT_RIDGE = 1e-2
#: a row space under more noise than this, as a share of its largest singular value, may hide directions
HIDDEN = 1e-4


@dataclass(frozen=True)
class Change:
    """One projection before and after: A (rank, width), its change, the change of B (out, rank), and the largest
    singular values that float32 storage, or a grid, may have put into the changes. ``known_a``, ``known_b``: where the
    changes were read (elsewhere they hold 0), None for everywhere. ``deviation``: of a grid's noise on every entry."""

    a: Floats
    da: Floats
    db: Floats
    noise_a: float
    noise_b: float
    known_a: NDArray[np.bool_] | None = None
    known_b: NDArray[np.bool_] | None = None
    deviation: float = 0.0

    @property
    def rough(self) -> bool:
        """True where entries of the change of B are missing or were rounded to a grid."""
        return self.known_b is not None or self.deviation > 0


def changes(
    layout: Layout,
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    known: NDArray[np.bool_] | None = None,
    deviation: float = 0.0,
) -> dict[str, Change]:
    """The change of every projection that has both its A and its B in the layout, by its prefix.

    ``known``: (layout.size,) the entries that were read. ``deviation``: of a grid's noise on each.
    """
    old, new = ({name: value.astype(np.float64) for name, value in layout.tensors(flat)} for flat in (before, after))
    mask = None if known is None or known.all() else dict(layout.tensors(known.astype(np.float32)))
    found: dict[str, Change] = {}
    for name_a in layout.names:
        name_b = name_a.replace(".lora_A.", ".lora_B.")
        if ".lora_A." not in name_a or name_b not in new:
            continue
        a, b = (
            _moved(old[n], new[n], None if mask is None else mask[n].astype(bool), deviation) for n in (name_a, name_b)
        )
        found[name_a.split(".lora_A.")[0]] = Change(old[name_a], a[0], b[0], a[1], b[1], a[2], b[2], deviation)
    return found


def _moved(
    old: Floats, new: Floats, known: NDArray[np.bool_] | None, deviation: float
) -> tuple[Floats, float, NDArray[np.bool_] | None]:
    """A tensor's change with 0 where it is not ``known``, the noise in it, and ``known``, None for everywhere."""
    known = None if known is None or known.all() else known
    change = new - old if known is None else np.where(known, new - old, 0.0)
    grid = 2 * deviation * float(np.sum(np.sqrt(change.shape)))
    return change, max(storage_noise(new, change), grid) if change.any() else 0.0, known


@dataclass(frozen=True)
class Constraint:
    """``project`` (width, k) takes an input to the space in which ``space`` lies (whitened). ``change`` (m, k): the
    change in those coordinates. ``usable``: the row space is all that the inputs span, and leaves room, so a test
    against it is exact. ``on_inputs``: made of changes of A, that is of inputs themselves."""

    name: str
    project: Floats
    space: RowSpace
    change: Floats
    usable: bool
    on_inputs: bool

    def vectors(self, inputs: Floats) -> Floats:
        """(n, k) from inputs (n, width)."""
        return inputs @ self.project

    def test(self, vectors: Floats) -> tuple[NDArray[np.bool_], Floats]:
        """(n,) True where a vector lies in the row space up to rounding, and the log-probability that one which was
        not there, in a random direction, lies so close."""
        residual = residuals(self.space, vectors)
        return residual <= self.space.reach, log_chance(residual, self.space)


def constraints(
    group: Sequence[str], change: Mapping[str, Change], moment: Floats, tolerance: float
) -> list[Constraint]:
    """All constraints on what ``group`` read: one from each B, one from all changes of A together.

    ``moment``: (width, width) second moment of inputs that were not there.
    """
    found = [_from_b(name, change[name], moment, tolerance) for name in group if np.any(change[name].db)]
    moved = [change[name] for name in group if np.any(change[name].da)]
    if moved:
        found.append(_from_a("+".join(group), moved, moment, tolerance))
    return [constraint for constraint in found if constraint.space.rank]


def _from_b(name: str, change: Change, moment: Floats, tolerance: float) -> Constraint:
    white = Whitening.of(change.a @ moment @ change.a.T).matrix
    raw = row_space(change.db, change.noise_b, tolerance)
    usable = change.known_b is None and _usable(raw, min(change.db.shape), change.noise_b)
    return Constraint(f"{name} B", change.a.T @ white, raw.mapped(white), change.db @ white, usable, False)


def _from_a(name: str, moved: Sequence[Change], moment: Floats, tolerance: float) -> Constraint:
    """Rows of the changes of all A span {x_p} as far as they go: to (rank x projections) inputs where B is not zero."""
    norms = [float(np.linalg.norm(c.da)) for c in moved]
    stacked = np.concatenate([c.da / norm for c, norm in zip(moved, norms, strict=True)])
    noise = max(c.noise_a / norm for c, norm in zip(moved, norms, strict=True))
    raw = row_space(stacked, noise, tolerance)
    white = Whitening.of(moment, INPUT_RIDGE).matrix
    usable = all(c.known_a is None for c in moved) and _usable(raw, len(stacked), noise)
    return Constraint(f"{name} A", white, raw.mapped(white), stacked @ white, usable, True)


def _usable(space: RowSpace, most: int, noise: float) -> bool:
    return 0 < space.rank < min(most, space.width) and noise <= HIDDEN * float(space.values[0])


def largest_rank(found: Sequence[Constraint]) -> tuple[int, bool]:
    """The largest rank among the constraints on one group that may count inputs, and True where it does count them.

    The largest rank counts the distinct inputs that carry gradient, unless its row space leaves no room.
    """
    counting = [c for c in found if c.usable or not c.on_inputs]
    top = max((c.space.rank for c in counting), default=0)
    return top, any(c.usable and c.space.rank == top for c in counting)


def judge(found: Sequence[Constraint], vectors: Sequence[Floats]) -> Floats:
    """(n,) log-probability that an input which was not there fits the constraints on its group so well; 0 where it does
    not fit. ``vectors``: one (n, k) per constraint, usable or not.

    An input fits if it lies in all usable row spaces, or in one of the largest rank: at a record's first position
    attention has one key, so the query there has no gradient and its row space, smaller by one, lacks the input.
    """
    top, _ = largest_rank(found)
    tests = [(c.space.rank == top, *c.test(v)) for c, v in zip(found, vectors, strict=True) if c.usable]
    if not tests:
        return np.zeros(len(vectors[0])) if vectors else np.zeros(0)
    everywhere = np.all([fits for _, fits, _ in tests], axis=0)
    chance = np.where(everywhere, combine([chance for _, _, chance in tests]), 0.0)
    widest = [np.where(fits, chance, 0.0) for wide, fits, chance in tests if wide]
    if widest:
        chance = np.minimum(chance, np.minimum(np.min(widest, axis=0) + np.log(len(widest)), 0.0))
    return np.asarray(chance)
