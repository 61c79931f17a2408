"""Tokens per second through the harness against a bare PyTorch + PEFT loop at the same batch.

``python -m tests.perf.throughput [--model DIR_OR_NAME] [--pairs 5]`` times whole epochs in turn (A B A B ...), so that
the machine's drift cancels, and prints the median ratio harness / bare.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from bench.assets.assets import Assets
from bench.core.streams import SecretStreams, Streams
from bench.core.tokens import Tokens
from bench.defense.defaults.trainer import GradientTrainer
from bench.defense.parts import TrainJob
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec, LoraSpec, ModelSpec


def random_tokens(vocabulary: int, records: int, length: int) -> Tokens:
    ids = np.random.default_rng(0).integers(0, vocabulary, (records, length)).astype(np.int32)
    predicted = np.ones((records, length), dtype=bool)
    predicted[:, 0] = False
    return Tokens(ids, np.full(records, length, np.int32), predicted, np.full(records, -1, np.int32))


def bare(path: Path, lora: LoraSpec, local: LocalSpec, tokens: Tokens) -> Callable[[], None]:
    """The loop that anyone would write: labels in, loss out, AdamW."""
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0)
    model = get_peft_model(base, config)
    ids = torch.from_numpy(tokens.ids.astype(np.int64))

    def epoch() -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=local.lr, weight_decay=0.0)
        for start in range(0, len(ids), local.batch):
            batch = ids[start : start + local.batch]
            optimizer.zero_grad(set_to_none=True)
            model(input_ids=batch, labels=batch, attention_mask=torch.ones_like(batch)).loss.backward()
            optimizer.step()

    return epoch


def harness(path: Path, lora: LoraSpec, local: LocalSpec, tokens: Tokens) -> Callable[[], None]:
    """The default trainer, exactly as a silo calls it."""
    model = LoraModel.load(path, ModelSpec(), lora)
    trainer = GradientTrainer()
    start = model.initial_adapter(np.random.default_rng(0))

    def epoch() -> None:
        model.set_adapter(start)
        order, secret = Streams(0).generator("silo", 0, 0), SecretStreams("silo-0")
        trainer.train(TrainJob(model, tokens, local, local.lr, 0, 1, len(tokens), order, secret, {}))
        model.get_adapter()

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--records", type=int, default=32)
    parser.add_argument("--length", type=int, default=48)
    options = parser.parse_args()
    path = Assets().model(ModelSpec(name=options.model)).path
    lora, local = LoraSpec(), LocalSpec(epochs=1, batch=8)
    tokens = random_tokens(2000, options.records, options.length)
    runs = [harness(path, lora, local, tokens), bare(path, lora, local, tokens)]
    for run in runs:
        run()
    ratios, rates = [], []
    for _ in range(options.pairs):
        seconds = []
        for run in runs:
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        ratios.append(seconds[1] / seconds[0])
        rates.append(options.records * options.length / seconds[0])
    print(f"harness {statistics.median(rates):.0f} tokens/s (median of {options.pairs})")
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"ratio to bare PyTorch + PEFT: {middle:.3f} (min {low:.3f}, max {high:.3f})")


if __name__ == "__main__":
    main()
