"""Names of base models: packaged, converted, local, and on the hub (whose client is replaced or offline)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bench.assets.assets
import bench.assets.convert
from bench.assets.assets import Assets
from bench.core.errors import UsageError
from bench.spec.run import ModelSpec


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    return Assets(tmp_path / "cache", quiet=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that looks like a model."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "tokenizer.json").write_text("{}")
    return path


def test_an_unknown_name_gives_the_nearest(assets: Assets) -> None:
    with pytest.raises(UsageError, match="Did you mean 'smollm2-135m'"):
        assets.model(ModelSpec(name="smolm2-135"))
    with pytest.raises(UsageError, match=r"directory no/such does not exist\. .* named 'hf:no/such'\.$"):
        assets.model(ModelSpec(name="no/such"))


def test_a_pinned_name_takes_no_revision(assets: Assets) -> None:
    with pytest.raises(UsageError, match="pinned already"):
        assets.model(ModelSpec(name="tiny", revision="main"))


def test_the_identity_of_a_local_directory_is_its_contents(assets: Assets, model: Path, tmp_path: Path) -> None:
    first = assets.model(ModelSpec(name=str(model)))
    assert first.path == model
    assert first.revision == f"sha256:{first.sha256}"
    moved = model.rename(tmp_path / "elsewhere")
    assert assets.model(ModelSpec(name=str(moved), revision=first.revision)).sha256 == first.sha256
    (moved / "notes.txt").write_text("no part of the model")
    assert assets.model(ModelSpec(name=str(moved))).sha256 == first.sha256
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        before = assets.model(ModelSpec(name=str(moved))).sha256
        (moved / name).write_bytes(b"something else")
        assert assets.model(ModelSpec(name=str(moved))).sha256 != before
    with pytest.raises(UsageError, match="has changed"):
        assets.model(ModelSpec(name=str(moved), revision=first.revision))


def test_a_local_model_is_hashed_once(assets: Assets, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = assets.model(ModelSpec(name=str(model)))
    monkeypatch.setattr("bench.assets.cache.sha256_file", lambda path: pytest.fail(f"{path} was hashed again"))
    assert assets.model(ModelSpec(name=str(model))) == first


@pytest.mark.parametrize(
    ("gone", "there", "says"),
    [
        ("config.json", None, "no config.json"),
        ("model.safetensors", None, "no \\*.safetensors"),
        ("model.safetensors", "pytorch_model.bin", "pickle \\(pytorch_model.bin\\).*save the model as safetensors"),
    ],
)
def test_what_is_no_safe_model_is_refused(assets: Assets, model: Path, gone: str, there: str | None, says: str) -> None:
    (model / gone).unlink()
    if there:
        (model / there).write_bytes(b"cos\nsystem\n")
    with pytest.raises(UsageError, match=says):
        assets.model(ModelSpec(name=str(model)))


@pytest.mark.parametrize("name", ["hf:", "hf:one", "hf:a/b/c", "hf:../etc", "hf:a/ b", "hf:a/b?x"])
def test_a_malformed_hub_name_is_refused_without_asking_the_hub(assets: Assets, name: str) -> None:
    with pytest.raises(UsageError, match="names no model"):
        assets.model(ModelSpec(name=name))


def hub_answers(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    import huggingface_hub

    calls: list[dict[str, Any]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        calls.append({"name": name, **options})
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_hub_model_is_pinned_by_its_commit_and_holds_no_code(
    assets: Assets, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    commit = "0123456789abcdef" * 2 + "01234567"
    calls = hub_answers(monkeypatch, model.rename(model.parent / commit))
    source = assets.model(ModelSpec(name="hf:org/name", revision="v1"))
    assert source.revision == commit
    assert source.sha256 is None
    (call,) = calls
    assert (call["name"], call["revision"]) == ("org/name", "v1")
    offered = ["config.json", "tokenizer.json", "tokenizer_config.json", "model-00001-of-00002.safetensors"]
    offered += ["model.safetensors.index.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja"]
    refused = ["pytorch_model.bin", "modeling_evil.py", "training_args.bin", "original/model.safetensors", "x.pkl"]
    patterns = {key: call[key] for key in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects([*offered, *refused], **patterns)) == offered


def test_a_snapshot_without_a_commit_is_refused(assets: Assets, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, model)
    with pytest.raises(UsageError, match="not named by a commit"):
        assets.model(ModelSpec(name="hf:org/name"))


def test_a_full_disk_under_the_hub_is_a_sentence(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, OSError(28, "No space left on device"))
    with pytest.raises(UsageError, match="not enough space in the Hugging Face cache"):
        assets.model(ModelSpec(name="hf:org/name"))


def test_a_defect_of_ours_is_not_blamed_on_the_network(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, TypeError("a wrong call"))
    with pytest.raises(TypeError):
        assets.model(ModelSpec(name="hf:org/name"))


def test_offline_the_real_client_ends_in_a_sentence(tmp_path: Path) -> None:
    code = "from bench.assets.assets import *; Assets(quiet=True).model(ModelSpec(name='hf:org/name'))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "UsageError: hf:org/name is not cached and the Hugging Face hub can't be reached" in done.stderr


def fake_conversion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Conversion and fetching replaced by writing small files; returns the list of conversions made."""
    made: list[Path] = []

    def convert(gguf: Path, target: Path, quiet: bool) -> None:
        made.append(target)
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(gguf.read_bytes())

    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"quantised weights")
    monkeypatch.setattr(bench.assets.convert, "convert", convert)
    monkeypatch.setattr(Assets, "file", lambda self, asset: gguf)
    return made


