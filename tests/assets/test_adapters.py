"""Folders with an adapter's files: refused by name, with a command that does what it says."""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from bench.assets.adapters import merging
from bench.assets.assets import Assets
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.spec.run import LoraSpec, ModelSpec
from tests.assets.test_models import hub_answers
from tests.model_checks import TINY

CONFIG = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"})


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    return Assets(tmp_path / "cache", quiet=True)


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text(CONFIG if name == "adapter_config.json" else "{}")
    return path


def refusal(assets: Assets, name: str) -> str:
    with pytest.raises(UsageError) as error:
        assets.model(ModelSpec(name=name))
    return str(error.value)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_beside_weights_is_refused_with_what_to_do(assets: Assets, tmp_path: Path, file: str) -> None:
    path = folder(tmp_path / "mixed", "config.json", "model.safetensors", file)
    says = refusal(assets, str(path))
    assert f"{path} holds an adapter's files ({file}) beside a model's weights" in says
    assert "delete those files" in says
    assert merging(str(path), f"{path}-adapter", f"{path}-merged") in says
    (path / file).unlink()
    assert assets.model(ModelSpec(name=str(path))).path == path


@pytest.mark.parametrize("more", [(), ("config.json", "tokenizer.json")])
def test_an_adapter_alone_is_recognised_as_one(assets: Assets, tmp_path: Path, more: tuple[str, ...]) -> None:
    path = folder(tmp_path / "alone", "adapter_config.json", "adapter_model.safetensors", *more)
    says = refusal(assets, str(path))
    assert f"{path} holds an adapter alone" in says
    assert merging("org/base", str(path), f"{path}-merged") in says
    (path / "adapter_config.json").write_text("[")
    assert "merge it into the model that it changes with" in refusal(assets, str(path))


def test_an_adapter_on_the_hub_is_refused_as_well(
    assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / ("0123456789" * 4), "adapter_config.json", "adapter_model.safetensors")
    calls = hub_answers(monkeypatch, path)
    says = refusal(assets, "hf:org/name")
    assert merging("org/base", "org/name", "name-merged") in says
    assert "adapter_config.json" in calls[0]["allow_patterns"]
    for name in ("config.json", "model.safetensors"):
        (path / name).write_text("{}")
    assert "hf:org/name holds an adapter's files" in refusal(assets, "hf:org/name")
    assert len(calls) == 2


def test_a_dry_run_refuses_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path / "mixed", "config.json", "model.safetensors", "adapter_config.json")
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--store", str(tmp_path / "store")]
    assert main([*words, "--model", str(path), "--dry-run"]) == 2
    assert "holds an adapter's files (adapter_config.json)" in capsys.readouterr().err


def adapted(where: Path) -> Any:
    """An adapter of ``tiny`` that changes it, saved alone in ``where``."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    module = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)).eval()
    module.save_pretrained(where)
    return module


def test_the_command_merges_an_adapter_into_a_full_folder(assets: Assets, tmp_path: Path) -> None:
    import torch

    from bench.model.lora import LoraModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = adapted(tmp_path / "it's one")
    says = refusal(assets, str(tmp_path / "it's one"))
    words = shlex.split(says[says.index("python -c") : says.index(" and name ")])
    assert words[:2] == ["python", "-c"]
    (tmp_path / "command.py").write_text(words[2])
    runpy.run_path(str(tmp_path / "command.py"))
    merged = ModelSpec(name=str(tmp_path / "it's one-merged"))
    model = LoraModel.load(assets.model(merged).path, merged, LoraSpec(), "cpu")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found, expected = model.module(input_ids=ids).logits, module(input_ids=ids).logits
    torch.testing.assert_close(found, expected.to(found.dtype), atol=0.02, rtol=0.02)
