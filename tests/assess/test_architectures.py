"""Models of ten makes, tiny and random: each is loaded, trained for a round, privately too, and attacked."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.assets.assets import Assets
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.model.gradients import record_gradients
from bench.model.lora import LoraModel
from bench.plugins.find import Plugins
from bench.spec.result import Result
from bench.spec.run import LoraSpec, ModelSpec, PluginSpec, PoolSpec, RunSpec
from bench.training.materials import Workshop
from tests.model.test_gradients import loop, off
from tests.model_checks import PREFIX, RECORDS, TINY, adapter, assert_stats_match, plain

SIZE = {"vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
WIDE = {**SIZE, "intermediate_size": 48}
#: by name: its configuration, and where its adapter is by default
MAKES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "llama": (transformers.LlamaConfig(**WIDE), ("q_proj", "v_proj")),
    "qwen2": (transformers.Qwen2Config(**WIDE, num_key_value_heads=2), ("q_proj", "v_proj")),
    "mistral": (transformers.MistralConfig(**WIDE, num_key_value_heads=2), ("q_proj", "v_proj")),
    "gemma": (transformers.GemmaConfig(**WIDE, num_key_value_heads=1, head_dim=8), ("q_proj", "v_proj")),
    "phi3": (transformers.Phi3Config(**WIDE, pad_token_id=0), ()),
    "gpt2": (transformers.GPT2Config(vocab_size=2048, n_positions=64, n_embd=32, n_layer=1, n_head=4), ("c_attn",)),
    "gpt_neox": (transformers.GPTNeoXConfig(**WIDE), ("query_key_value",)),
    "opt": (transformers.OPTConfig(**SIZE, ffn_dim=48, word_embed_proj_dim=32), ("q_proj", "v_proj")),
    "bloom": (transformers.BloomConfig(vocab_size=2048, hidden_size=32, n_layer=1, n_head=4), ("query_key_value",)),
    "falcon": (transformers.FalconConfig(**SIZE), ("query_key_value",)),
}
SMALL = (
    "pool.candidates=6",
    "pool.validation=0",
    "pool.heldout=6",
    "pool.population=6",
    "pool.max_tokens=32",
    "federation.silos=2",
    "federation.rounds=1",
    "federation.local.epochs=1",
    "clinical-notes.notes=100",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    words = AutoTokenizer.from_pretrained(TINY)
    for name, (config, _) in MAKES.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(root / name)
        words.save_pretrained(root / name)
    return root


def run(path: Path, store: Path, *sets: str) -> tuple[int, list[Result], str]:
    """(exit code, results, standard error) of fedavg and dp-sgd under ``mia``."""
    words = ["run", "--preset", "smoke", "--defense", "fedavg,dp-sgd", "--attack", "mia", "--adversary", "server"]
    words += ["--model", str(path), "--store", str(store), "--json"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, *(part for value in (*SMALL, *sets) for part in ("--set", value))])
    return code, [Result.from_json(line) for line in out.getvalue().splitlines()], err.getvalue()


@pytest.mark.parametrize("name", MAKES)
def test_a_round_its_attack_and_privacy(models: Path, tmp_path: Path, name: str) -> None:
    sets = () if MAKES[name][1] else ('federation.lora.targets=["qkv_proj"]',)
    code, results, said = run(models / name, tmp_path, *sets)
    assert code == 0, said
    assert [(r.defense, r.status) for r in results] == [("fedavg", "ok"), ("dp-sgd", "ok")]
    for result in results:
        assert result.utility[0].name == "text-perplexity"
        assert np.isfinite([result.utility[0].value, result.utility[0].base]).all()
        assert result.leakage


@pytest.mark.parametrize("name", MAKES)
def test_the_adapter_is_where_peft_has_it_and_figures_are_the_models_own(models: Path, name: str) -> None:
    targets = MAKES[name][1]
    lora = LoraSpec(rank=2) if targets else LoraSpec(rank=2, targets=("qkv_proj",))
    model = LoraModel.load(models / name, ModelSpec(name=name), lora, "cpu")
    ends = {of.rpartition(".lora_")[0].rpartition(".")[2] for of in model.layout.names}
    assert ends == set(targets or lora.targets)
    assert len(model.layout.names) == 2 * len(ends)
    tokens = model.encode(RECORDS, 32, PREFIX)
    assert_stats_match(model, plain(models / name), tokens, tolerance=2e-5)
    at = adapter(model)
    found = np.stack(list(record_gradients(model, at, tokens)))
    assert off(found, loop(model, at, tokens)) < 1e-4


@pytest.mark.parametrize("name", ["phi3", "gpt2"])
def test_what_is_refused_says_what_to_write(models: Path, name: str) -> None:
    lora = LoraSpec(rank=2, targets=("q_proj",) if name == "gpt2" else LoraSpec().targets)
    with pytest.raises(UsageError) as error:
        LoraModel.load(models / name, ModelSpec(name=name), lora, "cpu")
    said = str(error.value)
    assert f"federation.lora.targets names 'q_proj', and this model ({name}) has no such projection" in said
    helps = {
        "phi3": ("down_proj, gate_up_proj, o_proj, qkv_proj", '["qkv_proj"]'),
        "gpt2": ("c_attn, c_fc", '["c_attn"]'),
    }
    has, write = helps[name]
    assert f"it has {has}" in said
    assert f"--set federation.lora.targets='{write}'" in said


def test_other_projections_than_ours_are_said(models: Path) -> None:
    said: list[str] = []
    shop = Workshop(Plugins(), Assets(quiet=True), "cpu", said.append)
    for name in ("llama", "bloom"):
        spec = RunSpec(
            task=PluginSpec(name="clinical-notes", config={"notes": 60}),
            model=ModelSpec(name=str(models / name)),
            pool=PoolSpec(candidates=2, validation=0, heldout=2, population=2),
            defense=(PluginSpec(name="fedavg"),),
        )
        shop.materials(spec, 0)
    (line,) = said
    assert "has no q_proj, v_proj: its adapter is on query_key_value, PEFT's default for its architecture" in line
