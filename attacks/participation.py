"""Did an organisation take part? From texts of its kind that nobody trained on, in a run of its own.

Two organisations of different kinds may fill each silo's place, and a coin decides (``bench.variants.participation``).
The model that was fine-tuned on one of them has become better at texts of that kind: the score of an organisation is
how much the mean loss of its fresh texts fell from the base model to the last adapter that opened of that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacks.shadowing import describe
from bench.attack import Answers, Attack, Organisation, Tools
from bench.config import Config as BaseConfig
from bench.spec import PluginSpec

if TYPE_CHECKING:
    from bench.view import View

api = 1


class Config(BaseConfig):
    """No options."""


class Participation(Attack):
    """Compares how much better the model got at each organisation's kind of text."""

    game = "participation"
    needs = frozenset({"query", "adapter", "upload"})
    knows = "population"

    def variant(self, adversary: str) -> PluginSpec | None:
        return PluginSpec(name="participation")

    def took_part(self, view: View, organisations: Sequence[Organisation], tools: Tools) -> Answers:
        """(organisations,) mean fall of the loss; 0 for both of a place of which nothing opened."""
        scores = np.zeros(len(organisations))
        reads: dict[str, None] = {}
        for number, one in enumerate(organisations):
            reading = view.last_adapter(one.place)
            if reading is None:
                continue
            before = tools.token_stats(None, one.tokens).losses()
            after = tools.token_stats(reading, one.tokens).losses()
            scores[number] = float((before - after).mean())
            reads[describe(reading)] = None
        return Answers(scores, tuple(reads))


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Participation()
