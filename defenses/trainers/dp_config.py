"""Options that the defenses with a private trainer share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from defenses.transforms.budget import NoiseConfig

if TYPE_CHECKING:
    from defenses.trainers.dp_sgd import DPSGD
    from defenses.trainers.factors import Factors

#: what a silo uploads where a round trains some of the LoRA matrices only
Send = Literal["trained", "all"]


class PrivacyConfig(NoiseConfig):
    """How much noise, and how far a record's gradient may reach.

    ``epsilon``: the whole run's budget per silo, at ``delta`` (None: 1 / (10 n), n the silo's nominal size), from which
    the noise is calibrated. ``sigma``: the noise multiplier itself, instead of an epsilon. ``clip``: the L2 norm that a
    record's gradient is cut to. ``microbatch``: records in memory at once. ``gradients``: who computes gradients of
    single records, the adapter's own maps (``fast``) or Opacus' hooks; like ``microbatch`` it changes no result beyond
    rounding.
    """

    microbatch: int = Field(8, ge=1)
    gradients: Literal["fast", "opacus"] = "fast"

    def common(self) -> dict[str, Any]:
        """The options that every private trainer has, by name."""
        return {name: getattr(self, name) for name in PrivacyConfig.model_fields}


class SampledConfig(PrivacyConfig):
    """Options of DP-SGD with Poisson sampling. ``clip_quantile``: adapt the clip to this quantile of the records'
    gradient norms (Andrew et al. 2021), starting from ``clip``; None keeps it fixed. ``clip_rate``: how fast it moves.
    ``clip_share``: the share of the budget, in 1/z^2 of the noise multiplier z, that measuring the quantile takes; the
    noise is calibrated with it."""

    clip_quantile: float | None = Field(None, gt=0, lt=1)
    clip_rate: float = Field(0.2, gt=0, le=10)
    clip_share: float = Field(0.1, gt=0, lt=1)

    def trainer(self, name: str, factors: Factors = "both") -> DPSGD:
        """DP-SGD for a defense of that name."""
        from defenses.trainers.dp_sgd import DPSGD, Quantile

        quantile = None
        if self.clip_quantile is not None:
            quantile = Quantile(self.clip_quantile, self.clip_rate, self.clip_share)
        return DPSGD(**self.common(), factors=factors, quantile=quantile, name=name)
