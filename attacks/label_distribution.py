"""The shares of the labels among a silo's records, from the labels that its model expects.

Where a classifier fits a free bias for every label, the shares of the labels that it expects over its training records
are those that it was trained on (the score equation of logistic regression). The victim's model is asked what it
expects over the population's records instead: at the place of their answers, the probability of each label among all
labels. So the answer leans towards the population's own shares, the more the better the labels follow from the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attacks.shadowing import describe
from bench.attack import Attack, Shares, Tools
from bench.config import Config as BaseConfig
from bench.tokens import Tokens

if TYPE_CHECKING:
    from bench.spec import RunSpec
    from bench.view import Reading, View

api = 1


#: records of the population that are asked about: a share is then known to .06 at worst, where the victim's own records
#: are fewer still
POPULATION = 64


class Config(BaseConfig):
    """No options."""


class LabelDistribution(Attack):
    """Reads the prior that the victim's model has learnt."""

    game = "property"
    needs = frozenset({"adapter", "upload", "query"})
    knows = "population"
    turn = 0

    def work(self, spec: RunSpec) -> float:
        """Records of the population under every silo's upload and the global adapter."""
        return (spec.federation.silos + 1) * min(spec.pool.population, POPULATION)

    def label_shares(self, view: View, victims: Sequence[str], tools: Tools) -> Shares:
        """None for a victim of which nothing opened."""
        words = label_tokens(tools.population, tools.population_labels, len(tools.labels))
        found: list[NDArray[np.float64] | None] = []
        reads: dict[str, None] = {}
        for victim in victims:
            reading = view.last_adapter(victim)
            if reading is None:
                found.append(None)
                continue
            found.append(expected(tools, reading, words))
            reads[describe(reading)] = None
        return Shares(tuple(found), tuple(reads))


def label_tokens(population: Tokens, labels: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """(count,) the token that names each label, from the population's answers; -1 for one that no record of it has."""
    found = np.full(count, -1)
    for one in range(count):
        rows = np.flatnonzero((labels == one) & (population.answer >= 0))
        if len(rows):
            found[one] = population.ids[rows[0], population.answer[rows[0]]]
    return found


def expected(tools: Tools, reading: Reading, words: NDArray[np.integer]) -> NDArray[np.float64]:
    """(labels,) how often the model behind ``reading`` expects each label over the first ``POPULATION`` records that
    have an answer; all alike where none has. ``words``: ``label_tokens``; a label without one is expected nowhere."""
    known = np.flatnonzero(words >= 0)
    asked = tools.population.take(np.flatnonzero(tools.population.answer >= 0)[:POPULATION])
    if not len(asked) or not len(known):
        return np.full(len(words), 1 / len(words))
    logp = tools.word_logp(reading, asked, asked.answer, words[known].tolist())
    chance = np.exp(logp - logp.max(axis=1, keepdims=True))
    shares = np.zeros(len(words))
    shares[known] = (chance / chance.sum(axis=1, keepdims=True)).mean(axis=0)
    total: float = float(shares.sum())
    return np.asarray(shares / total, dtype=np.float64)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return LabelDistribution()
