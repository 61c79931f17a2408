"""Magnitude pruning in clear: FedShield's pruning of LoRA weights and its unweighted mean, without encryption."""

from __future__ import annotations

from typing import Literal

from bench.defense.compose import Defense
from bench.defense.defaults.mean import Mean
from defenses.transforms.prune import MagnitudePruning, PruneConfig

api = 1
version = 1


class Config(PruneConfig):
    """The schedule, and what is pruned: the LoRA weights that a silo would upload, or only their change."""

    of: Literal["weights", "delta"] = "weights"


def build(config: Config) -> Defense:
    return Defense(
        transforms=(MagnitudePruning(config.schedule(), config.of),),
        aggregator=Mean(weighted=False, of=config.of),
    )
