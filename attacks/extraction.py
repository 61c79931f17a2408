"""Extraction of marked secrets (names, dates, record numbers) and of record endings, from the last adapter that opened.

For every blank the record is completed with each choice, and the choice that gains most likelihood over the base model
is taken: a name that the base model likes anyway says nothing. How probable the true secret is after what stands before
it is measured by the game, under the reading that is named here, so that nothing depends on the luck of sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacks.shadowing import describe
from bench.attack.attack import Attack, Blank, Filled, Tools
from bench.attack.by_game import ExtractionAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.spec.run import RunSpec
    from bench.view.view import Reading, View

api = 1
version = 1


class Config(BaseConfig):
    """``calibrate``: choices are compared by their gain over the base model, else by their likelihood alone."""

    calibrate: bool = True


class Extraction(ExtractionAttack):
    """Fills blanks by the gain in likelihood of the whole record."""

    needs = frozenset({"query", "adapter", "upload"})

    def __init__(self, config: Config) -> None:
        self.calibrate = config.calibrate

    def work(self, spec: RunSpec) -> float:
        """Of a task that marks no secrets: a member's ending and another's, and the ending alone, under the base model
        and under what opened."""
        return super().work(spec) * spec.pool.share * 2 * 3

    def budget(self, spec: RunSpec) -> str:
        from bench.assess.plays.extraction import CHOICES, ENDINGS

        members = round(super().work(spec) * spec.pool.share)
        return (
            f"two forward passes of at most {CHOICES + 1} records for each secret of {members} members (of "
            f"{ENDINGS + 1} where a task marks none, and endings are asked for)"
        )

    def fill(self, view: View, blanks: Sequence[Blank], tools: Tools) -> Filled:
        """A blank of a silo of which nothing opened is left to the base model alone."""
        readings: dict[str, Reading | None] = {silo: view.last_adapter(silo) for silo in view.victims}
        scores = []
        for blank in blanks:
            reading = readings.get(blank.silo)
            told = -tools.token_stats(reading, blank.filled).losses()
            if self.calibrate and reading is not None:
                told = told + tools.token_stats(None, blank.filled).losses()
            # means over tokens: back to whole records, which is what likelihoods compare
            scores.append(np.asarray(told * blank.filled.predicted.sum(axis=1), dtype=np.float64))
        reads = dict.fromkeys(describe(reading) for reading in readings.values() if reading is not None)
        return Filled(readings, tuple(scores), tuple(reads))


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Extraction(config)
