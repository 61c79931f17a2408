"""Plain federated averaging (McMahan et al. 2017): AdamW on LoRA, updates in clear, mean weighted by size."""

from __future__ import annotations

from bench.config import Config as _Config
from bench.defense import Defense

api = 1


class Config(_Config):
    """FedAvg has no options of its own; ``federation.*`` says how silos train."""


def build(config: Config) -> Defense:
    """Every part is the plain default."""
    return Defense()
