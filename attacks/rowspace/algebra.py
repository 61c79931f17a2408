"""Linear algebra of a LoRA update: which inputs can have produced it. NumPy only.

A projection with LoRA computes y = W x + s B A x, so one gradient step moves B by G^T (X A^T), a sum over token
positions: every row of the change of B lies in the span of {A x_p}, p over the positions that carry gradient. An input
x whose A x lies in that row space was very likely there; one outside it was certainly not. (The change of A is
B^T (G^T X): its rows lie in the span of {x_p}, and it is zero while B is.) Below: the row space of a change, how far
vectors lie from it, and how probable so small a distance is for a vector that was not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: singular values below this share of the largest are float32 rounding (measured: 1e-7 to 2e-8 of it); a token whose
#: successor was nearly certain leaves as little as 1e-6
ROUNDING = 2e-7
#: shares tried in turn for the rank: rounding, rounding that some layers amplify, and what several small steps blur
TOLERANCES = (ROUNDING, 3e-6, 3e-5, 3e-4, 3e-3)
#: up to here a rank speaks of one step and of rounding alone
EXACT = 3e-6
#: no residual is taken for smaller than this: below it float32 inputs do not tell vectors apart
RESOLUTION = 1e-6


@dataclass(frozen=True)
class Whitening:
    """A linear map (k, k) after which vectors that were not in the batch point in all directions alike.

    Row spaces map along: rows of G^T Y become rows of G^T (Y W). ``matrix`` is W, with E[(y W)^T (y W)] = I.
    """

    matrix: Floats

    @classmethod
    def of(cls, moment: Floats, ridge: float = 1e-9) -> Whitening:
        """From the second moment (k, k) of such vectors about zero; adds ``ridge`` x largest eigenvalue."""
        values, vectors = np.linalg.eigh(moment)
        top = max(float(values[-1]), np.finfo(float).tiny)
        return cls(vectors / np.sqrt(np.maximum(values, 0) + ridge * top))


@dataclass(frozen=True)
class RowSpace:
    """``basis``: (rank, k) orthonormal rows, strongest first. ``values``: all singular values, descending."""

    basis: Floats
    values: Floats

    @property
    def rank(self) -> int:
        return len(self.basis)

    @property
    def width(self) -> int:
        """k, the dimension of the space that the row space lies in."""
        return int(self.basis.shape[1])

    def mapped(self, matrix: Floats) -> RowSpace:
        """The image of this row space under y -> y ``matrix`` (k, k), invertible."""
        return RowSpace(np.linalg.qr((self.basis @ matrix).T)[0].T, self.values)

    @property
    def reach(self) -> float:
        """How far from the row space a vector that was there may lie: ten times the noise (the largest singular value
        that was dropped, or rounding) over the weakest direction kept, within [1e-5, 0.03]. Sine of an angle."""
        noise = max(
            float(self.values[self.rank]) if self.rank < len(self.values) else 0.0, 6e-8 * float(self.values[0])
        )
        return float(np.clip(10 * noise / float(self.values[self.rank - 1]), 1e-5, 0.03))

    @property
    def full(self) -> bool:
        """True where every vector fits, so that nothing can be told."""
        return self.rank >= self.width


def row_space(change: Floats, noise: float, tolerance: float = ROUNDING) -> RowSpace:
    """The row space of ``change`` (m, k): singular values above ``tolerance`` times the largest and above ``noise``."""
    _, values, basis = np.linalg.svd(change, full_matrices=False)
    top = float(values[0]) if len(values) else 0.0
    rank = int((values > max(tolerance * top, noise)).sum()) if top > 0 else 0
    return RowSpace(basis[:rank], values)


def storage_noise(after: Floats, change: Floats) -> float:
    """Largest singular value that rounding ``after`` to float32 can be expected to put into ``change`` (m, k).

    Rounding errors are uniform in half a unit in the last place; an m x k matrix of independent errors with standard
    deviation e has largest singular value about e (sqrt m + sqrt k). Doubled for safety. 0 where the tensor began at
    zero: then the change is what was stored, to relative precision.
    """
    if np.array_equal(after, change):
        return 0.0
    spacing = np.spacing(np.abs(after).astype(np.float32)).astype(np.float64)
    error = float(np.sqrt(np.mean(np.square(spacing))))
    return float(2 * error / np.sqrt(12) * np.sum(np.sqrt(change.shape)))


def combine(log_chances: Sequence[Floats]) -> Floats:
    """Log-probability of n independent log-chances (each (m,)) having so small a product, or smaller.

    Fisher 1932: -2 sum ln p is chi-square with 2n degrees of freedom, so with x = -sum ln p the tail is
    e^-x sum_{i<n} x^i / i!. Zeros (no information) where none are given is the caller's case.
    """
    x = -np.sum(log_chances, axis=0)
    terms = np.ones_like(x)
    for i in range(len(log_chances) - 1, 0, -1):  # Horner: 1 + x/1 (1 + x/2 (1 + ...))
        terms = 1 + x / i * terms
    return np.asarray(np.log(terms) - x)


def residuals(space: RowSpace, vectors: Floats) -> Floats:
    """(n,) sine of the angle between each of ``vectors`` (n, k) and the row space; 0 for the zero vector."""
    norms = np.linalg.norm(vectors, axis=1)
    outside = np.linalg.norm(vectors - (vectors @ space.basis.T) @ space.basis, axis=1)
    return np.asarray(np.divide(outside, norms, out=np.zeros_like(norms), where=norms > 0))


def log_chance(residual: Floats, space: RowSpace) -> Floats:
    """Log-probability that a vector of random direction lies as close to the row space, or closer.

    The squared sine between a random direction in k dimensions and a subspace of dimension d is Beta((k-d)/2, d/2)
    (the ratio of two chi-squares). 0 (certain) where the row space is full or empty: no information.
    """
    if space.full or space.rank == 0:
        return np.zeros(len(residual))
    from scipy.special import betainc, betaln

    a, b = (space.width - space.rank) / 2, space.rank / 2
    square = np.square(np.clip(residual, RESOLUTION, 1.0))
    # The first term of the distribution function, x^a (1-x)^b / (a B(a, b)), serves where x is small: no underflow.
    tail = a * np.log(square) + b * np.log1p(-np.minimum(square, 0.5)) - np.log(a) - betaln(a, b)
    body = betainc(a, b, square)
    small = (square < 1e-4) | (body < 1e-250)
    return np.asarray(np.where(small, np.minimum(tail, 0.0), np.log(np.maximum(body, 1e-250))))


def direction_evidence(change: Floats, vectors: Floats) -> Floats:
    """(n,) log-likelihood ratio that a vector's direction is one of those that ``change`` (m, k) is made of.

    For use where the row space is full. Directions that were there scatter like C = (change^T change)^(1/2), others
    alike in all directions; for the angular central Gaussian distribution (Tyler 1987) the ratio is
    -(log det C)/2 - (k/2) log(u^T C^-1 u). The square root tempers the few positions with large gradients.
    """
    _, values, basis = np.linalg.svd(change, full_matrices=False)
    k = change.shape[1]
    if len(values) < k or values[-1] <= ROUNDING * values[0]:
        return np.zeros(len(vectors))
    scale = values / np.exp(np.mean(np.log(values)))  # determinant 1
    parts = np.square(vectors @ basis.T)
    total = np.maximum(parts.sum(axis=1), np.finfo(float).tiny)
    ratio = (parts / scale).sum(axis=1) / total
    return np.asarray(-k / 2 * np.log(np.maximum(ratio, np.finfo(float).tiny)))
