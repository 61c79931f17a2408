"""Trainers from the options that defenses share."""

from __future__ import annotations

from defenses.trainers.dp_config import SampledConfig
from defenses.trainers.dp_sgd import DPSGD, Quantile
from defenses.trainers.factors import Factors


def sampled(config: SampledConfig, name: str, factors: Factors = "both") -> DPSGD:
    """DP-SGD for a defense of that name."""
    adaptive = None
    if config.clip_quantile is not None:
        adaptive = Quantile(config.clip_quantile, config.clip_rate, config.clip_share)
    return DPSGD(
        config.epsilon,
        config.sigma,
        config.clip,
        config.delta,
        config.microbatch,
        gradients=config.gradients,
        factors=factors,
        quantile=adaptive,
        name=name,
    )
