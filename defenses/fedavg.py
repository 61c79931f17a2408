"""Plain federated averaging (McMahan et al. 2017): AdamW on LoRA, updates in clear, mean weighted by size."""

from __future__ import annotations

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """FedAvg has no options of its own; ``federation.*`` says how silos train."""


def build(config: Config) -> Defense:
    """Every part is the plain default."""
    return Defense()
