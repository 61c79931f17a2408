"""DP-FTRL: noise that is correlated over steps and rounds by a banded matrix, in a fixed order, no sampling assumed."""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from defenses.trainers.dp_config import PrivacyConfig

api = 1
version = 1


class Config(PrivacyConfig):
    """``bands``: how many steps the noise is correlated over, at most the steps of a pass over the records, which None
    stands for; 1 makes the noise of steps independent. ``sigma``: the multiplier of the whole run as one release."""

    bands: int | None = Field(None, ge=1, le=100_000)


def build(config: Config) -> Defense:
    from defenses.trainers.dp_ftrl import DPFTRL

    return Defense(trainer=DPFTRL(**config.common(), bands=config.bands))
