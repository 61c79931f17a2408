"""Turns a GGUF checkpoint into a directory of safetensors (float32) with its tokenizer: ``python -m
bench.assets.convert``.

Run as a process of its own, so that its memory (about three times the model) and the progress bars it draws are no
part of a run. transformers reads GGUF in tens of seconds and refuses to save what it read so; the copy made here loads
in a fraction of one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.assets.cache import no_space
from bench.assets.child import run_module
from bench.core.errors import UsageError
from bench.core.meter import cores

#: part of the converted directory's name: a change of the conversion makes a new directory
VERSION = 1
#: bytes of float32 safetensors per byte of a 4- or 5-bit GGUF, rounded up
GROWTH = 8


def convert(gguf: Path, target: Path, quiet: bool) -> None:
    """Convert ``gguf`` into the directory ``target`` in a child process. Raises UsageError with its last line."""
    # no network: everything is in the file, and a hub that can't be reached would only cost a time-out
    environment = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        status, errors = run_module("bench.assets.convert", [str(gguf), str(target)], quiet, environment)
    except subprocess.TimeoutExpired:
        raise UsageError(f"Converting {gguf} took over an hour and was stopped; run again.") from None
    if status == 0:
        return
    if "No space left" in errors:
        raise no_space(target.parent, f"the converted {gguf.name}", GROWTH * gguf.stat().st_size)
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"exit status {status}"
    raise UsageError(
        f"{gguf} could not be converted to safetensors ({reason}); check that memory is free and run again."
    )


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(cores())
    source, name = str(gguf.parent), gguf.name
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(target)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
