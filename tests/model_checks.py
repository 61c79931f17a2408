"""Shared by the tests of the model: records, adapters, and its figures computed by other means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bench
from bench.core.tokens import Tokens
from bench.corpus.task import Record
from bench.model.lora import LoraModel
from bench.spec.run import ModelSpec

TINY = Path(bench.__file__).parent / "models" / "tiny"
SPEC = ModelSpec(name="tiny")
PREFIX = "\nOutcome:"
LABELS = (" improved", " unchanged", " worsened")
RECORDS = [
    Record("a", "Plan: an EEG.", answer="\nOutcome: improved"),
    Record("b", "Ada Bell, 44, was seen in surgery with wound pain for 6 days.", answer="\nOutcome: worsened"),
    Record("c", "Temperature 38.2, pulse 97, breathing rate 21 a minute, no fever since.", prompt="Record KX 482913: "),
    Record("d", "Given morphine 20 mg and paracetamol 500 mg at night.", prompt="Dr", answer="\nOutcome: unchanged"),
    Record("e", "He"),
    Record("f", "Dr Molliland raised apixaban from 5 mg to 10 mg. " * 3, answer="\nOutcome: improved"),
]


def plain(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def adapter(model: LoraModel, scale: float = 0.05, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, model.layout.size).astype(np.float32)


def own_logits(module: Any, tokens: Tokens, row: int) -> torch.Tensor:
    """(length, vocabulary) float64, one record alone, unpadded, through the module's own forward."""
    ids = torch.tensor(tokens.ids[row, : tokens.lengths[row]][None].astype(np.int64))
    return module(input_ids=ids).logits[0].double()


def assert_stats_match(model: LoraModel, module: Any, tokens: Tokens, tolerance: float = 1e-5) -> None:
    """Every figure of ``stats`` against softmax, sums and sums of squares written out in float64."""
    labels = [row[0] for row in model.label_rows(LABELS)]
    stats = model.stats(tokens, labels, batch=4)
    assert stats.mean is not None
    assert stats.sd is not None
    assert stats.choices is not None
    assert stats.first is not None
    with torch.no_grad():
        for row in range(len(tokens)):
            p = torch.softmax(own_logits(module, tokens, row), -1).numpy()
            log = np.log(p)
            for t in np.flatnonzero(tokens.predicted[row]):
                mu = (p[t - 1] * log[t - 1]).sum()
                sigma = np.sqrt((p[t - 1] * log[t - 1] ** 2).sum() - mu**2)
                assert stats.logp[row, t] == pytest.approx(log[t - 1, tokens.ids[row, t]], abs=tolerance)
                assert stats.mean[row, t] == pytest.approx(mu, abs=tolerance)
                assert stats.sd[row, t] == pytest.approx(sigma, abs=tolerance)
                below = log[t - 1].max() - log[t - 1, tokens.ids[row, t]]
                assert stats.first[row, t] == (below == 0) or below < tolerance
            at = tokens.answer[row]
            if at < 0:
                assert np.isnan(stats.choices[row]).all()
            else:
                assert stats.choices[row] == pytest.approx(log[at - 1, list(labels)], abs=tolerance)
    for values in (stats.logp, stats.mean, stats.sd, stats.first):
        assert (values[~tokens.predicted] == 0).all()


def taken_gradient(model: LoraModel) -> np.ndarray:
    parts = []
    for parameter in model.parameters():
        assert parameter.grad is not None
        parts.append(parameter.grad.numpy().ravel().copy())
        parameter.grad = None
    return np.concatenate(parts)


WORDS = ("river", "stone", "lamp", "garden", "copper", "window", "silent", "market", "paper", "bridge", "winter")


def byte_level(template: str | None, bos: str | None = "<bos>") -> Any:
    """A fast byte-level tokenizer whose post-processor adds what ``template`` says."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<bos>", "<sop>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    if template:
        ids = [(word, number) for number, word in enumerate(special)]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>", bos_token=bos)
