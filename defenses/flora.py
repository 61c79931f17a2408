"""FLoRA (Wang et al. 2024): the silos' factors are stacked, folded into the base by all, and trained anew each round.

The stack's product is the exact mean of the silos' B A. Whoever opens it reads each silo's own factors, as in the paper
every silo does; protection on the way, by encryption or secure aggregation, changes nothing about that. A summand has a
slot for each silo, of which it fills its own: n times the values of an adapter. In clear the zeros of the others can be
compressed away: ``flora+plain`` with ``plain.opener=silos`` has about the paper's bytes.
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
    from defenses.aggregators.exact import Stacked

    return Defense(aggregator=Stacked(config.weighted))