def test_smollm2_is_converted_once_and_checked_after(
    assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake_conversion(monkeypatch, tmp_path)
    first = assets.model(ModelSpec(name="smollm2-135m"))
    assert assets.model(ModelSpec(name="smollm2-135m")) == first
    assert len(made) == 1
    assert not made[0].exists()  # renamed into its place
    assert (first.sha256, first.revision) == (bench.assets.assets.SMOLLM2.sha256, None)
    assert {c.path.name: c.problem for c in assets.verify()} == {"config.json": "", "model.safetensors": ""}
    (first.path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"model\.safetensors is corrupt.*delete"):
        assets.model(ModelSpec(name="smollm2-135m"))
    assert [c.path.name for c in assets.verify() if c.problem] == ["model.safetensors"]


def test_present_names_what_is_here_and_fetches_nothing(
    assets: Assets, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert assets.present("smollm2-135m") is None
    assert assets.present("hf:org/name") is None
    assert assets.present(str(model)) == model
    fake_conversion(monkeypatch, tmp_path)
    assert assets.present("smollm2-135m") is None
    made = assets.model(ModelSpec(name="smollm2-135m")).path
    assert assets.present("smollm2-135m") == made


@pytest.mark.parametrize("text", ["", "{}", '{"files": {}}', '{"files": {"../../x": "0"}}', '{"files": 3}'])
def test_a_damaged_manifest_is_refused(
    assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    fake_conversion(monkeypatch, tmp_path)
    path = assets.model(ModelSpec(name="smollm2-135m")).path
    (path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="is damaged"):
        assets.model(ModelSpec(name="smollm2-135m"))
    assert any(c.problem for c in assets.verify())


def test_a_conversion_that_fails_leaves_nothing(
    assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real child process, on bytes that are no GGUF."""
    real = bench.assets.convert.convert
    fake_conversion(monkeypatch, tmp_path)
    monkeypatch.setattr(bench.assets.convert, "convert", real)
    with pytest.raises(UsageError, match="could not be converted"):
        assets.model(ModelSpec(name="smollm2-135m"))
    assert not list((assets.cache / "models").glob("*/"))


@pytest.mark.slow
def test_the_converted_weights_are_the_dequantised_ones(tmp_path: Path) -> None:
    """Against the GGUF library's own dequantisation, tensor by tensor (fetches and converts for real)."""
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.numpy import load_file

    assets = Assets()
    gguf, source = assets.file(bench.assets.assets.SMOLLM2), assets.model(ModelSpec(name="smollm2-135m"))
    ours = load_file(source.path / "model.safetensors")
    plain = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for i in range(30):
        parts = {"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_down": "mlp.down_proj"}
        plain |= {f"blk.{i}.{a}.weight": f"model.layers.{i}.{b}.weight" for a, b in parts.items()}
    found = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    for theirs, name in plain.items():
        tensor = found[theirs]
        np.testing.assert_array_equal(ours[name], dequantize(tensor.data, tensor.tensor_type).reshape(ours[name].shape))
    assert all(values.dtype == np.float32 for values in ours.values())
