"""Silo-level privacy by a trusted server (DP-FedAvg): updates are clipped, the server adds noise to their sum.

McMahan et al. 2018. Promises something to those who see the noisy model (silos, whoever holds the released adapter) and
nothing to the server, which reads every update. One whole silo is protected, not one record. Which silos take part in a
round is public, so no amplification by sampling is claimed. Every silo counts as one, whatever a defense that it is
combined with says of weights; what a later defense makes of the noisy sum is post-processing.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from defenses.transforms.budget import BudgetConfig

api = 1
version = 1


class Config(BudgetConfig):
    """``epsilon``: the whole run's budget for one silo, at ``delta`` (default 1 / (10 n), n the number of silos);
    ``sigma``: the noise multiplier instead. ``clip``: the L2 norm that an update is cut to. The noise is
    ``sigma * clip`` on every value of the sum."""


def build(config: Config) -> Defense:
    from defenses.steps.noise import SumNoise
    from defenses.transforms.clip import Clip

    return Defense(transforms=(Clip(config.clip),), steps=(SumNoise(config.clip, config.budget("dp-fedavg")),))
