"""Per-record gradients: those of the one-record-at-a-time loop; what is measured of them, by other means; the memo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.assess import gradient_memo
from bench.assess.gradient_memo import GradientMemo
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.core.update import Layout
from bench.model.gradients import measure, record_gradients, row_spaces
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec
from tests.model_checks import PREFIX, RECORDS, SPEC, TINY, adapter, taken_gradient


@pytest.fixture(scope="module")
def model() -> LoraModel:
    return LoraModel.load(TINY, SPEC, LoraSpec(rank=4), "cpu")


@pytest.fixture(scope="module")
def tokens(model: LoraModel) -> Tokens:
    return model.encode(RECORDS, 40, PREFIX)


def loop(model: LoraModel, at: np.ndarray | None, tokens: Tokens) -> np.ndarray:
    """(n, size) one record, one backward pass through the parameters."""
    model.set_adapter(at)
    found = []
    for row in range(len(tokens)):
        model.losses(tokens.take([row])).sum().backward()
        found.append(taken_gradient(model))
    return np.stack(found)


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative error, |difference| / |gradient|, of any record."""
    gap = np.linalg.norm(found.astype(np.float64) - expected, axis=1)
    return float((gap / np.maximum(np.linalg.norm(expected.astype(np.float64), axis=1), 1e-30)).max())


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_gradients_are_those_of_the_loop(model: LoraModel, tokens: Tokens, batch_tokens: int) -> None:
    at = adapter(model)
    found = np.stack(list(record_gradients(model, at, tokens, batch_tokens)))
    assert found.dtype == np.float32
    assert found.shape == (len(RECORDS), model.layout.size)
    assert off(found, loop(model, at, tokens)) < 1e-5


def test_at_the_initial_adapter_only_b_moves_and_at_none_nothing(model: LoraModel, tokens: Tokens) -> None:
    start = model.initial_adapter(np.random.default_rng(0))
    found = np.stack(list(record_gradients(model, start, tokens)))
    assert off(found, loop(model, start, tokens)) < 1e-5
    for name, part in ((n, found[:, a:b]) for n, a, b in _slices(model.layout)):
        assert (part == 0).all() == ("lora_A" in name), name
    assert all((g == 0).all() for g in record_gradients(model, None, tokens))


def _slices(layout: Layout) -> list[tuple[str, int, int]]:
    return [(n, a, b) for n, a, b in zip(layout.names, layout.offsets, layout.offsets[1:], strict=False)]


def test_a_record_does_not_depend_on_its_neighbours(model: LoraModel, tokens: Tokens) -> None:
    at = adapter(model)
    whole = list(record_gradients(model, at, tokens))
    order = [4, 0, 5, 2]
    for row, g in zip(order, record_gradients(model, at, tokens.take(order)), strict=True):
        assert np.linalg.norm(g - whole[row]) <= 1e-5 * np.linalg.norm(whole[row])


def test_the_mean_of_all_is_the_gradient_of_the_mean_loss(model: LoraModel, tokens: Tokens) -> None:
    at = adapter(model)
    mean = np.mean(list(record_gradients(model, at, tokens)), axis=0)
    model.set_adapter(at)
    model.losses(tokens).mean().backward()
    assert off(mean[None], taken_gradient(model)[None]) < 1e-5


def test_the_adapter_is_as_it_was_at_every_yield_and_after_an_error(model: LoraModel, tokens: Tokens) -> None:
    mine = adapter(model, seed=1)
    model.set_adapter(mine)
    for _ in record_gradients(model, adapter(model, seed=2), tokens, 60):
        assert np.array_equal(model.get_adapter(), mine)
        assert all(p.grad is None for p in model.parameters())
    with pytest.raises(SiloBenchError, match="not finite"):
        list(record_gradients(model, np.full(model.layout.size, np.nan, np.float32), tokens))
    assert np.array_equal(model.get_adapter(), mine)
    assert not any(m._forward_hooks for m in model.module.modules())


def test_frozen_matrices_no_grad_and_records_without_a_prediction(model: LoraModel, tokens: Tokens) -> None:
    at = adapter(model)
    expected = loop(model, at, tokens)
    for p in model.parameters():
        p.requires_grad_(False)
    try:
        with torch.no_grad():
            assert off(np.stack(list(record_gradients(model, at, tokens))), expected) < 1e-5
    finally:
        for p in model.parameters():
            p.requires_grad_(True)
    mute = Tokens(tokens.ids, tokens.lengths, np.zeros_like(tokens.predicted), tokens.answer)
    assert all((g == 0).all() for g in record_gradients(model, at, mute))
    assert list(record_gradients(model, at, tokens.take([]))) == []


