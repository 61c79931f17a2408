"""What all likelihood scores of a model cost beside one bare forward pass over the same candidates.

``python -m tests.perf.scores [--model DIR_OR_NAME] [--pairs 5] [--records 64]`` times whole passes in turn (A B A B
...), so that the machine's drift cancels, and prints the median ratio: everything that ``mia`` computes of one adapter
(``LoraModel.stats``, then every score) over the model's own forward pass with its loss. On a processor the time is the
process's own. Reach at most 1.10.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from attacks import scores
from bench.assets.assets import Assets
from bench.core.tokens import Tokens, TokenStats
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec

FRACTIONS = (0.1, 0.2, 0.3)
BATCH = 16


def candidates(vocabulary: int, records: int, length: int) -> Tokens:
    """Records of two thirds to all of ``length`` tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2 * length // 3, length + 1, records).astype(np.int32)
    inside = np.arange(length) < lengths[:, None]
    ids = (rng.integers(1, vocabulary, (records, length)) * inside).astype(np.int32)
    predicted = inside.copy()
    predicted[:, 0] = False
    return Tokens(ids, lengths, predicted, np.full(records, -1, np.int32))


def bare(model: LoraModel, tokens: Tokens) -> Callable[[], None]:
    """The loop that anyone would write: padded batches, longest first, and the loss that the model returns."""

    @torch.no_grad()
    def run() -> None:
        order = np.argsort(-tokens.lengths, kind="stable")
        for start in range(0, len(tokens), BATCH):
            part = tokens.take(order[start : start + BATCH])
            ids = torch.from_numpy(part.ids.astype(np.int64)).to(model.device)
            mask = torch.from_numpy((np.arange(ids.shape[1]) < part.lengths[:, None]).astype(np.int64)).to(model.device)
            labels = torch.where(mask > 0, ids, -100)
            float(model.module(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss)

    return run


def every_score(model: LoraModel, tokens: Tokens, texts: list[str], base: TokenStats) -> Callable[[], None]:
    def run() -> None:
        stats = model.stats(tokens, batch=BATCH)
        tuned, _ = scores.from_stats(stats, texts, FRACTIONS)
        before, _ = scores.from_stats(base, texts, FRACTIONS)
        scores.calibrated(tuned, before)
        scores.from_pair(stats, base, scores.WINDOWS)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--records", type=int, default=64)
    parser.add_argument("--length", type=int, default=48)
    options = parser.parse_args()
    spec = ModelSpec(name=options.model)
    model = LoraModel.load(Assets().model(spec).path, spec, LoraSpec())
    model.set_adapter(model.initial_adapter(np.random.default_rng(0)))
    tokens = candidates(model.vocab_size, options.records, options.length)
    texts = [model.decode(ids[:n]) for ids, n in zip(tokens.ids, tokens.lengths, strict=True)]
    runs = [every_score(model, tokens, texts, model.stats(tokens)), bare(model, tokens)]
    for run in runs:
        run()
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    ratios, rates = [], []
    for _ in range(options.pairs):
        seconds = []
        for run in runs:
            begin = clock()
            run()
            seconds.append(clock() - begin)
        ratios.append(seconds[0] / seconds[1])
        rates.append(options.records / seconds[0])
    print(f"all scores of {options.records} records: {statistics.median(rates):.1f} records/s")
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"ratio to one bare forward pass: {middle:.3f} (min {low:.3f}, max {high:.3f})")


if __name__ == "__main__":
    main()
