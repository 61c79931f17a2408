"""FedAdam (Reddi et al. 2021): the opener of the sum takes Adam's steps with the rounds' mean changes as gradients."""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``lr``: the server's learning rate; ``b1``, ``b2``: decay of the moments; ``tau``: degree of adaptivity (the
    smaller the more); ``weighted``: by nominal size, or as the defense that it is combined with has it."""

    lr: float = Field(1e-2, gt=0, le=100)
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.99, ge=0, lt=1)
    tau: float = Field(1e-3, gt=0)
    weighted: bool = True


def build(config: Config) -> Defense:
    from bench.defense.defaults.mean import Mean
    from defenses.steps.optimisers import Adam

    step = Adam(config.lr, config.b1, config.b2, config.tau)
    return Defense(aggregator=None if config.weighted else Mean(weighted=False), steps=(step,))
