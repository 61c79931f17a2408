"""Signs: a silo sends the sign of each value, at one magnitude per tensor or as a vote of two bits. No promise.

``feedback`` is EF-signSGD (Karimireddy et al. 2019): sign times the tensor's mean magnitude, and what that leaves out
is added to the silo's next update. ``scaled`` is the same without memory. Both are real values, since the magnitude is
the silo's own, and cost what floats cost unless a channel compresses them. ``votes`` (signSGD, Bernstein et al. 2018)
sends the signs alone at a public step: integers of two bits, which any channel of integers takes, summed to a vote.
What signs alone show of the records is not hidden.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``mode``: as above. ``step`` (of ``votes`` only): what a vote of all silos moves a value by, as a share of the
    round's public reach (learning rate times steps for AdamW)."""

    mode: Literal["feedback", "scaled", "votes"] = "feedback"
    step: float = Field(0.15, gt=0, le=1)


def build(config: Config) -> Defense:
    from bench.defense.defaults.mean import Mean
    from defenses.transforms.sign import ScaledSign, Votes

    if config.mode == "votes":
        # a silo's weight is lost with the magnitudes, so each counts as one
        return Defense(transforms=(Votes(config.step),), aggregator=Mean(weighted=False))
    return Defense(transforms=(ScaledSign(config.mode == "feedback"),))
