"""FFA-LoRA (Sun et al. 2024): A stays at its random start, only B is trained and sent; or the two take turns.

The mean of the silos' factors is then exactly the mean of their products B A, and an upload has half the bytes.
"""

from __future__ import annotations

from typing import Literal

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``factors``: ``b`` trains B alone; ``alternate`` B in even rounds, A in odd ones (RoLoRA, Chen et al. 2024)."""

    factors: Literal["b", "alternate"] = "b"


def build(config: Config) -> Defense:
    from defenses.trainers.factor_trainer import FactorTrainer
    from defenses.transforms.trained_factors import TrainedFactors

    return Defense(trainer=FactorTrainer(config.factors), transforms=(TrainedFactors(config.factors),))
