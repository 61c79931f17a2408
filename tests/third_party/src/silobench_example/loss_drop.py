"""Membership by how far fine-tuning lowered a record's loss."""

from __future__ import annotations

import numpy as np

from bench import Attack, Candidates, Guesses, Tools, View
from bench import Config as BaseConfig

api = 1


class Config(BaseConfig):
    """No options."""


class LossDrop(Attack):
    game = "membership"
    needs = frozenset({"adapter", "query"})

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """Every candidate's loss under the base model less that under the last model that was opened."""
        reading = next(r for silo in candidates.silos if (r := view.last_adapter(silo)) is not None)
        before = tools.token_stats(None, candidates.tokens).losses()
        after = tools.token_stats(reading, candidates.tokens).losses()
        return Guesses({"drop": np.asarray(before - after)}, (f"{reading.kind} of round {reading.round}",))


def build(config: Config) -> Attack:
    return LossDrop()
