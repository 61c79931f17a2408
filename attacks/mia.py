"""Membership inference from likelihoods: was this record trained on?

One forward pass of the last adapter that the adversary opened over each candidate, and one of the base model, give the
whole family: loss, zlib, Min-K%, Min-K%++, accuracy, each less its value under the base model, and the scores that
compare the two models token by token: the error zone and sliding windows. Where records themselves are
read in clear, how much of the candidate stands in one of them is a score too. Every score is returned by name; the game
chooses among them without looking at the fold that it reports on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from attacks import lookup, scores
from attacks.shadowing import by_silo, describe
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.view.view import Reading, View

api = 1
version = 2

Scores = NDArray[np.float64]

#: scores that compare with the base model themselves
PAIRED = frozenset({"ez", *scores.VOTES})


class Config(BaseConfig):
    """``fractions``: the k of Min-K% and Min-K%++, each in (0, 1]. ``windows``: lengths of windows, in tokens."""

    fractions: tuple[float, ...] = Field((0.1, 0.2, 0.3), min_length=1, max_length=20)
    windows: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(scores.WINDOWS, min_length=1, max_length=100)

    @field_validator("fractions")
    @classmethod
    def _are_distinct_fractions(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < k <= 1 for k in value) or len({f"{100 * k:g}" for k in value}) < len(value):
            raise ValueError("expected distinct numbers above 0 and at most 1, for instance 0.1,0.2,0.3")
        return value


class Likelihood(MembershipAttack):
    """The likelihood family. Each victim's candidates are scored under that victim's own upload where one opened."""

    needs = frozenset({"query", "adapter", "upload"})

    def __init__(self, config: Config) -> None:
        self.fractions, self.windows = config.fractions, config.windows

    def reading(self, view: View, silo: str) -> Reading | None:
        """Under what the candidates of ``silo`` are scored; None: nothing of it opened."""
        return view.last_adapter(silo)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """Scores for every candidate. A silo of which nothing opened is scored under the base model, which knows no
        member, and ``reads`` says so."""
        tuned: dict[str, Scores] = {}
        base: dict[str, Scores] = {}
        pair: dict[str, Scores] = {}
        missing: dict[str, str] = {}
        reads: dict[str, None] = {}
        for silo, rows in by_silo(candidates).items():
            reading = self.reading(view, silo)
            reads[describe(reading) if reading is not None else f"nothing of {silo}"] = None
            tokens = candidates.tokens.take(rows)
            texts = [candidates.texts[i] for i in rows]
            before, after = tools.token_stats(None, tokens), tools.token_stats(reading, tokens)
            for known, (made, gone) in (
                (base, scores.from_stats(before, texts, self.fractions)),
                (tuned, scores.from_stats(after, texts, self.fractions)),
                (pair, scores.from_pair(after, before, self.windows)),
            ):
                missing |= gone
                for name, values in made.items():
                    known.setdefault(name, np.full(len(candidates.ids), np.nan))[rows] = values
        missing |= {f"{name}-base": reason for name, reason in missing.items() if name not in PAIRED}
        raw = {name: values for name, values in tuned.items() if name not in missing}
        found = raw | scores.calibrated(raw, base) | {name: v for name, v in pair.items() if name not in missing}
        if held := lookup.records_read(view):
            found["records"] = lookup.overlap(candidates, held)
            reads |= {f"records of {silo}": None for silo in sorted(held)}
        return Guesses(found, tuple(reads), missing)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Likelihood(config)
