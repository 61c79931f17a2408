"""Membership from gradients: does a record's own gradient lie along the step that training took?

Where an update is known together with the adapter that it started from (a silo's upload, or the change from one global
adapter to the next), each candidate's gradient at that adapter is compared with it: cosine, projection, gradient
difference, share within the update's row space, and the gradient's own size. What adds to a likelihood here is that the
step is known, not only where it led.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from attacks.rounds import slopes, tracks
from attacks.rounds.tracks import Which
from attacks.shadowing import by_silo
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.spec.run import RunSpec
    from bench.view.view import View

api = 1
version = 1

#: before the names of scores of training as one step
WHOLE = "whole-"
NO_GLOBAL = "no global adapter opened"
NO_END = "after=false: no gradient is taken where the last step led"


class Config(BaseConfig):
    """``steps``: which of the known steps are used, each for one gradient pass over the candidates: ``first``,
    ``last``, both (``ends``), or ``all``. ``after``: one more pass where the last one led. ``population``: population
    records that are passed through for comparison."""

    steps: Which = "last"
    after: bool = True
    population: int = Field(32, ge=0)


class Gradient(MembershipAttack):
    """Each victim's candidates meet the victim's own steps where its uploads opened, else the global ones."""

    needs = frozenset({"adapter", "upload"})
    turn = 0

    def __init__(self, config: Config) -> None:
        self.config = config

    def work(self, spec: RunSpec) -> float:
        """A gradient of every candidate at what every step started from."""
        return 3 * spec.federation.rounds * (super().work(spec) + self.config.population)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """The scores of ``attacks.rounds.slopes``: raw, and with ``-z`` calibrated by the population. A silo of whose
        steps none is known scores 0. With ``whole-`` in front: of all of training as one step, which every coalition
        knows as well as an outsider, and which tells more than the last step where momentum blurs that."""
        population = tools.population.take(range(min(self.config.population, len(tools.population))))
        whole = tracks.whole(view, tools.model.layout)
        found = {name: np.zeros(len(candidates.ids)) for name in self._names(bool(whole))}
        reads: list[str] = []
        for silo, rows in by_silo(candidates).items():
            known = tracks.chosen(tracks.steps(view, silo, tools.model.layout), self.config.steps)
            reads += [step.reads for step in known] or [f"no step of {silo}"]
            if known:
                tokens = candidates.tokens.take(rows)
                made = slopes.passes(tools, known, tokens, population, self.config.after)
                of_all = slopes.passes(tools, whole, tokens, population, after=False)
                told = dict(slopes.tell(tools, known, tokens, population, made))
                if whole:
                    all_of_it = slopes.tell(tools, whole, tokens, population, of_all)
                    told |= {f"{WHOLE}{name}": all_of_it[name] for name in _both(slopes.ALONG)}
                for name, values in told.items():
                    found[name][rows] = values
        return Guesses(found, tracks.listed([*reads, *(step.reads for step in whole)]), self._missing(bool(whole)))

    def _names(self, whole: bool) -> list[str]:
        made = (*slopes.ALONG, *slopes.SIZES) if self.config.after else (*slopes.ALONG, "small")
        return [*_both(made), *(f"{WHOLE}{name}" for name in _both(slopes.ALONG) if whole)]

    def _missing(self, whole: bool) -> dict[str, str]:
        """Why scores are not there."""
        missing = {} if self.config.after else dict.fromkeys(("shrink", "shrink-z"), NO_END)
        return missing | ({} if whole else {f"{WHOLE}{name}": NO_GLOBAL for name in _both(slopes.ALONG)})


def _both(names: Iterable[str]) -> list[str]:
    """Each name, raw and calibrated."""
    return [f"{name}{z}" for name in names for z in ("", "-z")]


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Gradient(config)
