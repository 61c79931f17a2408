"""Gaussian noise on every update, without clipping: no promise of privacy, and no epsilon.

What papers call "adding noise for privacy" where nothing bounds how far one record can move an update. Differential
privacy needs that bound (``dp-sgd``); here there is none, so nothing is claimed, whatever the noise. For comparison at
equal utility with mechanisms that do promise something.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``sd``: standard deviation of the noise on every value of a silo's update. ``of``: the unit that it is counted
    in: ``step``, learning rate times a round's steps, about the most that AdamW moves a value by; ``value``, the
    adapter's own."""

    sd: float = Field(0.1, gt=0, le=1e6)
    of: Literal["step", "value"] = "step"


def build(config: Config) -> Defense:
    from defenses.transforms.noise import UpdateNoise

    return Defense(transforms=(UpdateNoise(config.sd, config.of),))
