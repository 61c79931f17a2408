"""Learned inversion: which tokens a batch held, by a model trained on simulated updates of the population.

The adversary repeats the silo's local training on records of the population, from the same global adapter and with the
public settings, learns how a token that was there shows in the update, and applies that to the observed one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from attacks.rowspace.uploads import OnUploads, Rounds, Solver
from bench.attack.attack import Attack, Reconstruction, Target
from bench.games.baselines import carriers, expected_distinct, inclusion, most_likely, typical
from bench.spec.config import Config as BaseConfig
from bench.spec.run import LocalSpec, RunSpec
from bench.view.view import adapter_handle

if TYPE_CHECKING:
    from attacks.rowspace.observe import Observed
    from attacks.rowspace.session import Session
    from bench.view.view import View

api = 1
version = 1


class Config(BaseConfig):
    """``simulations``: the most local trainings per kind of target, which targets share that start from the same
    adapter with as many records and steps; fewer, but two, where they would take more than ``records`` records in all.
    ``steps``: no more local steps are simulated than these. ``rounds``: those that are attacked."""

    simulations: int = Field(12, ge=2, le=10_000)
    records: int = Field(60, ge=2, le=10_000_000)
    steps: int = Field(16, ge=1, le=100_000)
    rounds: Rounds = (0,)


class LearnedInversion(OnUploads):
    """Learns on records of the population how a token shows in an update; it wants more of them than a target has."""

    config: Config

    def work(self, spec: RunSpec) -> float:
        """Simulations of one round's targets, which share them."""
        local, records = spec.federation.local, math.ceil(spec.pool.candidates * spec.pool.share)
        steps = local.steps or local.epochs * math.ceil(records / local.batch)
        trained = min(self.config.steps, steps) * min(local.batch, records)
        return 3 * self._simulations(records) * trained * len(self.rounds)

    def _simulations(self, records: int) -> int:
        return min(self.config.simulations, max(2, self.config.records // max(records, 1)))

    def budget(self, spec: RunSpec) -> str:
        return (
            f"at most {self.config.simulations} simulations of a silo's round, {self.config.records} records in all, "
            f"{self.config.steps} local steps each, for every kind of target (learned-inversion.simulations, .records, "
            ".steps)"
        )

    def solver(self, session: Session, view: View) -> Solver:
        layout = session.model.layout

        def solve(target: Target, seen: Observed, beside: Sequence[Observed]) -> Reconstruction:
            shares = tuple(np.round([k.mean() for _, k in layout.tensors(seen.known.astype(np.float32))], 2).tolist())
            kind = (target.round, target.records, target.steps, shares, float(f"{seen.deviation:.2g}"))
            key = (__name__, self.config.model_dump_json(), kind, adapter_handle(seen.before))
            learned = session.tools.once(key, lambda: self._learn(session, target, seen, view.spec))
            return self._answer(session, target, seen, learned)

        return solve

    def _learn(self, session: Session, target: Target, seen: Observed, spec: Any) -> Any:
        """A logistic model of a token's presence. Each simulation's prior is taken from the records it does not use."""
        from attacks.rowspace.learned import Logistic, alike, features, sample, simulate

        model, population = session.model, session.tools.population
        rng = np.random.default_rng([target.round, target.records, target.steps])
        size = _size(target, population)
        local = LocalSpec.model_validate(spec.get("federation", {}).get("local", {}))
        rows, labels = [], []
        for _ in range(self._simulations(size)):
            chosen = rng.permutation(len(population))
            own, rest = population.take(chosen[:size]), population.take(chosen[size:])
            steps = min(target.steps, self.config.steps)
            change = alike(simulate(model, seen.before, own, local, steps, rng), seen, model.layout, rng)
            there = np.zeros(model.vocab_size, bool)
            there[np.unique(np.concatenate(carriers(own)))] = True
            rows.append(features(session.vocabulary, session.changes(seen, change), _odds(rest, there.size, size)))
            labels.append(there)
        return Logistic.fit(*sample(labels, rows))

    def _answer(self, session: Session, target: Target, seen: Observed, learned: Any) -> Reconstruction:
        from attacks.rowspace.learned import features

        population, size = session.tools.population, session.model.vocab_size
        rows = features(session.vocabulary, session.changes(seen), _odds(population, size, target.records))
        scores = np.asarray(learned.log_odds(rows))
        p = 1 / (1 + np.exp(-np.clip(scores, -40, 40)))
        usual = expected_distinct(population, size, target.records)
        held = most_likely(scores, int(np.clip(round(float(p.sum())), usual, size)))
        sequences = typical(population, p, target.records)
        reads = f"{seen.reads}, {self._simulations(_size(target, population))} simulations"
        return Reconstruction(target, scores, held, sequences, False, reads)


def _size(target: Target, population: Any) -> int:
    """Records of one simulation; the others are for its prior."""
    return min(target.records, max(1, len(population) // 2))


def _odds(population: Any, size: int, records: int) -> Any:
    p = inclusion(population, size, records)
    return np.log(p) - np.log1p(-p)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return LearnedInversion(config)
