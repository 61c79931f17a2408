"""Silo-level privacy by shares of integer noise (Skellam) that add up in a secure sum; compose with secagg or rlwe.

Agarwal, Kairouz and Liu 2021; rounding after Kairouz, Liu and Steinke 2021. Updates are clipped, rounded to integers
within a stated norm, and every silo adds its share. What an adversary meets is the noise of those honest silos whose
shares are in everything that it reads: all of them in a secure sum, one share where it reads single uploads, as in
``plain``. No random rotation is used, and nothing wraps: integers get the bits that the largest sum needs.
"""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from defenses.transforms.budget import BudgetConfig

api = 1
version = 1


class Config(BudgetConfig):
    """``epsilon``: the whole run's budget for one silo, at ``delta`` (default 1 / (10 n), n the number of silos);
    ``sigma``: the noise multiplier instead; both are meant for the sum of a round's shares. ``clip``: the L2 norm that
    an update is cut to.

    ``scale``: grid steps in a value of typical size, clip / sqrt(number of values): finer costs bits, coarser noise
    (rounding lengthens the longest update by about 1 / (8 scale^2)). ``missing``: without how many silos' shares the
    budget is kept: of those that drop out, and of those that tell others theirs.
    """

    scale: float = Field(4.0, ge=0.25, le=4096)
    missing: int = Field(0, ge=0, le=10_000)


def build(config: Config) -> Defense:
    from bench.defense.defaults.mean import Mean
    from defenses.transforms.bounded_rounding import BoundedRounding
    from defenses.transforms.clip import Clip
    from defenses.transforms.integer_noise import SkellamNoise

    noise = SkellamNoise(config.budget("distributed-dp"), config.missing)
    return Defense(
        transforms=(Clip(config.clip), BoundedRounding(config.scale), noise), aggregator=Mean(weighted=False)
    )
