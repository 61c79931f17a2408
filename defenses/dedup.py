"""Deduplication: each silo trains on one record of every cluster of near-duplicates among its own. No promise.

What is repeated in training is memorised first (Kandpal, Wallace and Raffel 2022); near-duplicates are found as in Lee
et al. 2022 ("Deduplicating Training Data Makes Language Models Better", NearDup), but exactly, without hashing. A silo
sees its own records only, so what two silos share stays twice. Records that were dropped count as members still: the
silo held them, and their like was trained on.
"""

from __future__ import annotations

from pydantic import Field

from bench.corpus.clusters import THRESHOLD
from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 2


class Config(_Config):
    """``threshold``: Jaccard similarity of word 5-grams from which two records count as one. The default is what the
    splits are made with; a lower one would drop records of which no near-duplicate is trained on."""

    threshold: float = Field(THRESHOLD, ge=THRESHOLD, le=1)


def build(config: Config) -> Defense:
    from defenses.records.dedup import NearDuplicates

    return Defense(records=(NearDuplicates(config.threshold),))
