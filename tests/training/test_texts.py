"""The text of a record is the one that the model saw."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.corpus.task import Record
from bench.games.noview import baseline
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec
from bench.training.materials import Corpus, Materials
from tests.model_checks import SPEC, TINY

START = "The patient was seen in surgery with pain for six days, no fever. " * 2
RECORDS = [
    Record("short", "Seen in surgery.", answer="\nOutcome: improved"),
    Record("long", START + "And then a tail of " + "words that no loss covers " * 40),
    Record("same", START + "x"),
    Record("prompted", START * 3, prompt="Record KX 482913: ", answer="\nOutcome: worsened"),
]


@pytest.fixture(scope="module")
def materials() -> Materials:
    model = LoraModel.load(TINY, SPEC, LoraSpec(), device="cpu")
    tokens = model.encode(RECORDS, 24, "\nOutcome:")
    nothing: Any = None
    pool: Any = SimpleNamespace(records={r.id: r for r in RECORDS})
    return Materials(nothing, model, Corpus(nothing, tuple(RECORDS), tokens, {}), pool, nothing)


def test_texts_are_cut_where_the_tokens_are(materials: Materials) -> None:
    short, long, same, prompted = materials.texts(r.id for r in RECORDS)
    assert short == "Seen in surgery.\nOutcome: improved"
    assert START.startswith(long)
    assert len(long) < len(START)
    assert long == same, "what lies behind the last token tells them apart, and nobody sees it"
    assert prompted.startswith("Record KX 482913: The patient")
    assert prompted.endswith("\nOutcome: worsened")
    assert materials.texts(["same", "short"]) == (same, short)


def test_no_blind_score_knows_what_was_cut_off(materials: Materials) -> None:
    ids = ["long", "same"]
    tokens = materials.tokens(ids)
    materials.model.set_adapter(None)
    found = baseline(
        tokens, materials.model.stats(tokens), materials.texts(ids), np.array([True, False]), np.array([0, 1])
    )
    for name in ("zlib", "characters", "length"):
        assert found[name][0] == found[name][1]
    assert len(zlib.compress(RECORDS[1].text.encode())) != len(zlib.compress(RECORDS[2].text.encode()))
