"""Folders that hold an adapter's files, alone or beside a model's weights. Both are refused, with what to do.

transformers would put such an adapter on the model while it loads it, unasked; and nothing in the folder says whether
the weights beside it hold it already.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from bench.core.errors import UsageError
from bench.spec.foreign import Foreign, read

CONFIG = "adapter_config.json"
_FILES = (CONFIG, "adapter_model.safetensors", "adapter_model.bin")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


def refuse_adapters(path: Path, name: str) -> None:
    """Raises UsageError where the folder of the model ``name`` holds an adapter's files."""
    there = [file for file in _FILES if (path / file).is_file()]
    if not there:
        return
    listed, hub = " and ".join(there), name.startswith("hf:")
    source = name.removeprefix("hf:").rstrip("/")
    merged = (source.rpartition("/")[2] if hub else source) + "-merged"
    if not any(file.name not in _FILES for pattern in _WEIGHTS for file in path.glob(pattern)):
        base = _base(path)
        raise UsageError(
            f"{name} holds an adapter alone ({listed}), and no model: merge it into "
            f"{base or 'the model that it changes'} with {merging(base or 'BASE', source, merged)} "
            f"and name {merged} instead."
        )
    if hub:
        raise UsageError(
            f"{name} holds an adapter's files ({listed}) beside a model's weights, and nothing says whether the "
            "weights have it merged in: download the repository, delete those files where they have, else merge the "
            "adapter in, and name your directory instead."
        )
    moved = f"{source}-adapter"
    raise UsageError(
        f"{name} holds an adapter's files ({listed}) beside a model's weights, and nothing says whether the weights "
        f"have it merged in: where they have, delete those files; else move them to {moved}, merge them in with "
        f"{merging(source, moved, merged)} and name {merged} instead."
    )


def merging(base: str, adapter: str, merged: str) -> str:
    """The command that writes the model ``base`` with ``adapter`` merged in, and its tokenizer, into ``merged``."""
    # JSON's double quotes leave the shell's single ones to the whole
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in (base, adapter, merged))
    code = (
        "from peft import PeftModel; from transformers import AutoModelForCausalLM as Model, AutoTokenizer as Words; "
        f"base, adapter, merged = {names}; "
        "PeftModel.from_pretrained(Model.from_pretrained(base), adapter).merge_and_unload().save_pretrained(merged); "
        "Words.from_pretrained(base).save_pretrained(merged)"
    )
    return f"python -c {shlex.quote(code)}"


class _Config(Foreign, extra="ignore"):
    base_model_name_or_path: str


def _base(path: Path) -> str | None:
    """The model that the adapter was made for, where its configuration says."""
    try:
        found = read(_Config, path / CONFIG)
    except UsageError:
        return None
    return (found.base_model_name_or_path or None) if found else None
