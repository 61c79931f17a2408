"""LoRA dropout: inputs of the adapter are dropped at random while a silo trains, against memorising. No promise.

PEFT's ``lora_dropout`` (Hu et al. 2021 train with it), a regulariser that is often said to reduce memorisation. The
model that is sent, released and measured drops nothing.
"""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``share``: the probability that a value of the adapter's input is zeroed in a step."""

    share: float = Field(0.1, gt=0, lt=1)


def build(config: Config) -> Defense:
    from defenses.trainers.dropout import DropoutTrainer

    return Defense(trainer=DropoutTrainer(config.share))
