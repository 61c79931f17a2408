"""Which records usefulness is measured on, and on which models."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UsageError
from bench.core.meter import Meter
from bench.core.streams import Streams
from bench.core.tokens import Tokens, TokenStats
from bench.training.measure import utility as module
from bench.training.measure.utility import measure, measure_validation

#: by id the loss of each of a record's two tokens under the base model; an adapter of x lowers it by x
LOSSES = {"h1": 4.0, "h2": 6.0, "h3": 5.0, "v1": 9.0, "v2": 8.0, "m1": 1.0, "n1": 2.0, "p1": 3.0}
POOL = SimpleNamespace(
    silos={"silo-0": ("m1", "n1")},
    heldout=("h1", "h2", "h3"),
    validation=("v1", "v2"),
    population=("p1",),
    clusters={i: k for k, i in enumerate(LOSSES)},
)


class Model:
    adapter = 0.0

    def set_adapter(self, values: Any) -> None:
        self.adapter = 0.0 if values is None else float(values[0])

    def stats(self, tokens: Tokens) -> TokenStats:
        logp = -(tokens.ids.astype(np.float32) - self.adapter) * tokens.predicted
        return TokenStats(logp, tokens.predicted)


class Materials:
    label_rows, label_prices = (), "sum"

    def __init__(self, pool: Any = POOL) -> None:
        self.pool, self.model, self.streams, self.asked = pool, Model(), Streams(0), set[str]()
        self.corpus = SimpleNamespace(task=SimpleNamespace(metrics=lambda: ("text-perplexity",)))

    def tokens(self, ids: Sequence[str]) -> Tokens:
        self.asked |= set(ids)
        rows = np.array([[0, LOSSES[i], LOSSES[i]] for i in ids], np.int32)
        n, none = len(ids), np.full(len(ids), -1, np.int32)
        return Tokens(rows, np.full(n, 3, np.int32), np.tile([False, True, True], (n, 1)), none)

    def gold(self, ids: Sequence[str]) -> np.ndarray:
        return np.full(len(ids), -1)


class Transcript:
    """Two rounds, after which the adapter is 1 and then 2."""

    public = SimpleNamespace(silos=("silo-0",), rounds=2, adapter=SimpleNamespace(size=1))

    def committed(self) -> int:
        return 1

    def truth(self, round: int, name: str) -> np.ndarray:
        return np.array([round + 1], np.float32)

    def training(self, round: int) -> dict[str, Any]:
        return {}

    def messages(self) -> tuple[()]:
        return ()


PARTS: Any = SimpleNamespace(plan=lambda public: SimpleNamespace(personal=None))


def test_usefulness_is_measured_on_the_held_out_records_and_on_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: losses of 4, 6 and 5 are exp(5) in perplexity before, exp(4) after round 0 and exp(3) after round 1."""
    monkeypatch.setattr(module, "traffic", lambda *_: {})
    meter, materials = Meter(), Materials()
    with meter.measure("train"):
        pass
    transcript: Any = Transcript()
    found = measure(SimpleNamespace(meter=meter, parts=PARTS), transcript, materials)["utility"]  # type: ignore[arg-type]
    assert materials.asked == set(POOL.heldout)
    perplexity, gain = found
    assert perplexity["base"] == pytest.approx(np.exp(5))
    assert perplexity["curve"] == pytest.approx([np.exp(4), np.exp(3)])
    assert perplexity["value"] == pytest.approx(np.exp(3))
    assert (gain["name"], gain["base"], gain["value"]) == ("text-gain", 0.0, pytest.approx(2))
    assert gain["curve"] == pytest.approx([1, 2])


def test_tuning_goes_by_the_validation_records_and_by_no_other() -> None:
    materials: Any = Materials()
    transcript: Any = Transcript()
    found = measure_validation(transcript, PARTS, materials)
    assert materials.asked == set(POOL.validation)
    assert (found.name, found.base) == ("text-perplexity", pytest.approx(np.exp(8.5)))
    none: Any = Materials(SimpleNamespace(**{**vars(POOL), "validation": ()}))
    with pytest.raises(UsageError, match=r"pool\.validation is 0"):
        measure_validation(transcript, PARTS, none)
