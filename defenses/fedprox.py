"""FedProx (Li et al. 2020): silos are held near the global adapter while they train; averaging is plain."""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``mu``: weight of the squared distance from the global adapter (the paper tries .001 to 1)."""

    mu: float = Field(0.1, ge=0, le=1e6)


def build(config: Config) -> Defense:
    from defenses.trainers.prox import ProximalTrainer

    return Defense(trainer=ProximalTrainer(config.mu))
