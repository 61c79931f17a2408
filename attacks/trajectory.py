"""Membership from losses along the rounds: how far a record's loss fell, how fast, and whether it went on falling.

A silo sees every global adapter, and a server that opens uploads sees each silo's own: the whole history of a record's
loss, not its end alone. Each figure is also taken as a z-score against population records of like difficulty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rounds import curves, tracks
from attacks.shadowing import by_silo, describe
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.spec.run import RunSpec
    from bench.view.view import View

api = 1
version = 1

ONE_POINT = "one model of the training is known, and a curve needs two"


class Config(BaseConfig):
    """``population``: records of the population that each model is tried on for comparison."""

    population: int = Field(32, ge=0)


class Trajectory(MembershipAttack):
    """Each victim's candidates follow the victim's own models where uploads opened, else the global ones."""

    needs = frozenset({"query", "adapter", "upload"})

    def __init__(self, config: Config) -> None:
        self.config = config

    def work(self, spec: RunSpec) -> float:
        """Every candidate under every global adapter."""
        return spec.federation.rounds * (super().work(spec) + self.config.population)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """``drop``, ``slope``, ``area``, ``late``, ``curvature`` of the losses (``attacks.rounds.curves``), and each
        with ``-z`` as a z-score. A silo of which nothing opened scores 0, and so do
        ``late`` and ``curvature`` of one that shows a single model."""
        population = tools.population.take(range(min(self.config.population, len(tools.population))))
        followed = {silo: tracks.track(view, silo) for silo in set(candidates.silos)}
        curved = any(len(models) > 1 for models in (*followed.values(), tracks.global_track(view)))
        names = [f"{name}{z}" for name in (*curves.SIMPLE, *(curves.LATER if curved else ())) for z in ("", "-z")]
        found: dict[str, NDArray[np.float64]] = {name: np.zeros(len(candidates.ids)) for name in names}
        reads: list[str] = []
        for silo, rows in by_silo(candidates).items():
            models = followed[silo]
            reads += [describe(model) for model in models] or [f"nothing of {silo}"]
            if not models:
                continue
            tokens = candidates.tokens.take(rows)
            for name, values in curves.told(tools, models, tokens, population).items():
                found[name][rows] = values
        later = [f"{name}{z}" for name in curves.LATER for z in ("", "-z")]
        return Guesses(found, tracks.listed(reads), {} if curved else dict.fromkeys(later, ONE_POINT))


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Trajectory(config)
