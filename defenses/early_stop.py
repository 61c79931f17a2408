"""Early stopping: a silo trains until the loss on records that it holds back rises. No promise.

Overfitting is what membership attacks feed on (Yeom et al. 2018), so training less is the simplest defense there is.
A silo holds back some of its own records, drawn at random once, and sends the adapter that did best on them; it sees
nobody else's. Records held back are never trained on, which alone protects them; how long a silo trains depends on its
records, and shows in its update.
"""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``share``: of a silo's records that is held back. ``every``: steps between two looks at their loss.
    ``patience``: how many looks in a row without a new lowest loss end the round."""

    share: float = Field(0.2, gt=0, lt=1)
    every: int = Field(2, ge=1, le=100_000)
    patience: int = Field(2, ge=1, le=1000)


def build(config: Config) -> Defense:
    from defenses.trainers.early_stop import EarlyStopTrainer

    return Defense(trainer=EarlyStopTrainer(config.share, config.every, config.patience))
