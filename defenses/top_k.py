"""Top-k: a silo sends the largest values of its update and keeps the rest for later (error feedback). No promise.

Sparsification with memory (Stich et al. 2018; Karimireddy et al. 2019). It was made to save bytes; that it hides
records is a hope. Which coordinates are sent depends on the silo's records and travels with them: the update is a dense
one with zeros, whose bytes only a compressing channel saves (``top-k+plain``); an encrypting one encrypts zeros like
anything else, and hides which they are. ``fedshield-exact`` shows what a public choice of coordinates saves. With
feedback what is not sent is sent when it has grown: less of it shows in one round, not in all of them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``share``: of the values that is sent. ``per``: whether it is taken of each LoRA tensor or of the whole update
    (then tensors with larger values send more). ``feedback``: whether what is not sent is added to the silo's next
    update, or lost."""

    share: float = Field(0.1, gt=0, le=1)
    per: Literal["tensor", "update"] = "tensor"
    feedback: bool = True


def build(config: Config) -> Defense:
    from defenses.transforms.topk import TopK

    return Defense(transforms=(TopK(config.share, config.per, config.feedback),))
