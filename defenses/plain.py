"""Updates in clear, compressed: plain federated averaging with zstd on every message of the channel."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``compress``: whether frames are put under zstd, losslessly; without it this is ``fedavg``. ``level``: zstd's.
    ``opener``: whether the server applies the sum and sends the result, or sends the sum to the silos, who apply it."""

    compress: bool = True
    level: int = Field(3, ge=1, le=19)
    opener: Literal["server", "silos"] = "server"


def build(config: Config) -> Defense:
    if not config.compress:
        from bench.defense.defaults.plain import PlainChannel

        return Defense(channel=PlainChannel(config.opener))
    from defenses.channels.compressed import CompressedChannel

    return Defense(channel=CompressedChannel(config.level, config.opener))
