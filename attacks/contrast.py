"""What sums with and without a silo's part tell, as pure functions of arrays.

A *step* leads from one known model to a later one; its *drop* for a record is the loss before less the loss after, in
nats per token. With s_k the victim's share in what the step's rounds averaged, summed over them, and r_k the share of
all others, a record's drops D_k follow

    D_k = a s_k + b r_k + noise

where a is the effect of a round of the victim alone and b that of a round of others alone. a - b is the *contrast*,
by least squares over the steps; for steps of one round in which the victim has the share s or none at all, that is the
mean drop with it less the mean drop without, over s. It is the linear system of gradient disaggregation (Lam et al.
2021, "Gradient disaggregation: breaking privacy in federated learning by reconstructing the user participant matrix":
sums = participation x updates) with all others as one column and losses in place of updates; it holds as far as effects
add up and are alike from round to round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: population records for each fitted coefficient
PER_COEFFICIENT = 10
#: smallest population that an adjustment is fitted on: constant, base loss and one drop
LEAST = 3 * PER_COEFFICIENT


@dataclass(frozen=True)
class Design:
    """The shares of the victim, and of all others, in each step, summed over its rounds; both (steps,), at least 0."""

    victim: Floats
    others: Floats

    @property
    def contrasting(self) -> bool:
        """Whether the two effects can be told apart."""
        return bool(np.linalg.matrix_rank(self._columns(), tol=1e-9) == 2)

    def _columns(self) -> Floats:
        return np.stack([self.victim, self.others], axis=1)

    def drop(self, drops: Floats) -> Floats:
        """(n,) from (steps, n): the mean drop of the steps with the victim's part; 0 where there is none."""
        used = self.victim > 0
        mean: Floats = drops[used].mean(axis=0) if used.any() else np.zeros(drops.shape[1])
        return mean

    def contrast(self, drops: Floats) -> Floats:
        """(n,) a - b from (steps, n). Raises ValueError where the steps do not tell a from b."""
        if not self.contrasting:
            raise ValueError("every step has the victim's part in the same share")
        effects = np.linalg.lstsq(self._columns(), drops, rcond=None)[0]
        found: Floats = effects[0] - effects[1]
        return found


def adjusted(drops: Floats, base: Floats, others: Floats, others_base: Floats, design: Design) -> Floats:
    """(n,) how far a record's drops with the victim's part exceed what its other drops and its base loss foretell.

    ``drops`` (steps, n) and ``base`` (n,) of the candidates; ``others`` (steps, m) and ``others_base`` (m,) of
    population records, none of which was trained on. For each step with the victim's part, the population's drops are
    regressed on a constant, the base loss and the drops of the steps without it (their mean where m is below 10 per
    coefficient). The candidates' residuals z_k, in standard deviations of the population's, are summed as a matched
    filter does, sum s_k z_k / sqrt(sum s_k^2): analysis of covariance (Fisher 1932) with the population as control
    group. 0 where there is no such step. Raises ValueError below ``LEAST`` population records.
    """
    m = others.shape[1]
    if m < LEAST:
        raise ValueError(f"an adjustment needs {LEAST} population records, not {m}")
    used = design.victim > 0
    known, taught = drops[~used], others[~used]
    if PER_COEFFICIENT * (2 + len(known)) > m:
        known, taught = known.mean(axis=0, keepdims=True), taught.mean(axis=0, keepdims=True)
    z = np.column_stack([np.ones(drops.shape[1]), base, *known])
    x = np.column_stack([np.ones(m), others_base, *taught])
    total = np.zeros(drops.shape[1])
    for k in np.flatnonzero(used):
        total += design.victim[k] * _residual(z, drops[k], x, others[k])
    return total / max(float(np.linalg.norm(design.victim)), 1e-12)


def _residual(z: Floats, values: Floats, x: Floats, taught: Floats) -> Floats:
    """``values`` less their prediction from ``z``, in units of the fit's own residual deviation."""
    fit = np.linalg.lstsq(x, taught, rcond=None)[0]
    spread = float(np.sqrt(np.sum(np.square(taught - x @ fit)) / (len(taught) - x.shape[1])))
    residual: Floats = (values - z @ fit) / max(spread, 1e-9)
    return residual
