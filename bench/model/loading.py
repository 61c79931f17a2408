"""Reads a base model from a directory, freezes it and puts LoRA on it. Imported by ``lora`` and ``probe`` alone.

Nothing is fetched, no code of the model's directory is run, and weights are safetensors only (no pickle).
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import UsageError
from bench.core.meter import cores
from bench.spec.run import LoraSpec, ModelSpec

if TYPE_CHECKING:
    import torch

#: parts of the names of projections that attention reads its input by
_ATTENTION = ("q_", "qkv", "query", "attn")


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is a GPU, else the CPU. Raises UsageError for a device that is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"'{name}' is no device; use auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"'{name}' is no supported device; use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"There is no device '{name}' here: PyTorch sees {torch.cuda.device_count()} CUDA devices.")
    return device


def bound_threads() -> None:
    """At most as many PyTorch threads as cores this process may use: with more, all are several times slower."""
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), cores()))


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of the model's directory. Raises UsageError."""
    from transformers import AutoTokenizer

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            tokenizer("a", verbose=False)  # settings of the wrong type come to light here
            return tokenizer
        except BaseException as error:
            _let_through(error)
            raise UsageError(f"{path} holds no tokenizer that transformers can load: {_first_line(error)}") from None


def load_base(path: Path, spec: ModelSpec, device: torch.device) -> Any:
    """The frozen causal language model of ``path`` on ``device``. Raises UsageError."""
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": getattr(torch, spec.dtype)}
    if spec.quantize != "none":
        options |= {"quantization_config": _quantization(spec), "device_map": {"": device}}
    with _quiet():
        try:
            base, info = AutoModelForCausalLM.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except BaseException as error:
            _let_through(error)
            reason = _first_line(error)
            raise UsageError(
                f"{path} holds no causal language model that transformers can load from safetensors: {reason}"
            ) from None
    if info["missing_keys"]:
        # transformers would fill them with random numbers
        raise UsageError(f"{path}: the weights lack {len(info['missing_keys'])} of the model's tensors.")
    if base.get_output_embeddings() is None or base.get_input_embeddings() is None:
        raise UsageError(f"{path}: the model has no embedding or no output layer of its own, so it gives no losses.")
    base.requires_grad_(False)
    return base.eval() if spec.quantize != "none" else base.to(device).eval()


def skeleton(path: Path) -> Any:
    """The model of ``path`` without its weights, from its config.json alone. Raises UsageError."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with _quiet(), torch.device("meta"):
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except BaseException as error:
            _let_through(error)
            raise UsageError(
                f"{path} holds no causal language model that transformers can load: {_first_line(error)}"
            ) from None


def add_lora(base: Any, spec: LoraSpec, device: torch.device) -> Any:
    """``base`` with float32 LoRA matrices on every projection that ``choose_targets`` gives, as a PeftModel."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=list(choose_targets(base, spec.targets)),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    # peft draws the initial matrices from the global generator; they are overwritten, and its state is put back.
    with torch.random.fork_rng([device] if device.type == "cuda" else []), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = get_peft_model(base, config, autocast_adapter_dtype=True).to(device).eval()
    for layer in module.modules():
        # in evaluation mode on a CPU, bitsandbytes packs 4-bit weights into a form that passes no gradient on
        if type(layer).__name__ == "Linear4bit":
            layer.train()
    return module


def choose_targets(base: Any, targets: tuple[str, ...]) -> tuple[str, ...]:
    """``targets``, where every one is the end of the name of a linear layer. Where the default ones are not, those that
    PEFT has for the model's architecture.

    Raises UsageError naming a target that matches no linear layer, the projections that there are, and what to write.
    """
    import torch
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL
    from transformers.pytorch_utils import Conv1D

    layers = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    absent = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in layers)]
    if targets and not absent:
        return targets
    kind, head = base.config.model_type, base.get_output_embeddings()
    known = sorted({name.rpartition(".")[2] for name in layers if base.get_submodule(name) is not head})
    usual = USUAL.get(kind) if targets == LoraSpec().targets else None
    if usual and not isinstance(usual, str) and set(usual) <= set(known):
        return tuple(usual)
    reason = f"names '{absent[0]}', and this model ({kind}) has no such projection" if absent else "is empty"
    likely = [name for name in known if any(part in name for part in _ATTENTION)] or known[:1]
    raise UsageError(
        f"federation.lora.targets {reason}; it has {', '.join(known)}: choose of them, "
        f"for instance --set federation.lora.targets='{json.dumps(likely[:2])}'."
    )


def _quantization(spec: ModelSpec) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f"model.quantize={spec.quantize} needs the package bitsandbytes, which is not installed; "
            "install it or set model.quantize=none."
        )
    import torch
    from transformers import BitsAndBytesConfig

    if spec.quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, spec.dtype)
    )


def _let_through(error: BaseException) -> None:
    """Raise again what is not the fault of a file from anybody, on which libraries fail with errors of all types, with
    a bare ``Exception`` and with panics of Rust, which are none."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | UsageError | MemoryError):
        raise error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and notices; both settings are put back."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
