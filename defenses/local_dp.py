"""Silo-level privacy without trust: every silo clips its own update and adds Gaussian noise before it sends it.

Promises the same to everybody but the silo itself, server included. A small epsilon takes noise far above the update:
the mean over n silos still has 1/sqrt(n) of it, sqrt(n) times what a trusted server (dp-fedavg) or noise added jointly
(distributed-dp) would need.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from defenses.transforms.budget import BudgetConfig

api = 1
version = 1


class Config(BudgetConfig):
    """``epsilon``: the whole run's budget for one silo, at ``delta`` (default 1 / (10 n), n the number of silos);
    ``sigma``: the noise multiplier instead. ``clip``: the L2 norm that an update is cut to. The noise is
    ``sigma * clip`` on every value of every update."""


def build(config: Config) -> Defense:
    from defenses.transforms.clip import Clip
    from defenses.transforms.local_noise import LocalGaussian

    return Defense(transforms=(Clip(config.clip), LocalGaussian(config.budget("local-dp"))))
