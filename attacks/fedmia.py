"""FedMIA: membership from one silo's update set against those of the other silos, which never saw its records.

The likelihood ratio of shadow models, without shadows: for a record of silo v, every other silo is a model that did not
train on it, started from the same adapter in the same round. What is tested is its loss, or the cosine of its gradient
with the update. For the server, alone or with silos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rounds import others, tracks
from attacks.rounds.tracks import Step, Which
from attacks.shadowing import by_silo
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.core.tokens import Tokens
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.spec.run import RunSpec
    from bench.view.view import Reading, View

api = 1
version = 1

Scores = NDArray[np.float64]


class Config(BaseConfig):
    """``steps``: rounds in which gradients are compared, each for one gradient pass over the candidates (``first``,
    ``last``, both: ``ends``, or ``all``). ``loss_steps``: likewise, rounds in which losses are, each for a forward pass
    for every silo. ``population``: population records that the spread is pooled over."""

    steps: Which = "last"
    loss_steps: Which = "last"
    population: int = Field(32, ge=0)


class FedMIA(MembershipAttack):
    """Each victim's candidates under the victim's own uploads and those of the others."""

    needs = frozenset({"upload"})
    turn = 1

    def __init__(self, config: Config) -> None:
        self.config = config

    def work(self, spec: RunSpec) -> float:
        """A gradient of every candidate, and its loss under every silo's upload."""
        return (3 + spec.federation.silos) * (super().work(spec) + self.config.population)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """``cosine``, ``loss`` and ``both``: mean evidence over rounds, in nats. A silo without an opened upload whose
        start is known scores 0.

        Where no other silo's upload opened, cosines are compared with the rest of the sum, and losses with the global
        model that came of the round (else the base model)."""
        population = tools.population.take(range(min(self.config.population, len(tools.population))))
        found = {name: np.zeros(len(candidates.ids)) for name in ("cosine", "loss", "both")}
        reads: list[str] = []
        for silo, rows in by_silo(candidates).items():
            steps = tracks.own_steps(view, silo)
            if not steps:
                reads.append(f"no step of {silo}")
                continue
            tokens = candidates.tokens.take(rows)
            used = tracks.chosen(steps, self.config.steps)
            cosine = np.mean([self._cosine(view, step, tools, tokens, population) for step in used], axis=0)
            later = tracks.chosen(steps, self.config.loss_steps)
            loss = np.mean([self._loss(view, step, tools, tokens, population) for step in later], axis=0)
            found["cosine"][rows], found["loss"][rows], found["both"][rows] = cosine, loss, (cosine + loss) / 2
            reads += [read for step in (*used, *later) for read in self._reads(view, step)]
        return Guesses(found, tracks.listed(reads))

    def _cosine(self, view: View, step: Step, tools: Tools, tokens: Tokens, population: Tokens) -> Scores:
        layout = tools.model.layout
        uploads = others.other_uploads(view, step.silo or "", step.round)
        steps = [one.update(layout) for r in uploads if (one := tracks.own_step(view, r)) is not None]
        if not steps:
            rest = others.rest_of_the_sum(view, step, layout)
            steps = [] if rest is None else [rest]
        mine, theirs = (others.cosine_margin(tools, step, steps, part) for part in (tokens, population))
        return others.tested(mine, theirs, tools, tokens, population)

    def _loss(self, view: View, step: Step, tools: Tools, tokens: Tokens, population: Tokens) -> Scores:
        (own,) = view.uploads(step.silo, step.round)
        models: tuple[Reading | None, ...] = others.other_uploads(view, step.silo or "", step.round)
        if not models:
            models = (next((r for r in view.adapters() if r.round == step.round), None),)
        mine, theirs = (others.loss_margin(tools, own, models, part) for part in (tokens, population))
        return others.tested(mine, theirs, tools, tokens, population)

    def _reads(self, view: View, step: Step) -> list[str]:
        uploads = others.other_uploads(view, step.silo or "", step.round)
        names = sorted(silo for r in uploads for silo in r.silos)
        return [f"{step.reads}, against {', '.join(names) if names else 'the rest of the sum'}"]


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return FedMIA(config)
