"""Options that the defenses with a private trainer share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from bench.privacy import MAX_CALIBRATED_EPSILON
from bench.spec.config import Config

#: what a silo uploads where a round trains some of the LoRA matrices only
Send = Literal["trained", "all"]


class PrivacyConfig(Config):
    """How much noise, and how far a record's gradient may reach.

    ``epsilon``: the whole run's budget per silo, at ``delta`` (None: 1 / (10 n), n the silo's nominal size), from which
    the noise is calibrated. ``sigma``: the noise multiplier itself, instead of an epsilon. ``clip``: the L2 norm that a
    record's gradient is cut to. ``microbatch``: records in memory at once. ``gradients``: who computes gradients of
    single records, the adapter's own maps (``fast``) or Opacus' hooks; like ``microbatch`` it changes no result beyond
    rounding.
    """

    epsilon: float | None = Field(8.0, gt=0, le=MAX_CALIBRATED_EPSILON)
    sigma: float | None = Field(None, gt=0)
    clip: float = Field(1.0, gt=0)
    delta: float | None = Field(None, gt=0, lt=1)
    microbatch: int = Field(8, ge=1)
    gradients: Literal["fast", "opacus"] = "fast"

    @model_validator(mode="before")
    @classmethod
    def _sigma_replaces_the_default_epsilon(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("sigma") is not None and "epsilon" not in values:
            return {**values, "epsilon": None}
        return values

    @model_validator(mode="after")
    def _one_of_the_two(self) -> PrivacyConfig:
        if (self.epsilon is None) == (self.sigma is None):
            raise ValueError("give either epsilon (and its noise is calibrated) or sigma, not both and not neither")
        return self


class SampledConfig(PrivacyConfig):
    """Options of DP-SGD with Poisson sampling. ``clip_quantile``: adapt the clip to this quantile of the records'
    gradient norms (Andrew et al. 2021), starting from ``clip``; None keeps it fixed. ``clip_rate``: how fast it moves.
    ``clip_share``: the share of the budget, in 1/z^2 of the noise multiplier z, that measuring the quantile takes; the
    noise is calibrated with it."""

    clip_quantile: float | None = Field(None, gt=0, lt=1)
    clip_rate: float = Field(0.2, gt=0, le=10)
    clip_share: float = Field(0.1, gt=0, lt=1)