class Routed:
    """A model whose linear map sees the tokens of all records in one row, as experts do."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
        self.layout = Layout(("w",), ((2, 3),))
        self.features = torch.randn(100, 3)

    def parameters(self) -> list[Any]:
        return list(self.module.parameters())

    def get_adapter(self) -> np.ndarray:
        return self.parameters()[0].detach().numpy().ravel().copy()

    def set_adapter(self, values: np.ndarray | None) -> None:
        with torch.no_grad():
            self.parameters()[0].copy_(
                torch.from_numpy(np.zeros(6, np.float32) if values is None else values).view(2, 3)
            )

    def losses(self, tokens: Tokens) -> torch.Tensor:
        ids = torch.from_numpy(tokens.ids).long()
        return self.module(self.features[ids.flatten()]).square().sum(1).view(ids.shape).mean(1)


def test_maps_that_mix_records_are_differentiated_one_record_at_a_time() -> None:
    routed: Any = Routed()
    ids = np.arange(12, dtype=np.int32).reshape(3, 4)
    tokens = Tokens(ids, np.full(3, 4, np.int32), ids > -1, np.full(3, -1, np.int32))
    at = np.arange(6, dtype=np.float32) / 10
    x, w = routed.features.numpy()[ids].astype(np.float64), at.reshape(2, 3).astype(np.float64)
    expected = np.einsum("nto,nti->noi", 2 * x @ w.T, x).reshape(3, 6) / 4
    found = np.stack(list(record_gradients(routed, at, tokens)))
    assert off(found, expected) < 1e-5


LAYOUT = Layout(("lora_A", "lora_B", "other.lora_A"), ((2, 5), (6, 2), (1, 3)))


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 3))
def test_measured_is_what_dense_algebra_gives(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(n, LAYOUT.size)).astype(np.float32)
    d = rng.normal(size=(k, LAYOUT.size))
    if k > 1:
        d[1] = 0
    found = measure(iter(g), LAYOUT, list(d))
    dense = g.astype(np.float64)
    np.testing.assert_allclose(found.projections, dense @ d.T, atol=1e-9)
    np.testing.assert_allclose(found.norms, np.linalg.norm(dense, axis=1))
    for i in range(n):
        for j in range(k):
            if d[j].any():
                cosine = dense[i] @ d[j] / np.linalg.norm(dense[i]) / np.linalg.norm(d[j])
                assert found.cosines[i, j] == pytest.approx(cosine, abs=1e-9)
            else:
                assert found.cosines[i, j] == found.explained[i, j] == 0
            for t, (_, a, b) in enumerate(_slices(LAYOUT)):
                shape = LAYOUT.shapes[t]
                tall = [
                    m.reshape(shape) if shape[0] > shape[1] else m.reshape(shape).T for m in (dense[i, a:b], d[j, a:b])
                ]
                onto = tall[1] @ np.linalg.pinv(tall[1]) @ tall[0]
                assert found.within[i, j, t] == pytest.approx((onto**2).sum(), abs=1e-9)


def test_a_step_on_one_record_explains_that_record_wholly(model: LoraModel, tokens: Tokens) -> None:
    at = adapter(model)
    own, *others = record_gradients(model, at, tokens)
    found = measure([own, *others], model.layout, [-0.1 * own])
    assert found.cosines[0, 0] == pytest.approx(-1)
    assert found.explained[0, 0] == pytest.approx(1)
    assert found.explained[1:, 0].max() < 0.99
    assert all(space.shape[1] <= 4 for space in row_spaces(model.layout, own))


class Counting:
    """Stands in for ``record_gradients``: a gradient is a function of adapter and record, and calls are counted."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, model: Any, at: np.ndarray | None, tokens: Tokens, told: Any = None) -> Any:
        for ids in tokens.ids:
            self.rows += 1
            yield np.full(model.layout.size, ids[0] + (0 if at is None else at[0]), np.float32)


class Shaped:
    layout = Layout(("w",), ((1, 3),))


def numbered(rows: list[int]) -> Tokens:
    ids = np.array(rows, dtype=np.int32)[:, None] + np.zeros(2, np.int32)
    return Tokens(ids, np.full(len(rows), 2, np.int32), ids > -1, np.full(len(rows), -1, np.int32))


@given(
    st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 9), min_size=1, max_size=8)), max_size=6), st.data()
)
def test_the_memo_gives_the_same_whatever_its_budget(questions: list[tuple[int, list[int]]], data: Any) -> None:
    counting, memo = Counting(), GradientMemo(budget=12 * data.draw(st.integers(0, 30)))
    shaped: Any = Shaped()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_memo, "record_gradients", counting)
        for at, rows in questions:
            adapter = np.full(3, 100 * at, np.float32)
            found = [float(g[0]) for g in memo.gradients(shaped, adapter, numbered(rows))]
            assert found == [100 * at + row for row in rows]
    assert memo.computed == counting.rows
    if memo.budget >= 12 * 20:
        assert counting.rows == len({(at, row) for at, rows in questions for row in rows})


def test_questions_that_interleave_share_a_small_memo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_memo, "record_gradients", Counting())
    memo, shaped = GradientMemo(budget=12 * 4), Shaped()
    both = zip(
        memo.gradients(shaped, None, numbered([0, 1, 2, 3])),  # type: ignore[arg-type]
        memo.gradients(shaped, None, numbered([4, 5, 6, 7])),  # type: ignore[arg-type]
        strict=True,
    )
    assert [(a[0], b[0]) for a, b in both] == [(0, 4), (1, 5), (2, 6), (3, 7)]


def test_the_memo_on_the_model(model: LoraModel, tokens: Tokens, tmp_path: Path) -> None:
    memo, at = GradientMemo(tmp_path), adapter(model)
    first = np.stack(list(memo.gradients(model, at, tokens)))
    again = np.stack(list(memo.gradients(model, at, tokens.take([3, 1]))))
    assert off(first, loop(model, at, tokens)) < 1e-5
    assert np.array_equal(again, first[[3, 1]])
    assert memo.computed == len(RECORDS)
    assert list(tmp_path.iterdir()) == [], "the file has no name"
