"""One end of the scale: nobody talks. Every silo trains on its own records alone, and keeps its model to itself."""

from __future__ import annotations

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """No options. Utility is the mean over the silos' own models; no adversary receives anything."""


def build(config: Config) -> Defense:
    from defenses.aggregators.shared import SharedFactor
    from defenses.channels.silent import Silent

    return Defense(channel=Silent(), aggregator=SharedFactor(None))
