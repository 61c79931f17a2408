"""Membership from gradients: does a record's own gradient lie along the step that training took?

Where an update is known together with the adapter that it started from (a silo's upload, or the change from one global
adapter to the next), each candidate's gradient at that adapter is compared with it: cosine, projection, gradient
difference, share within the update's row space, and the gradient's own size. What adds to a likelihood here is that the
step is known, not only where it led.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rounds import slopes, tracks
from attacks.rounds.tracks import Which
from attacks.shadowing import by_silo
from bench.attack import Attack, Candidates, Guesses, Tools
from bench.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.spec import RunSpec
    from bench.view import View

api = 1

NO_END = "after=false: no gradient is taken where the last step led"


class Config(BaseConfig):
    """``steps``: which of the known steps are used, each for one gradient pass over the candidates: ``first``,
    ``last``, both (``ends``), or ``all``. ``after``: one more pass where the last one led. ``population``: population
    records that are passed through for comparison."""

    steps: Which = "last"
    after: bool = True
    population: int = Field(32, ge=0)


class Gradient(Attack):
    """Each victim's candidates meet the victim's own steps where its uploads opened, else the global ones."""

    game = "membership"
    needs = frozenset({"adapter", "upload"})

    def __init__(self, config: Config) -> None:
        self.config = config

    def work(self, spec: RunSpec) -> float:
        """A gradient of every candidate at what every step started from."""
        return 3 * spec.federation.rounds * (super().work(spec) + self.config.population)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """The scores of ``attacks.rounds.slopes``: raw, and with ``-z`` calibrated by the population. A silo of whose
        steps none is known scores 0."""
        population = tools.population.take(range(min(self.config.population, len(tools.population))))
        made = (*slopes.ALONG, *slopes.SIZES) if self.config.after else (*slopes.ALONG, "small")
        found: dict[str, NDArray[np.float64]] = {
            f"{n}{z}": np.zeros(len(candidates.ids)) for n in made for z in ("", "-z")
        }
        reads: list[str] = []
        for silo, rows in by_silo(candidates).items():
            known = tracks.chosen(tracks.steps(view, silo, tools.model.layout), self.config.steps)
            reads += [step.reads for step in known] or [f"no step of {silo}"]
            if not known:
                continue
            tokens = candidates.tokens.take(rows)
            for name, values in slopes.tell(tools, known, tokens, population, self.config.after).items():
                found[name][rows] = values
        missing = {} if self.config.after else dict.fromkeys(("shrink", "shrink-z"), NO_END)
        return Guesses(found, tracks.listed(reads), missing)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Gradient(config)
