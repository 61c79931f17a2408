"""Figures of candidates against those of the population, which nobody trained on: z-scores given a record's difficulty.

A record that is hard, or long, moves otherwise than an easy one in training, whether it is a member or not. What a
non-member of that difficulty would show is a linear regression over population records; a candidate's z-score is how
far it lies above it, in standard deviations of the regression's residuals (difficulty calibration, Watson et al. 2022,
"On the importance of difficulty calibration in membership inference attacks", with the population for reference).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: population records under which a regression would mostly fit noise
FEWEST = 12


def z_scores(values: Floats, reference: Floats, difficulty: Floats, reference_difficulty: Floats) -> Floats:
    """(n,) z-scores of ``values`` (n,) against ``reference`` (p,) of non-members, given ``difficulty`` (n,) and (p,).

    With fewer than ``FEWEST`` population records there is no regression: the candidates' own median and interquartile
    range are taken, which members shift. Where the reference does not vary the units of ``values`` are kept.
    """
    if len(reference) < FEWEST:
        return robust(values)
    design = np.column_stack([np.ones(len(reference)), reference_difficulty])
    fit, *_ = np.linalg.lstsq(design, reference, rcond=None)
    residuals = reference - design @ fit
    spread = float(np.sqrt(np.square(residuals).sum() / (len(reference) - 2)))
    if spread <= 1e-12 * max(1.0, float(np.abs(reference).max())):
        spread = 1.0
    found: Floats = (values - fit[0] - fit[1] * difficulty) / spread
    return found


def robust(values: Floats) -> Floats:
    """(n,) ``values`` less their median, over their interquartile range in normal units; zeros where that is zero."""
    if not len(values):
        return np.zeros(0)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    spread = (high - low) / 1.349
    found: Floats = (values - middle) / spread if spread > 0 else np.zeros(len(values))
    return found
