"""The other end of the scale: everybody shares. The silos send their records to the server, which trains on them all.

What central training gives and costs: no federation is more useful, and the server reads every record. Records travel
in clear as token ids, once; then every round the server trains for as many epochs as a silo would, on all of them, and
sends the model to all. Other silos and whoever gets the released model see what they see of any trained model.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """No options; ``federation.local`` says how the server trains."""


def build(config: Config) -> Defense:
    from defenses.channels.pooling import Pooling

    return Defense(channel=Pooling(), topology="central")
