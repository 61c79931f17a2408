"""A private LoRA step against a plain one, and clipped sums against a loop over records.

``python -m tests.perf.dp [--pairs 7] [--model DIR_OR_NAME]`` times one optimiser step of 8 records of 48 tokens,
exactly as a silo calls its trainer: plain (``GradientTrainer``), then DP-SGD with gradients from the adapter's own maps
and from Opacus' hooks, and Opacus' ghost clipping, which is no option here. The kinds take turns (A B C D A B ...), so
that the machine's drift cancels; seconds are of processor time, all threads together. Without ``--model`` the model has
the shape of SmolLM2-135M and random weights, on which the time does not depend.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.assets.assets import Assets
from bench.core.streams import SecretStreams, Streams
from bench.core.tokens import Tokens
from bench.defense.defaults.trainer import GradientTrainer
from bench.defense.parts import Trainer, Training, TrainJob
from bench.model import loading
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec, LoraSpec, ModelSpec
from defenses.trainers.dp_sgd import DPSGD
from tests.perf.throughput import random_tokens

CLIP = 0.5


def load(name: str | None, lora: LoraSpec) -> LoraModel:
    if name is not None:
        path = Path(name) if Path(name).is_dir() else Assets().model(ModelSpec(name=name)).path
        return LoraModel.load(path, ModelSpec(), lora, "cpu")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    loading.bound_threads()
    cpu = torch.device("cpu")
    base = LlamaForCausalLM(config).requires_grad_(False).eval()
    return LoraModel(loading.add_lora(base, lora, cpu), None, cpu)


class Ghost(DPSGD):
    """Ghost clipping (Li et al. 2022): norms from a first backward pass, the clipped sum from a second."""

    def train(self, job: TrainJob) -> Training:
        from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping

        module, parameters = job.model.module, job.model.parameters()
        owners = [m for m in module.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        for owner in owners:
            owner.training = True
        hooks = GradSampleHooksFastGradientClipping(
            module, loss_reduction="sum", max_grad_norm=self.clip, use_ghost_clipping=True
        )
        optimizer = torch.optim.AdamW(parameters, lr=job.lr)
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        losses = job.model.losses(job.tokens)
        losses.sum().backward(retain_graph=True)
        factors = hooks.get_clipping_coef()
        for parameter in parameters:
            parameter.grad = None
        hooks.disable_hooks()
        (factors.detach() * losses).sum().backward()
        self.sums = np.concatenate([p.grad.numpy().ravel() for p in parameters if p.grad is not None])
        noise = job.secret.generator("noise")
        for parameter in parameters:
            drawn = torch.from_numpy(noise.standard_normal(tuple(parameter.shape)) * self.clip).float()
            parameter.grad = ((parameter.grad + drawn) / len(job.tokens)) if parameter.grad is not None else drawn
        optimizer.step()
        hooks.cleanup()
        for owner in owners:
            owner.training = False
        return Training(1, 0, (), ())


def step(model: LoraModel, tokens: Tokens, trainer: Trainer, start: Any) -> Callable[[], None]:
    """One round of one step over all records."""
    local = LocalSpec(steps=1, batch=len(tokens))

    def run() -> None:
        model.set_adapter(start)
        order, secret = Streams(0).generator("silo", 0, 0), SecretStreams("silo-0")
        trainer.train(TrainJob(model, tokens, local, local.lr, 0, 1, len(tokens), order, secret, {}))

    return run


def loop(model: LoraModel, tokens: Tokens) -> np.ndarray:
    """The clipped sum by autograd, a record at a time, in float64."""
    total: Any = 0.0
    for row in range(len(tokens)):
        gradients = torch.autograd.grad(model.losses(tokens.take([row])).sum(), model.parameters())
        flat = torch.cat([g.double().ravel() for g in gradients])
        total = total + flat * min(1.0, CLIP / float(flat.norm()))
    return np.asarray(total)


def clipped(model: LoraModel, tokens: Tokens, trainer: DPSGD) -> np.ndarray:
    with trainer.prepared(model) as (_, backend):
        batch = trainer.clipped_sum(backend, model, tokens, np.arange(len(tokens)), CLIP)
    return np.concatenate([t.numpy().ravel() for t in batch.total])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--records", type=int, default=8)
    parser.add_argument("--length", type=int, default=48)
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args()
    model = load(options.model, LoraSpec(rank=options.rank))
    tokens = random_tokens(2000, options.records, options.length)
    start = np.random.default_rng(0).normal(0, 0.02, model.layout.size).astype(np.float32)
    private = {k: DPSGD(None, 1.0, CLIP, None, options.records, gradients=k) for k in ("fast", "opacus")}
    ghost = Ghost(None, 1.0, CLIP)

    model.set_adapter(start)
    expected = loop(model, tokens)
    sums = {name: clipped(model, tokens, trainer) for name, trainer in private.items()}
    runs = {"plain": GradientTrainer(), **private, "ghost": ghost}
    steps = {name: step(model, tokens, trainer, start) for name, trainer in runs.items()}
    for run in steps.values():
        run()
    sums["ghost"] = ghost.sums
    for name, found in sums.items():
        far = np.abs(found - expected).max() / np.abs(expected).max()
        print(f"{name}: largest difference to the loop {far:.1e} of the sum's largest value")

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.pairs):
        for name, run in steps.items():
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    print(f"plain: {statistics.median(seconds['plain']):.3f} s a step (median of {options.pairs})")
    for name in ("fast", "opacus", "ghost"):
        ratios = [own / plain for own, plain in zip(seconds[name], seconds["plain"], strict=True)]
        print(f"{name} / plain: {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})")


if __name__ == "__main__":
    main()
