"""Quantisation in clear: every value of a summand on a grid of a few bits, rounded stochastically."""

from __future__ import annotations

from bench.defense.compose import Defense
from defenses.transforms.quantize import QuantiseConfig

api = 1
version = 1


class Config(QuantiseConfig):
    """Bits and clip; the channel sums the integers as they are."""


def build(config: Config) -> Defense:
    return Defense(transforms=(config.quantiser(),))
