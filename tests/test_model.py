"""The model: what it computes against transformers' own forward, and what an adapter in it does."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bench
from bench.errors import SiloBenchError, UsageError
from bench.model import LoraModel
from bench.spec import LoraSpec, ModelSpec
from bench.task import Record
from bench.tokens import Tokens

TINY = Path(bench.__file__).parent / "models" / "tiny"
SPEC = ModelSpec(name="tiny")
PREFIX = "\nOutcome:"
LABELS = (" improved", " unchanged", " worsened")
RECORDS = [
    Record("a", "Plan: an EEG.", answer="\nOutcome: improved"),
    Record("b", "Ada Bell, 44, was seen in surgery with wound pain for 6 days.", answer="\nOutcome: worsened"),
    Record("c", "Temperature 38.2, pulse 97, breathing rate 21 a minute, no fever since.", prompt="Record KX 482913: "),
    Record("d", "Given morphine 20 mg and paracetamol 500 mg at night.", prompt="Dr", answer="\nOutcome: unchanged"),
    Record("e", "He"),
    Record("f", "Dr Molliland raised apixaban from 5 mg to 10 mg. " * 3, answer="\nOutcome: improved"),
]


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


def plain(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def adapter(model: LoraModel, scale: float = 0.05, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, model.layout.size).astype(np.float32)


def own_logits(module: Any, tokens: Tokens, row: int) -> torch.Tensor:
    """(length, vocabulary) float64, one record alone, unpadded, through the module's own forward."""
    ids = torch.tensor(tokens.ids[row, : tokens.lengths[row]][None].astype(np.int64))
    return module(input_ids=ids).logits[0].double()


