"""FedSA-LoRA (Guo et al. 2024): the silos share A, which learns what is general, and keep B to themselves.

The paper is "Selective Aggregation for Low-Rank Adaptation in Federated Learning". Every silo ends with a model of its
own, and utility is their mean. What is sent and released is A alone, beside a B of zeros: the released adapter is the
base model's equal, and an attack that only evaluates it finds nothing. What the changes of A give away is another
question, which attacks on updates ask.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``weighted``: by nominal size, else every silo counts as one."""

    weighted: bool = True


def build(config: Config) -> Defense:
    from defenses.aggregators.shared import SharedFactor

    return Defense(aggregator=SharedFactor("lora_A", config.weighted))
