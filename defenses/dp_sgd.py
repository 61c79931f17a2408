"""Record-level differential privacy: DP-SGD with secret Poisson sampling, epsilon counted over all rounds."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from bench.config import Config as _Config
from bench.defense import Defense
from bench.privacy import MAX_CALIBRATED_EPSILON

api = 1


class Config(_Config):
    """How much noise, and how far a record's gradient may reach.

    ``epsilon``: the whole run's budget per silo, at ``delta`` (None: 1 / (10 n), n the silo's nominal size), from which
    the noise is calibrated. ``sigma``: the noise multiplier itself, instead of an epsilon. ``clip``: the L2 norm that a
    record's gradient is cut to. ``microbatch``: records in memory at once; it changes no result beyond rounding.
    """

    epsilon: float | None = Field(8.0, gt=0, le=MAX_CALIBRATED_EPSILON)
    sigma: float | None = Field(None, gt=0)
    clip: float = Field(1.0, gt=0)
    delta: float | None = Field(None, gt=0, lt=1)
    microbatch: int = Field(8, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _sigma_replaces_the_default_epsilon(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("sigma") is not None and "epsilon" not in values:
            return {**values, "epsilon": None}
        return values

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Config:
        if (self.epsilon is None) == (self.sigma is None):
            raise ValueError("give either epsilon (and its noise is calibrated) or sigma, not both and not neither")
        return self


def build(config: Config) -> Defense:
    from defenses.trainers.dp_sgd import DPSGD

    return Defense(trainer=DPSGD(config.epsilon, config.sigma, config.clip, config.delta, config.microbatch))