def assert_stats_match(model: LoraModel, module: Any, tokens: Tokens, tolerance: float = 1e-5) -> None:
    """Every figure of ``stats`` against softmax, sums and sums of squares written out in float64."""
    labels = model.label_ids(LABELS)
    stats = model.stats(tokens, labels, batch=4)
    assert stats.mean is not None
    assert stats.sd is not None
    assert stats.choices is not None
    with torch.no_grad():
        for row in range(len(tokens)):
            p = torch.softmax(own_logits(module, tokens, row), -1).numpy()
            log = np.log(p)
            for t in np.flatnonzero(tokens.predicted[row]):
                mu = (p[t - 1] * log[t - 1]).sum()
                sigma = np.sqrt((p[t - 1] * log[t - 1] ** 2).sum() - mu**2)
                assert stats.logp[row, t] == pytest.approx(log[t - 1, tokens.ids[row, t]], abs=tolerance)
                assert stats.mean[row, t] == pytest.approx(mu, abs=tolerance)
                assert stats.sd[row, t] == pytest.approx(sigma, abs=tolerance)
            at = tokens.answer[row]
            if at < 0:
                assert np.isnan(stats.choices[row]).all()
            else:
                assert stats.choices[row] == pytest.approx(log[at - 1, list(labels)], abs=tolerance)
    for values in (stats.logp, stats.mean, stats.sd):
        assert (values[~tokens.predicted] == 0).all()


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
    labels = model.label_ids(LABELS)
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
    gradient = _taken_gradient(model)
    for row in range(len(tokens)):
        log = torch.log_softmax(own_logits(model.module, tokens, row), -1)
        columns = torch.tensor(np.flatnonzero(tokens.predicted[row]))
        targets = torch.tensor(tokens.ids[row].astype(np.int64))[columns]
        (-log[columns - 1, targets].mean() / len(tokens)).backward()
    np.testing.assert_allclose(gradient, _taken_gradient(model), atol=2e-6)

    norm = float(np.linalg.norm(gradient))
    step = 0.01
    ahead, behind = (_mean_loss(model, start + s * step * gradient / norm, tokens) for s in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(norm, rel=0.02)


def _mean_loss(model: LoraModel, values: np.ndarray, tokens: Tokens) -> float:
    model.set_adapter(values)
    return float(model.stats(tokens).losses().mean())


def _taken_gradient(model: LoraModel) -> np.ndarray:
    parts = []
    for parameter in model.parameters():
        assert parameter.grad is not None
        parts.append(parameter.grad.numpy().ravel().copy())
        parameter.grad = None
    return np.concatenate(parts)


def test_only_the_adapter_learns(model: LoraModel) -> None:
    model.losses(model.encode(RECORDS, 64, PREFIX)).mean().backward()
    learning = [name for name, p in model.module.named_parameters() if p.requires_grad]
    assert len(learning) == len(model.parameters()) == len(model.layout.names)
    assert all("lora_" in name for name in learning)
    assert all(p.grad is None for name, p in model.module.named_parameters() if name not in learning)
    _taken_gradient(model)


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
    stats = model.stats(tokens, model.label_ids(LABELS))
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


def test_loading_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import logging

    threads = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    state, verbosity, bar = torch.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled()
    LoraModel.load(TINY, SPEC, LoraSpec(), device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (verbosity, bar)
    assert threads == [1]


def test_bfloat16_base_keeps_a_float32_adapter() -> None:
    model = LoraModel.load(TINY, ModelSpec(name="tiny", dtype="bfloat16"), LoraSpec(), device="cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.module.get_base_model().lm_head.weight.dtype == torch.bfloat16
    values = adapter(model)
    model.set_adapter(values)
    np.testing.assert_array_equal(model.get_adapter(), values)
    tokens = model.encode(RECORDS, 64, PREFIX)
    losses = model.losses(tokens)
    assert losses.dtype == torch.float32
    assert np.isfinite(losses.detach().numpy()).all()
    reference = LoraModel.load(TINY, SPEC, LoraSpec(), device="cpu")
    reference.set_adapter(values)
    np.testing.assert_allclose(losses.detach().numpy(), reference.stats(tokens).losses(), rtol=0.05)


def _save(module: Any, directory: Path) -> Path:
    from transformers import AutoTokenizer

    module.save_pretrained(directory)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def soft_capped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma 2, whose logits are not its output layer's: they are squeezed into [-2, 2]."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=2048, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=256, final_logit_softcapping=2.0,
        initializer_range=1.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        return _save(Gemma2ForCausalLM(config), tmp_path_factory.mktemp("gemma"))


def test_a_model_that_changes_its_logits_after_the_output_layer(soft_capped: Path) -> None:
    model = LoraModel.load(soft_capped, ModelSpec(name="gemma"), LoraSpec(rank=2), device="cpu")
    tokens = model.encode(RECORDS, 64, PREFIX)
    base = plain(soft_capped)
    with torch.no_grad():
        assert 1.5 < own_logits(base, tokens, 1).abs().max() <= 2
    assert_stats_match(model, base, tokens, tolerance=2e-5)


def test_a_model_with_transposed_projections(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=2048, n_positions=128, n_embd=32, n_layer=2, n_head=2)
    with torch.random.fork_rng():
        path = _save(GPT2LMHeadModel(config), tmp_path)
    model = LoraModel.load(path, ModelSpec(name="gpt2"), LoraSpec(rank=2, targets=("c_attn",)), device="cpu")
    assert model.layout.shapes == ((2, 32), (96, 2)) * 2
    tokens = model.encode(RECORDS, 64, PREFIX)
    assert_stats_match(model, plain(path), tokens)
    model.set_adapter(adapter(model))
    assert_stats_match(model, model.module, tokens)


def test_a_target_that_matches_nothing_is_named() -> None:
    with pytest.raises(UsageError) as error:
        LoraModel.load(TINY, SPEC, LoraSpec(targets=("q_proj", "query_key_value")), device="cpu")
    assert "'query_key_value'" in str(error.value)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(error.value)
    with pytest.raises(UsageError, match="targets names 'self_attn'"):
        LoraModel.load(TINY, SPEC, LoraSpec(targets=("self_attn",)), device="cpu")
    with pytest.raises(UsageError, match="targets is empty"):
        LoraModel.load(TINY, SPEC, LoraSpec(targets=()), device="cpu")


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:93"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UsageError, match=f"'{device}'"):
        LoraModel.load(TINY, SPEC, LoraSpec(), device=device)


def test_a_directory_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no tokenizer"):
        LoraModel.load(tmp_path, SPEC, LoraSpec(), device="cpu")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    with pytest.raises(UsageError, match="holds no causal language model"):
        LoraModel.load(tmp_path, SPEC, LoraSpec(), device="cpu")
    (tmp_path / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UsageError, match="holds no causal language model"):
        LoraModel.load(tmp_path, SPEC, LoraSpec(), device="cpu")


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    weights = load_file(TINY / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="lack 1 of the model's tensors"):
        LoraModel.load(tmp_path, SPEC, LoraSpec(), device="cpu")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    torch.save(load_file(TINY / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="from safetensors"):
        LoraModel.load(tmp_path, SPEC, LoraSpec(), device="cpu")


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_quantised_loading_says_what_it_lacks(quantize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else found(name, *a)
    )
    with pytest.raises(UsageError, match="bitsandbytes"):
        LoraModel.load(TINY, ModelSpec(name="tiny", quantize=quantize), LoraSpec(), device="cpu")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs the optional package bitsandbytes")
@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_a_quantised_base_passes_gradients_on(quantize: Any, model: LoraModel) -> None:
    quantised = LoraModel.load(TINY, ModelSpec(name="tiny", quantize=quantize), LoraSpec(), device="cpu")
    assert {p.dtype for p in quantised.parameters()} == {torch.float32}
    gradients = []
    for one in (model, quantised):
        one.set_adapter(adapter(one))
        one.losses(one.encode(RECORDS, 64, PREFIX)).mean().backward()
        gradients.append(_taken_gradient(one))
    cosine = gradients[0] @ gradients[1] / np.prod([np.linalg.norm(g) for g in gradients])
    assert cosine > 0.9
