"""Source inference: which silo held a record that was trained on (Hu et al. 2021)?

Each silo's own adapter, after its last opened update, is asked for the record: the holder's knows it best. A silo's
score is the record's mean log-probability under that silo's adapter less the population's under the same, so that a
silo whose model is better throughout does not win every record. A global adapter alone tells nothing about sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacks.shadowing import describe
from bench.attack.attack import Answers, Attack, Candidates, Tools
from bench.attack.by_game import SourceAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.spec.run import RunSpec
    from bench.view.view import View

api = 1
version = 1


#: records of the population, the same for every silo, by which silos' adapters are made comparable
POPULATION = 64


class Config(BaseConfig):
    """No options."""


class Source(SourceAttack):
    """Compares the silos' own adapters."""

    needs = frozenset({"upload"})

    def work(self, spec: RunSpec) -> float:
        """Every member under every silo's upload."""
        return spec.federation.silos * (super().work(spec) * spec.pool.share + min(spec.pool.population, POPULATION))

    def attribute(self, view: View, records: Candidates, silos: Sequence[str], tools: Tools) -> Answers:
        """A silo none of whose updates opened with its adapter scores 0 on every record: as good as unknown."""
        scores = np.zeros((len(records.ids), len(silos)))
        reads = []
        usually = tools.population.take(range(min(POPULATION, len(tools.population))))
        for column, silo in enumerate(silos):
            known = [reading for reading in view.uploads(silo) if reading.handle]
            if not known:
                continue
            usual = -tools.token_stats(known[-1], usually).losses().mean() if len(usually) else 0.0
            scores[:, column] = -tools.token_stats(known[-1], records.tokens).losses() - usual
            reads.append(describe(known[-1]))
        return Answers(scores, tuple(reads))


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Source()
