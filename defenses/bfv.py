"""BFV: exact sums of quantised updates, several values to a slot, one key pair for all silos."""

from __future__ import annotations

from typing import Literal

from bench.defense.compose import Defense
from defenses.transforms.quantize import QuantiseConfig

api = 1
version = 1


class Config(QuantiseConfig):
    """The grid that updates are put on where they are not on one already, and who holds the decryption key."""

    key_holder: Literal["silos", "server"] = "silos"


def build(config: Config) -> Defense:
    from defenses.channels.bfv import BFV

    clip = None if config.clip == "auto" else config.clip
    return Defense(channel=BFV(config.bits, clip, config.key_holder))
