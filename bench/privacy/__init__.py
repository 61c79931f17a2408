"""The accountant: from what privacy mechanisms really did to epsilon, per adversary.

``kinds``: the mechanisms that it knows, each as Gaussian releases. ``accountant``: epsilon of such releases, and the
noise for an epsilon. ``losses``: the distributions that it composes. ``banded``: the sensitivity of noise that is
correlated over steps. ``skellam``: integer noise. ``shares``: what of the noise in a sum protects one silo from one
adversary. ``claims``: promises to whom.
"""

from __future__ import annotations

from bench.privacy.accountant import MAX_CALIBRATED_EPSILON, Composition, calibrate, default_delta, epsilon, epsilon_rdp
from bench.privacy.claims import claim, worst
from bench.privacy.kinds import Refused, composition
from bench.privacy.shares import Exposure, Row, Sum
from bench.privacy.skellam import Skellam, calibrate_skellam, epsilon_skellam

__all__ = [
    "MAX_CALIBRATED_EPSILON",
    "Composition",
    "Exposure",
    "Refused",
    "Row",
    "Skellam",
    "Sum",
    "calibrate",
    "calibrate_skellam",
    "claim",
    "composition",
    "default_delta",
    "epsilon",
    "epsilon_rdp",
    "epsilon_skellam",
    "worst",
]
