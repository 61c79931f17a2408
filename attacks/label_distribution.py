"""The shares of the labels among a silo's records, from the model that it trained.

A model that is fine-tuned on records of which a share p_l has label l predicts l about that often where the text says
little. For each label the mean log-probability of its answer is taken over the population's records of that label under
the victim's adapter, less the same under the base model; the population's shares are multiplied by its exponential and
normalised (a prior shift multiplies the posterior by the ratio of priors: Saerens et al. 2002, eq. 2.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attacks.shadowing import describe
from bench.attack import Attack, Shares, Tools
from bench.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.view import View

api = 1


class Config(BaseConfig):
    """No options."""


class LabelDistribution(Attack):
    """Reads the prior that the victim's model has learnt."""

    game = "property"
    needs = frozenset({"adapter", "upload", "query"})
    knows = "population"

    def label_shares(self, view: View, victims: Sequence[str], tools: Tools) -> Shares:
        """None for a victim of which nothing opened."""
        found: list[NDArray[np.float64] | None] = []
        reads: dict[str, None] = {}
        for victim in victims:
            reading = view.last_adapter(victim)
            if reading is None:
                found.append(None)
                continue
            before, after = (tools.token_stats(source, tools.population).logp for source in (None, reading))
            answer, label = tools.population.answer, tools.population_labels
            found.append(shares(before, after, answer, label, len(tools.labels)))
            reads[describe(reading)] = None
        return Shares(tuple(found), tuple(reads))


def shares(
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    answer: NDArray[np.integer],
    label: NDArray[np.integer],
    count: int,
) -> NDArray[np.float64]:
    """(count,) shares that sum to 1. ``before``, ``after``: (n, length) log-probabilities of the population's tokens
    under the base model and the victim's; ``answer`` (n,) the position of the label's token, -1 where there is none;
    ``label`` (n,) its index. A label that no population record has gets 0: nothing can be measured of it."""
    weights = np.zeros(count)
    for one in range(count):
        rows = np.flatnonzero((label == one) & (answer >= 0))
        if len(rows):
            gain = after[rows, answer[rows]].astype(np.float64) - before[rows, answer[rows]]
            weights[one] = len(rows) * float(np.exp(gain.mean()))
    return weights / weights.sum() if weights.any() else np.full(count, 1.0 / count)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return LabelDistribution()
