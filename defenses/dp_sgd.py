"""Record-level differential privacy: DP-SGD with secret Poisson sampling, epsilon counted over all rounds."""

from __future__ import annotations

from bench.defense.compose import Defense
from defenses.trainers.dp_config import SampledConfig

api = 1
version = 1


class Config(SampledConfig):
    """Budget, clipping and who computes the gradients of single records."""


def build(config: Config) -> Defense:
    return Defense(trainer=config.trainer("dp-sgd"))
