"""Scrubbing: names, dates, record and telephone numbers, addresses and ages give way to placeholders. No promise.

Rules for English text, such as are run before a person looks again. What they miss is trained on as it stands, and a
model that is tuned on placeholders writes placeholders. Who knows a record's text can scrub it the same way, so
membership is not hidden; what a record says of a person mostly is. docs/heuristics.md has how much the rules find.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``names``: whether names are replaced too. They are found by capitals and titles only, which hits other things
    (a drug of two capitalised words) and misses a first name alone."""

    names: bool = True


def build(config: Config) -> Defense:
    from defenses.records.scrub import Scrub

    return Defense(records=(Scrub(config.names),))
