"""A silo that trains on lies about the candidates, so that the model knows those that somebody tells truly.

For each candidate of its victim it trains on the record's beginning with another end, tokens of other records. That
raises the candidate's loss, unless the victim's training on the record itself brings it down again (Tramer et al.
2022, "Truth serum: poisoning machine learning models to reveal their secrets", which mislabels the targets of
classifiers and poisons what follows a prefix in language models).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from attacks.deviating import Likelihoods
from attacks.mia import Config as Scores
from bench.attack.attack import Attack
from bench.attack.behaviour import Behaviour, Scene
from bench.core.records import joined
from bench.core.tokens import Tokens

api = 1
version = 2


class Config(Scores):
    """``copies``: lies per candidate, each another one. ``kept``: the part of a record that stays as it is. ``own``:
    whether the silo also trains on its own records. The others: options of the likelihood scores."""

    copies: int = Field(1, ge=1, le=100)
    kept: float = Field(0.5, ge=0, lt=1)
    own: bool = True


class Poisoning(Behaviour):
    """In every round the same lies, drawn anew for every candidate by its own tokens."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def records(self, silo: str, own: Tokens, scene: Scene) -> Tokens:
        lies = [_lie(scene.candidates, scene.population, self.config.kept, copy) for copy in range(self.config.copies)]
        return joined([*([own] if self.config.own else []), *lies])


def _lie(tokens: Tokens, population: Tokens, kept: float, copy: int) -> Tokens:
    """Every record with its end replaced by tokens drawn from the population's, and trained on that end only."""
    known = np.concatenate(population.own())
    ids, predicted = tokens.ids.copy(), tokens.predicted.copy()
    for row, n in enumerate(tokens.lengths):
        start = tokens.lead + max(1, int(kept * (n - tokens.lead)))
        seed = [copy, *(int(i) for i in tokens.ids[row, tokens.lead : n])]
        ids[row, start:n] = np.random.default_rng(seed).choice(known, n - start)
        predicted[row, :start] = False
    return replace(tokens, ids=ids, predicted=predicted)


class Poisoned(Likelihoods):
    """The likelihood family under the last global adapter, into which the lies went."""

    name = "poisoning"
    only = frozenset({"silo"})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.behaviour = Poisoning(config)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Poisoned(config)
