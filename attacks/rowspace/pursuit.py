"""Which tokens a change of B is made of, from the entries that survived: simultaneous orthogonal matching pursuit.

Row i of dB is sum_p g_pi (A x_p), over the same few tokens for every row. Where entries are missing, row i says only
that its surviving part lies in the span of the surviving parts of {A x_p}: it binds as soon as it has more survivors
than there are tokens. Tokens are taken greedily, each the one that explains most of what is left over all rows and
projections (simultaneous orthogonal matching pursuit: Tropp, Gilbert and Strauss 2006), each row with its own
coordinates; then those that are not needed are dropped again. A fit counts only if it says more than naming that many
tokens of the vocabulary could by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.algebra import Floats

#: rows of each projection that are used, those with most survivors
ROWS = 192
#: nats by which a fit must beat naming its tokens by chance
MARGIN = 20.0
#: a token's atom counts as independent of those taken while this share of it lies outside their span
INDEPENDENT = 1e-9
#: rounding of float32, as a share of the sum of squares (measured: 1e-15 to 5e-14)
FLOOR = 1e-13
#: sizes, as shares of the largest, at which a path that led nowhere is improved, and the exchanges made there
STARTS, EXCHANGES = (0.3, 0.5, 0.7), 24


@dataclass(frozen=True)
class Projection:
    """``change`` (m, k) with zeros where not ``known`` (m, k). ``atoms``: (n, k) what each candidate would contribute.
    ``deviation``: of the noise on every known entry."""

    change: Floats
    known: NDArray[np.bool_]
    atoms: Floats
    deviation: float = 0.0

    def narrowed(self) -> Projection:
        """The rows that can bind, those with most survivors, normalised to a sum of squares of 1."""
        count = self.known.sum(1)
        rows = np.argsort(-count, kind="stable")[:ROWS]
        rows = rows[count[rows] > 1]
        scale = max(float(np.linalg.norm(self.change[rows])), 1e-300)
        return Projection(self.change[rows] / scale, self.known[rows], self.atoms, self.deviation / scale)


@dataclass(frozen=True)
class Fit:
    """``chosen``: indices of the candidates taken. ``residual``: sum of squares that is left. ``share``: the same over
    what as many atoms at random would leave. ``surplus``: nats by which the fit beats chance."""

    chosen: tuple[int, ...]
    residual: float
    share: float
    surplus: float


#: candidates taken, and the sum of squares that they leave
Step = tuple[tuple[int, ...], float]


def pursue(parts: Sequence[Projection], most: int, vocabulary: int, tolerances: Sequence[float]) -> Fit | None:
    """The smallest set of at most ``most`` candidates that explains the surviving entries, or None where none does
    beyond chance. ``tolerances``: shares of the norm that may be left (besides a grid's noise), the strictest first.

    A greedy path that leads nowhere is begun again from better sets of a few sizes: the least needed is exchanged for
    what explains most without it (orthogonal matching pursuit with replacement: Jain, Tewari and Dhillon 2011).
    """
    parts = [p for p in (one.narrowed() for one in parts) if len(p.change)]
    if not parts:
        return None
    path = _path(parts, most)
    fit = _best(parts, path, vocabulary, tolerances)
    for size in dict.fromkeys(round(most * share) for share in STARTS):
        if fit is None and 1 < size <= len(path):
            fit = _best(parts, _path(parts, most, _exchanged(parts, path[size - 1][0])), vocabulary, tolerances)
    return fit


def _best(
    parts: Sequence[Projection], path: Sequence[Step], vocabulary: int, tolerances: Sequence[float]
) -> Fit | None:
    """The first set on the ``path`` that is small enough, without what it does not need."""
    fits = [_fit(parts, step[0], vocabulary, step[1]) for step in path]
    for tolerance in tolerances:
        for fit in fits:
            if _small(parts, fit, tolerance) and fit.surplus > MARGIN:
                least = _fit(parts, _needed(parts, fit.chosen), vocabulary)
                return max(least, fit, key=lambda f: f.surplus)
    return None


def _exchanged(parts: Sequence[Projection], chosen: Sequence[int]) -> list[int]:
    """``chosen`` after exchanges of the least needed one, until it would come back."""
    kept = list(chosen)
    for _ in range(EXCHANGES):
        least = int(np.argmin(np.sum([_rises(p, kept) for p in parts], axis=0)))
        rest = [c for i, c in enumerate(kept) if i != least]
        left = [_Left(part, rest) for part in parts]
        gain = np.sum([one.gains() for one in left], axis=0)
        gain[rest] = -1.0
        best = int(np.argmax(gain))
        if best == kept[least]:
            break
        kept = [*rest, best]
    return kept


def _small(parts: Sequence[Projection], fit: Fit, tolerance: float) -> bool:
    size = len(fit.chosen)
    return fit.residual <= tolerance**2 * sum(_by_chance(p, size) for p in parts) + _noise(parts, size)


class _Left:
    """What is left of one projection's rows while atoms are taken, each row on its own survivors (Gram-Schmidt).

    An atom's part outside the span of those taken need not be kept: its product with anything in that complement is the
    atom's own.
    """

    def __init__(self, part: Projection, taken: Sequence[int] = ()) -> None:
        self.part = part
        self.rows = part.change * part.known
        self.whole = part.known @ np.square(part.atoms).T  # (m, n)
        self.outside = self.whole.copy()
        self.units: list[Floats] = []
        for candidate in taken:
            self.take(candidate)

    def gains(self) -> Floats:
        """(n,) by how much the sum of squares falls where each candidate is taken next."""
        free = self.outside > INDEPENDENT * self.whole
        along = np.square(self.rows @ self.part.atoms.T)
        return np.asarray(np.where(free, along / np.where(free, self.outside, 1), 0.0).sum(0))

    def take(self, candidate: int) -> None:
        rest = self.part.known * self.part.atoms[candidate]
        for unit in self.units:
            rest = rest - (rest * unit).sum(1)[:, None] * unit
        size = np.square(rest).sum(1)
        free = size > INDEPENDENT * self.whole[:, candidate]
        unit = rest * np.where(free, 1 / np.sqrt(np.where(free, size, 1)), 0.0)[:, None]
        self.units.append(unit)
        self.rows = self.rows - (self.rows * unit).sum(1)[:, None] * unit
        self.outside = self.outside - np.square(unit @ self.part.atoms.T)

    @property
    def residual(self) -> float:
        return float(np.square(self.rows).sum())


def _path(parts: Sequence[Projection], most: int, start: Sequence[int] = ()) -> list[Step]:
    """Candidates taken one by one, after ``start``, until nothing is left but rounding: each set with the sum of
    squares that it leaves."""
    left = [_Left(part, start) for part in parts]
    chosen, rest = tuple(start), sum(one.residual for one in left)
    path: list[Step] = [(chosen, rest)] if start else []
    while len(chosen) < most and rest > FLOOR + _noise(parts, len(chosen)):
        gain = np.sum([one.gains() for one in left], axis=0)
        gain[list(chosen)] = -1.0
        best = int(np.argmax(gain))
        if gain[best] <= 0:
            break
        for one in left:
            one.take(best)
        chosen, rest = (*chosen, best), sum(one.residual for one in left)
        path.append((chosen, rest))
    return path


def _residual(part: Projection, chosen: Sequence[int]) -> float:
    """Sum of squares of what the best combination of ``chosen`` leaves, over the rows that bind."""
    rows = part.known.sum(1) > len(chosen)
    atoms = part.atoms[list(chosen)][None] * part.known[rows][:, None, :]
    basis, values, _ = np.linalg.svd(atoms.transpose(0, 2, 1), full_matrices=False)  # (m, k, n)
    basis = basis * (values > 1e-10 * np.maximum(values[:, :1], 1e-300))[:, None, :]
    along = basis.transpose(0, 2, 1) @ part.change[rows][:, :, None]
    return float(np.square(part.change[rows] - (basis @ along)[:, :, 0]).sum())


def _spare(part: Projection, size: int) -> float:
    """Entries beyond those that ``size`` free coefficients a row fit whatever they are."""
    return float(np.maximum(part.known.sum(1) - size, 0).sum())


def _noise(parts: Sequence[Projection], size: int) -> float:
    """Sum of squares that a grid's noise leaves, three standard deviations above its mean."""
    total = 0.0
    for part in parts:
        spare = _spare(part, size)
        total += part.deviation**2 * (spare + 3 * np.sqrt(2 * spare))
    return total


def _fit(parts: Sequence[Projection], chosen: Sequence[int], vocabulary: int, residual: float | None = None) -> Fit:
    """How far ``chosen`` beat chance: a row of s survivors leaves (s - size) / s of its sum of squares to atoms that it
    has nothing to do with; each spare entry gains half a log of the ratio, and naming the tokens costs their number
    times log(vocabulary)."""
    if residual is None:
        residual = sum(_residual(p, chosen) for p in parts)
    spare = sum(_spare(p, len(chosen)) for p in parts)
    chance = sum(_by_chance(p, len(chosen)) for p in parts)
    share = residual / chance if chance > 0 else 1.0
    gain = 0.5 * spare * -np.log(max(share, FLOOR))
    return Fit(tuple(chosen), residual, share, float(gain - len(chosen) * np.log(vocabulary)))


def _by_chance(part: Projection, size: int) -> float:
    """Sum of squares that ``size`` atoms at random are expected to leave."""
    count = part.known.sum(1)
    return float((np.square(part.change).sum(1) * np.maximum(count - size, 0) / np.maximum(count, 1)).sum())


def _needed(parts: Sequence[Projection], chosen: Sequence[int]) -> list[int]:
    """``chosen`` without those whose removal leaves no more than noise, the least needed first."""
    kept = list(chosen)
    while len(kept) > 1:
        base = sum(_residual(p, kept) for p in parts)
        rise = np.sum([_rises(p, kept) for p in parts], axis=0)
        least = int(np.argmin(rise))
        if base + rise[least] > 3 * base + FLOOR + max(0.0, _noise(parts, len(kept) - 1) - base):
            break
        kept.pop(least)
    return kept


def _rises(part: Projection, chosen: Sequence[int]) -> Floats:
    """(len(chosen),) by how much the residual rises without each of them, over the rows that bind: with G the Gram
    matrix of the atoms and c their coefficients, c_j^2 / (G^-1)_jj."""
    rows = part.known.sum(1) > len(chosen)
    if not rows.any():
        return np.zeros(len(chosen))
    atoms = part.atoms[list(chosen)][None] * part.known[rows][:, None, :]
    gram = atoms @ atoms.transpose(0, 2, 1)
    size = np.trace(gram, axis1=1, axis2=2)[:, None, None]
    inverse = np.linalg.inv(gram + 1e-15 * size * np.eye(len(chosen)))
    coefficients = (inverse @ (atoms @ part.change[rows][:, :, None]))[:, :, 0]
    return np.asarray((np.square(coefficients) / np.diagonal(inverse, axis1=1, axis2=2)).sum(0))
