"""FedAvgM (Hsu et al. 2019): the opener of the sum adds momentum to the rounds' mean changes."""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``lr``: the server's learning rate; ``beta``: how much of the momentum stays; ``weighted``: by nominal size, or
    as the defense that it is combined with has it."""

    lr: float = Field(1.0, gt=0, le=100)
    beta: float = Field(0.5, ge=0, lt=1)
    weighted: bool = True


def build(config: Config) -> Defense:
    from bench.defense.defaults.mean import Mean
    from defenses.steps.optimisers import Momentum

    step = Momentum(config.lr, config.beta)
    return Defense(aggregator=None if config.weighted else Mean(weighted=False), steps=(step,))
