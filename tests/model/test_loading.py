"""Loading a model: what is refused and how it is said, unusual architectures and types, no trace left behind."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.core.errors import UsageError
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec
from tests.model_checks import (
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
def test_a_quantised_base_passes_gradients_on(quantize: Any) -> None:
    model = LoraModel.load(TINY, SPEC, LoraSpec(), device="cpu")
    quantised = LoraModel.load(TINY, ModelSpec(name="tiny", quantize=quantize), LoraSpec(), device="cpu")
    assert {p.dtype for p in quantised.parameters()} == {torch.float32}
    gradients = []
    for one in (model, quantised):
        one.set_adapter(adapter(one))
        one.losses(one.encode(RECORDS, 64, PREFIX)).mean().backward()
        gradients.append(taken_gradient(one))
    cosine = gradients[0] @ gradients[1] / np.prod([np.linalg.norm(g) for g in gradients])
    assert cosine > 0.9
