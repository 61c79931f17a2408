"""One score from all that a view tells of a record: likelihoods, losses along the rounds, gradients.

Each feature is first a z-score against population records of like difficulty. ``learned`` weighs them by a logistic
regression on the adversary's own records, of which it knows which were trained on; ``mean`` is their plain mean, with
the signs that theory gives, for those who hold no record. Nothing is tuned on targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rounds import features, tracks
from attacks.rounds.features import Features, Records
from attacks.rounds.tracks import Which
from attacks.shadowing import by_silo, describe
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.spec.run import RunSpec
    from bench.view.view import View

api = 1
version = 2

Scores = NDArray[np.float64]

#: own members, and own others, under which nothing is learned
FEWEST = 5


class Config(BaseConfig):
    """``steps``: rounds in which gradients are taken (``first``, ``last``, both: ``ends``, or ``all``). ``population``:
    population records that features are calibrated by. ``penalty``: the L2 penalty of the regression on the squared
    weights of standardised features, as scikit-learn's 1 / C."""

    steps: Which = "last"
    population: int = Field(32, ge=0)
    penalty: float = Field(10.0, gt=0, le=1e6)


class Combined(MembershipAttack):
    """Victims' own models and steps where uploads opened, else the global ones; always the global ones to learn from,
    since a coalition's view is of others."""

    needs = frozenset({"query", "adapter", "upload"})
    turn = 1

    def __init__(self, config: Config) -> None:
        self.config = config

    def work(self, spec: RunSpec) -> float:
        """Losses and gradients of every candidate in every round."""
        return 4 * spec.federation.rounds * (super().work(spec) + self.config.population)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """``mean``, and ``learned`` where the coalition has records of its own. A silo of which nothing opened scores
        0."""
        population = self._population(tools)
        weigh = self._learn(view, tools, population)
        found = {"mean": np.zeros(len(candidates.ids))}
        if not isinstance(weigh, str):
            found["learned"] = np.zeros(len(candidates.ids))
        reads: list[str] = []
        for silo, rows in by_silo(candidates).items():
            models = tracks.track(view, silo)
            if not models:
                reads.append(f"nothing of {silo}")
                continue
            steps = tracks.chosen(tracks.steps(view, silo, tools.model.layout), self.config.steps)
            reads += [*map(describe, models), *(step.reads for step in steps)]
            records = Records(candidates.tokens.take(rows), [candidates.texts[i] for i in rows])
            known = features.features(tools, models, steps, records, population)
            found["mean"][rows] = features.mean(known)
            if not isinstance(weigh, str):
                found["learned"][rows] = weigh.score(known)
        return Guesses(found, tracks.listed(reads), {"learned": weigh} if isinstance(weigh, str) else {})

    def _population(self, tools: Tools) -> Records:
        rows = range(min(self.config.population, len(tools.population)))
        return Records(tools.population.take(rows), [tools.population_texts[row] for row in rows])

    def _learn(self, view: View, tools: Tools, population: Records) -> Weights | str:
        """The weights, or why there are none."""
        own = tools.own
        if own is None:
            return "the coalition holds no records of its own"
        if min(own.member.sum(), (~own.member).sum()) < FEWEST:
            return f"the coalition holds fewer than {FEWEST} own records of either kind"
        models = tracks.global_track(view)
        if not models:
            return "no global model is known that own records could be tried on"
        order = sorted(range(len(own.member)), key=lambda i: own.tokens.ids[i].tolist())
        records = Records(own.tokens.take(order), [own.texts[i] for i in order])
        steps = tracks.chosen(tracks.global_steps(view, tools.model.layout), self.config.steps)
        known = features.features(tools, models, steps, records, population)
        return learn(known, own.member[order], self.config.penalty)


class Weights:
    """A linear score of squashed features: ``names`` and their weights."""

    def __init__(self, names: Sequence[str], weights: Scores) -> None:
        self.names, self.weights = tuple(names), weights

    def score(self, known: Features) -> Scores:
        """(n,) the log-odds that the regression gives, but for a constant. A feature that ``known`` lacks counts as the
        population's mean."""
        parts = [w * features.squash(known[n]) for n, w in zip(self.names, self.weights, strict=True) if n in known]
        total: Scores = np.sum(parts, axis=0)
        return total


def learn(known: Features, member: NDArray[np.bool_], penalty: float) -> Weights:
    """Logistic regression with an L2 ``penalty`` of ``member`` (n,) on the squashed features, each over its standard
    deviation; both classes count alike."""
    from sklearn.linear_model import LogisticRegression

    names = sorted(known)
    table = np.column_stack([features.squash(known[name]) for name in names])
    spread = table.std(0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
    model = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=1000)
    model.fit((table - table.mean(0)) * scale, member)
    return Weights(names, np.asarray(model.coef_[0] * scale, dtype=np.float64))


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Combined(config)
