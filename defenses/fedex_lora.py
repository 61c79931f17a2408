"""FedEx-LoRA (Singhal et al. 2025): the exact mean of the silos' B A; what mean factors miss is folded into the base.

The mean of factors, mean(B) mean(A), is not the mean of products. Silos go on from the mean factors, and the residual
mean(B A) - mean(B) mean(A) is added to the frozen weights. In the paper the server is handed every silo's factors and
multiplies them itself; here each silo sends its product beside its factors, so that a sum is enough, under any channel,
and shows no silo's own. An upload has a dense matrix per target for that: 30 times the values of rank 8 on a model of
width 576.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``weighted``: by nominal size, else every silo counts as one."""

    weighted: bool = True


def build(config: Config) -> Defense:
    from defenses.aggregators.exact import Folded

    return Defense(aggregator=Folded(config.weighted))
