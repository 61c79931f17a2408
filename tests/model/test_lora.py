"""The model: what it computes against transformers' own forward, and what an adapter in it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec
from tests.model_checks import (
    LABELS,
    PREFIX,
    RECORDS,
    SPEC,
    TINY,
    adapter,
    assert_stats_match,
    own_logits,
    plain,
    taken_gradient,
)


@pytest.fixture(scope="module")
def loaded() -> LoraModel:
    return LoraModel.load(TINY, SPEC, LoraSpec(), device="cpu")


@pytest.fixture
def model(loaded: LoraModel) -> Iterator[LoraModel]:
    yield loaded
    loaded.set_adapter(None)


@pytest.fixture(scope="module")
def base() -> Any:
    return plain(TINY)


def test_stats_are_those_of_transformers_own_forward(model: LoraModel, base: Any) -> None:
    tokens = model.encode(RECORDS, 64, PREFIX)
    assert_stats_match(model, base, tokens)
    model.set_adapter(adapter(model))
    assert_stats_match(model, model.module, tokens)
    changed = model.stats(tokens).logp
    model.set_adapter(None)
    assert np.abs(changed - model.stats(tokens).logp).max() > 0.1


def test_stats_do_not_depend_on_order_or_batch(model: LoraModel) -> None:
    model.set_adapter(adapter(model))
    tokens = model.encode(RECORDS, 64, PREFIX)
    labels = [row[0] for row in model.label_rows(LABELS)]
    order = np.array([3, 0, 5, 1, 4, 2])
    together, shuffled = model.stats(tokens, labels, batch=16), model.stats(tokens.take(order), labels, batch=1)
    for name in ("logp", "mean", "sd", "choices"):
        one, other = getattr(together, name)[order], getattr(shuffled, name)
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)


def test_losses_are_the_mean_over_each_records_own_predicted_tokens(model: LoraModel) -> None:
    model.set_adapter(adapter(model))
    tokens = model.encode(RECORDS, 64, PREFIX)
    losses = model.losses(tokens).detach().numpy()
    np.testing.assert_allclose(losses, model.stats(tokens).losses(), atol=1e-5)
    for row in range(len(tokens)):
        alone = model.losses(tokens.take([row])).item()
        assert alone == pytest.approx(losses[row], abs=1e-5)
        columns = np.flatnonzero(tokens.predicted[row])
        log = torch.log_softmax(own_logits(model.module, tokens, row), -1)
        by_hand = -np.mean([log[t - 1, tokens.ids[row, t]].item() for t in columns])
        assert alone == pytest.approx(by_hand, abs=1e-5)


def test_gradient_is_that_of_an_independent_loop_and_of_differences(model: LoraModel) -> None:
    start = adapter(model)
    model.set_adapter(start)
    tokens = model.encode(RECORDS, 64, PREFIX)
    model.losses(tokens).mean().backward()
    gradient = taken_gradient(model)
    for row in range(len(tokens)):
        log = torch.log_softmax(own_logits(model.module, tokens, row), -1)
        columns = torch.tensor(np.flatnonzero(tokens.predicted[row]))
        targets = torch.tensor(tokens.ids[row].astype(np.int64))[columns]
        (-log[columns - 1, targets].mean() / len(tokens)).backward()
    np.testing.assert_allclose(gradient, taken_gradient(model), atol=2e-6)

    norm = float(np.linalg.norm(gradient))
    step = 0.01
    ahead, behind = (_mean_loss(model, start + s * step * gradient / norm, tokens) for s in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(norm, rel=0.02)


def _mean_loss(model: LoraModel, values: np.ndarray, tokens: Tokens) -> float:
    model.set_adapter(values)
    return float(model.stats(tokens).losses().mean())


def test_only_the_adapter_learns(model: LoraModel) -> None:
    model.losses(model.encode(RECORDS, 64, PREFIX)).mean().backward()
    learning = [name for name, p in model.module.named_parameters() if p.requires_grad]
    assert len(learning) == len(model.parameters()) == len(model.layout.names)
    assert all("lora_" in name for name in learning)
    assert all(p.grad is None for name, p in model.module.named_parameters() if name not in learning)
    taken_gradient(model)


def test_an_initial_adapter_and_none_give_exactly_the_base_model(model: LoraModel, base: Any) -> None:
    tokens = model.encode(RECORDS, 64, PREFIX)
    initial = model.initial_adapter(np.random.default_rng(3))
    with torch.no_grad():
        for values in (initial, None):
            model.set_adapter(adapter(model))
            model.set_adapter(values)
            for row in range(len(tokens)):
                assert torch.equal(own_logits(model.module, tokens, row), own_logits(base, tokens, row))


def test_initial_adapter_is_kaiming_uniform_in_a_and_zero_in_b(model: LoraModel) -> None:
    flat = model.initial_adapter(np.random.default_rng(3))
    assert flat.dtype == np.float32
    for name, tensor in model.layout.tensors(flat):
        if "lora_B" in name:
            assert not tensor.any()
        else:
            bound = 1 / np.sqrt(128)
            assert np.abs(tensor).max() <= bound
            # 1024 uniform draws: their variance is bound^2/3 up to a relative error of .028 (one standard deviation)
            assert tensor.var() == pytest.approx(bound**2 / 3, rel=0.15)
    np.testing.assert_array_equal(flat, model.initial_adapter(np.random.default_rng(3)))
    assert (flat != model.initial_adapter(np.random.default_rng(4))).any()


def test_adapters_go_in_and_come_out_unchanged(model: LoraModel) -> None:
    values = adapter(model)
    before = [p.data_ptr() for p in model.parameters()]
    model.set_adapter(values.astype(np.float64))
    np.testing.assert_array_equal(model.get_adapter(), values)
    assert [p.data_ptr() for p in model.parameters()] == before
    taken = model.get_adapter()
    taken += 1
    np.testing.assert_array_equal(model.get_adapter(), values)
    for parameter, (_, tensor) in zip(model.parameters(), model.layout.tensors(values), strict=True):
        np.testing.assert_array_equal(parameter.detach().numpy(), tensor)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_an_adapter_that_is_not_finite_or_misshapen_is_refused_whole(model: LoraModel, bad: float) -> None:
    values = adapter(model)
    model.set_adapter(values)
    hostile = values.astype(np.float64)
    hostile[-1] = bad
    with pytest.raises(SiloBenchError, match="1 values that are not finite"):
        model.set_adapter(hostile)
    with pytest.raises(SiloBenchError, match="shape"):
        model.set_adapter(values[:-1])
    with pytest.raises(SiloBenchError, match="shape"):
        model.set_adapter(values[None])
    np.testing.assert_array_equal(model.get_adapter(), values)


def test_layout_is_in_the_models_own_order(model: LoraModel) -> None:
    stem = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"
    expected = [stem.format(i, p, ab) for i in range(4) for p in ("q_proj", "v_proj") for ab in "AB"]
    assert list(model.layout.names) == expected
    assert model.layout.shapes == ((8, 128), (128, 8)) * 8
    assert model.layout.size == 16_384


def test_a_saved_peft_adapter_has_the_same_names_and_values(model: LoraModel) -> None:
    from peft import get_peft_model_state_dict

    values = adapter(model)
    model.set_adapter(values)
    state = get_peft_model_state_dict(model.module)
    assert set(state) == set(model.layout.names)
    for name, tensor in model.layout.tensors(values):
        np.testing.assert_array_equal(state[name].numpy(), tensor)


def test_no_records_at_all(model: LoraModel) -> None:
    tokens = model.encode([], 64, PREFIX)
    assert len(tokens) == 0
    assert model.losses(tokens).shape == (0,)
    model.losses(tokens).sum().backward()  # type: ignore[no-untyped-call]
    stats = model.stats(tokens, [row[0] for row in model.label_rows(LABELS)])
    assert stats.logp.shape == (0, 0)
    assert stats.choices is not None
    assert stats.choices.shape == (0, 3)
    some = model.encode(RECORDS, 64, PREFIX).take([])
    assert model.losses(some).shape == (0,)


def test_a_prediction_at_position_0_is_refused(model: LoraModel) -> None:
    tokens = model.encode(RECORDS[:1], 64, PREFIX)
    wrong = Tokens(tokens.ids, tokens.lengths, np.ones_like(tokens.predicted), tokens.answer)
    with pytest.raises(ValueError, match="position 0"):
        model.losses(wrong)


def test_one_pass_gives_losses_and_the_statistics(model: LoraModel) -> None:
    tokens = model.encode(RECORDS, 40, PREFIX)
    model.set_adapter(adapter(model))
    expected, losses = model.stats(tokens), model.losses(tokens)
    both, found = model.losses_and_stats(tokens)
    assert torch.equal(both, losses)
    assert both.requires_grad
    assert found.choices is None
    np.testing.assert_array_equal(found.first, expected.first)
    for name in ("logp", "mean", "sd"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-5)
    nothing, none = model.losses_and_stats(tokens.take([]))
    assert len(nothing) == len(none.logp) == 0
