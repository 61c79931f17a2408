"""Whole labels: their scores against the chain rule written out, and passes that they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.core.tokens import Tokens
from bench.corpus.task import Record
from bench.model.labels import children, with_labels
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec
from tests.model_checks import TINY, own_logits

PREFIX = "\nRating:"
#: rows of tokens: one alone, two that begin alike, one that another goes on from, one of three tokens
LABELS = ((5,), (7, 8), (7, 9), (11,), (11, 12), (11, 12, 13))


@pytest.fixture(scope="module")
def model() -> LoraModel:
    loaded = LoraModel.load(TINY, ModelSpec(name="tiny"), LoraSpec(), device="cpu")
    rng = np.random.default_rng(3)
    loaded.set_adapter(loaded.initial_adapter(rng) + rng.normal(0, 0.02, loaded.layout.size).astype(np.float32))
    return loaded


@pytest.fixture(scope="module")
def tokens(model: LoraModel) -> Tokens:
    texts = ["The patient was seen.", "No fever.", "Discharged home with a plan for the week.", "Pain."]
    records = [Record(str(i), text, answer=f"{PREFIX} x{'yz' * i}" if i != 2 else "") for i, text in enumerate(texts)]
    return model.encode(records, 64, PREFIX)


def chain(model: LoraModel, tokens: Tokens, row: int, label: tuple[int, ...]) -> list[float]:
    """log p of each token of a label behind the record, and, last, of every token behind the label: one sequence alone,
    in float64, through the module's own forward."""
    ids = np.concatenate([tokens.ids[row, : tokens.answer[row]], label]).astype(np.int32)[None]
    length = np.array([ids.shape[1]], np.int32)
    one = Tokens(ids, length, np.ones(ids.shape, bool), np.array([-1], np.int32))
    with torch.no_grad():
        log = torch.log_softmax(own_logits(model.module, one, 0), -1).numpy()
    at = int(tokens.answer[row])
    return [float(log[at + k - 1, token]) for k, token in enumerate(label)], log[-1]  # type: ignore[return-value]


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_a_label_is_scored_whole(model: LoraModel, tokens: Tokens, how: Any) -> None:
    found = with_labels(model, tokens, LABELS, how).choices
    assert found is not None
    assert np.isnan(found[2]).all()  # it has no answer
    for row in (0, 1, 3):
        for column, label in enumerate(LABELS):
            terms, behind = chain(model, tokens, row, label)
            goes_on = [other[len(label)] for other in LABELS if other[: len(label)] == label != other]
            if goes_on:
                terms.append(float(np.log1p(-np.exp(behind[sorted(set(goes_on))]).sum())))  # type: ignore[call-overload]
            expected = sum(terms) / (len(terms) if how == "mean" else 1)
            assert found[row, column] == pytest.approx(expected, abs=2e-5)


def test_labels_that_nothing_goes_on_from_share_all_that_there_is_out(model: LoraModel, tokens: Tokens) -> None:
    """Every first token a label of its own, one of them split in what follows it: the chances add up to 1."""
    labels = [(t,) for t in range(model.vocab_size) if t != 7] + [(7, t) for t in range(model.vocab_size)]
    found = with_labels(model, tokens.take([0]), labels, "sum").choices
    assert found is not None
    assert np.exp(found.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)


def test_the_statistics_beside_are_those_of_one_plain_pass(model: LoraModel, tokens: Tokens) -> None:
    plain, found = model.stats(tokens), with_labels(model, tokens, LABELS, "sum")
    for name in ("logp", "mean", "sd", "first"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    assert with_labels(model, tokens, (), "sum").choices is None


@pytest.mark.parametrize(
    ("labels", "passes"),
    [
        (((5,), (6,)), 1),  # one token each: nothing beside the records' own pass
        (((7, 8), (7, 9)), 2),  # " 0" and " 1", where the space is a token: one more for both
        (((1, 4), (2, 4), (3, 4)), 4),  # "1 stars", "2 stars", "3 stars"
    ],
)
def test_labels_that_begin_alike_share_passes(
    model: LoraModel, tokens: Tokens, labels: Any, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, stats = [], model.stats

    def counted(*words: Any, **more: Any) -> Any:
        asked.append(words)
        return stats(*words, **more)

    monkeypatch.setattr(model, "stats", counted)
    with_labels(model, tokens, labels, "sum")
    assert len(asked) == passes
    assert len(children(labels)) == passes
