"""Goldfish loss (Hans et al. 2024): a fixed quarter of the tokens is never trained on, by a hash. No promise.

Made against verbatim extraction; the authors themselves found that membership is still inferred under it, since the
other tokens are trained on as before.
"""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``k``: one token in k is dropped. ``context``: how many tokens before one are hashed (h in the paper); those with
    fewer before them are all trained on, as published, or, with ``early``, hashed with what they have. Where records
    have 48 tokens, as in the presets, a context of 13 leaves over a quarter of them untouched."""

    k: int = Field(4, ge=2, le=1000)
    context: int = Field(13, ge=1, le=1000)
    early: bool = False


def build(config: Config) -> Defense:
    from defenses.trainers.goldfish import GoldfishTrainer

    return Defense(trainer=GoldfishTrainer(config.k, config.context, config.early))
