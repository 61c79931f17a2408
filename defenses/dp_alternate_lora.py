"""DP-SGD on one LoRA matrix at a time: B in even rounds, A in odd ones (as RoLoRA alternates, Chen et al. 2024).

Each round is linear in what it trains, as with FFA-LoRA, but A is not left at random. Epsilon counts all rounds.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from defenses.trainers.dp_config import SampledConfig, Send

api = 1
version = 1


class Config(SampledConfig):
    """Options of dp-sgd, and ``send``: ``trained`` uploads the round's matrices alone, ``all`` the whole adapter."""

    send: Send = "trained"


def build(config: Config) -> Defense:
    from defenses.transforms.trained_factors import TrainedFactors

    transforms = (TrainedFactors("alternate"),) if config.send == "trained" else ()
    return Defense(trainer=config.trainer("dp-alternate-lora", "alternate"), transforms=transforms)
