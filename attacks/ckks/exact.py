"""The exact integers behind slots that are published up to a rounding error.

Published values give the real parts y = C x + e of a plaintext (``slots``), e_k independent with known deviations s_k.
Inverting C spreads the errors evenly, so every x_i is known up to the same deviation d = sqrt(2/n) rms(s). Where d is
small (under .12), rounding gives all n integers. Beyond, those nearest to an integer are fixed, as many as leave less
than one error in ``RISK`` runs; the others follow by weighted least squares from what is left of y, where the slots of
small values, which are rounded most finely, now suffice. That reaches d of about .2 where value sizes vary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.ckks.slots import Float, Integers, Slots
from bench.core.errors import CannotOpen

#: expected number of wrongly fixed integers that a step may leave
RISK = 0.01
#: beyond this deviation no integer is told from its neighbours
REACH = 0.25
#: what double precision leaves of a slot's value at the least, times the scale
FLOOR = 0.05
_MAX_OPEN = 3000
_STEPS = 6
#: mean square of (x - nearest integer) below which the x are no uniform noise, for which it is 1/12 = .0833 with a
#: deviation of .0745 / sqrt(n), .0023 at n = 1024
_TELLING = 0.065


def deviation(errors: Float) -> float:
    """d, from the deviations s_k of all slots (times the scale)."""
    return float(np.sqrt(2.0 * np.mean(np.square(errors)) / len(errors)))


def looks_whole(slots: Slots, values: Float) -> bool:
    """Whether ``values`` (times the scale, by slot) are those of integers up to a small error."""
    x = slots.solve(slots.by_angle(values))
    return bool(np.mean(np.square(x - np.rint(x))) < _TELLING)


def integers(slots: Slots, values: Float, errors: Float) -> Integers:
    """x from ``values`` of deviations ``errors``, both times the scale and by slot. Raises CannotOpen."""
    y, s = slots.by_angle(values), np.maximum(slots.by_angle(errors), FLOOR)
    estimate = slots.solve(y)
    spread = np.full(slots.count, deviation(s))
    if spread[0] > REACH or not np.abs(estimate).max() < 2.0**61:
        raise CannotOpen(f"a sum is known to {spread[0]:.3g} units only")
    x, open_ = np.rint(estimate), np.ones(slots.count, dtype=np.bool_)
    weights = 1.0 / np.square(s)
    for _ in range(_STEPS):
        _fix(open_, estimate, spread)
        x = np.where(open_, x, np.rint(estimate))
        left = np.flatnonzero(open_)
        if not len(left):
            _check(slots, x, y, s)
            return x.astype(np.int64)
        if len(left) > _MAX_OPEN:
            break
        estimate, spread = _refined(slots, x, y, weights, left, estimate, spread)
    raise CannotOpen(f"of a sum that is known to {deviation(s):.3g} units not all integers can be told")


def _fix(open_: NDArray[np.bool_], estimate: Float, spread: Float) -> None:
    """Close what is nearest to an integer, as many as expect fewer than ``RISK`` errors together."""
    left = np.flatnonzero(open_)
    off = np.abs(estimate[left] - np.rint(estimate[left]))
    # odds of the next integer against the nearest, under a normal error
    wrong = np.exp(-(1 - 2 * off) / (2 * np.square(spread[left])))
    order = np.argsort(wrong)
    close = order[np.cumsum(wrong[order]) <= RISK]
    open_[left[close]] = False


def _refined(
    slots: Slots, x: Float, y: Float, weights: Float, left: NDArray[np.int64], estimate: Float, spread: Float
) -> tuple[Float, Float]:
    """Weighted least squares for the x that are still open, given the others."""
    from scipy.linalg import cho_factor, cho_solve

    fixed = x.copy()
    fixed[left] = 0
    rest = y - slots.values(fixed)
    n = slots.count
    # sum_k w_k cos(m theta_k), for m up to 2n by symmetry about n
    half = slots.projected(weights)
    cosines = np.concatenate([half, [0.0], -half[:0:-1]])
    gram = (cosines[np.abs(left[:, None] - left[None])] + cosines[left[:, None] + left[None]]) / 2
    try:
        factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(left)), overwrite_b=True, check_finite=False)
    except np.linalg.LinAlgError:
        raise CannotOpen(f"the open integers of a sum of {n} are not determined") from None
    estimate, spread = estimate.copy(), spread.copy()
    estimate[left] = inverse @ slots.projected(weights * rest)[left]
    spread[left] = np.sqrt(np.maximum(np.diag(inverse), 0.0)) + 1e-9
    return estimate, spread


def _check(slots: Slots, x: Float, y: Float, s: Float) -> None:
    """What is left must be rounding errors of the stated sizes: their mean square is 1, with room for a few."""
    ratio = float(np.mean(np.square((y - slots.values(x)) / s)))
    if ratio > 1.5:
        raise CannotOpen("integers were found that do not explain what was published")
