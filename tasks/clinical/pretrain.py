"""Makes the ``tiny`` model: ``python -m tasks.clinical.pretrain --out bench/models/tiny``.

A Llama of about one million parameters and a byte-level BPE tokenizer, both trained on generated notes of patients whom
no task can have (seeds from ``TASK_SEEDS`` on). Nine in ten are in the general style, with their outcome. The others
are in the task's style, most without an outcome, and where the course is told in that style's own words any outcome
follows: the model can read the task's notes, but neither expects an outcome after them nor knows what those words
mean. That is left for fine-tuning to learn; whatever else it learns is the records.

The result depends on the arguments alone, up to rounding by the machine's arithmetic. Prints the perplexity on notes of
other patients beside that of the unigram model.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from bench.core.streams import Streams
from tasks.clinical.generator import ANSWER_PREFIX, TASK_SEEDS, Note, notes
from tasks.clinical.phrases import COURSE, COURSE_WARD, GENERAL, OUTCOMES, WARD

GENERAL_SEED = TASK_SEEDS
#: task's style: courses in shared words, courses in its own words, held out
WARD_SEEDS = (TASK_SEEDS + 1, TASK_SEEDS + 2, TASK_SEEDS + 3)
END = "<|endoftext|>"
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
IGNORED = -100  # torch's own mark of a position without loss


@dataclass(frozen=True)
class Plan:
    """How long and how fast. ``notes`` are seen in shuffled passes; ``heldout`` notes of later patients are not."""

    steps: int = 1600
    batch: int = 32
    lr: float = 4e-3
    warmup: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    notes: int = 36_000
    ward_notes: int = 4_000
    ward_outcomes: float = 0.1
    heldout: int = 400
    vocabulary: int = 2048
    tokenizer_notes: int = 20_000


@dataclass(frozen=True)
class Corpus:
    """Texts as (note, answer) pairs to train on, and two held-out sets of other patients, one in each style."""

    train: list[tuple[str, str]]
    general: list[tuple[str, str]]
    ward: list[tuple[str, str]]


def corpus(plan: Plan) -> Corpus:
    """All that the model is made from and judged by."""
    everything = notes(GENERAL_SEED, plan.notes + plan.heldout + 1, GENERAL)
    general, later = everything[: plan.notes], everything[plan.notes :]
    seen = {note.patient for note in general}
    other = [note for note in later if note.patient not in seen][: plan.heldout]
    return Corpus(_pairs(general) + _ward_pairs(plan), _pairs(other), _pairs(notes(WARD_SEEDS[2], plan.heldout, WARD)))


def _ward_pairs(plan: Plan) -> list[tuple[str, str]]:
    """Notes in the task's style, a third of them with a course in its own words; few have an outcome."""
    rng = Streams(GENERAL_SEED).generator("pretraining/outcomes")
    own = plan.ward_notes // 3
    shared = _pairs(notes(WARD_SEEDS[0], plan.ward_notes - own, replace(WARD, course=COURSE)))
    unknown = [
        (note.text, f"{ANSWER_PREFIX} {OUTCOMES[int(rng.integers(len(OUTCOMES)))]}")
        for note in notes(WARD_SEEDS[1], own, replace(WARD, course=COURSE_WARD))
    ]
    return [(text, answer if rng.random() < plan.ward_outcomes else "") for text, answer in shared + unknown]


def _pairs(items: Sequence[Note]) -> list[tuple[str, str]]:
    return [(note.text, note.answer) for note in items]


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of ``vocabulary`` tokens with one special token, ``END``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Token ids of every note, its answer and ``END``; the pieces tokenised one by one, as ``LoraModel`` does."""
    prefix = tokenizer.encode(ANSWER_PREFIX).ids
    answers = {f"{ANSWER_PREFIX} {outcome}": prefix + tokenizer.encode(f" {outcome}").ids for outcome in OUTCOMES}
    answers[""] = []
    end = [tokenizer.token_to_id(END)]
    texts = tokenizer.encode_batch([text for text, _ in pairs])
    return [text.ids + answers[answer] + end for text, (_, answer) in zip(texts, pairs, strict=True)]


def new_model(vocabulary: int, seed: int) -> Any:
    """A randomly initialised model (normal, standard deviation 0.02; norms 1), drawn from its own generator."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, bos_token_id=0, eos_token_id=0, **SHAPE))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.normal_(0.0, 0.02, generator=generator)
    return model


def _loss(model: Any, rows: Sequence[list[int]], reduction: str) -> torch.Tensor:
    """Over the tokens of all rows; no mask is needed, as padding is on the right of a causal model."""
    tensors = [torch.tensor(row) for row in rows]
    ids = pad_sequence(tensors, batch_first=True)
    targets = pad_sequence(tensors, batch_first=True, padding_value=IGNORED)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED, reduction=reduction
    )


def _batches(lengths: NDArray[np.int64], plan: Plan) -> list[NDArray[np.int64]]:
    """``plan.steps`` batches of indices: shuffled passes, notes of similar length together."""
    rng = Streams(GENERAL_SEED).generator("pretraining/order")
    found: list[NDArray[np.int64]] = []
    while len(found) < plan.steps:
        blocks = np.array_split(rng.permutation(len(lengths)), max(1, len(lengths) // (plan.batch * 32)))
        sorted_blocks = [block[np.argsort(lengths[block], kind="stable")] for block in blocks]
        epoch = [b for block in sorted_blocks for b in np.array_split(block, max(1, len(block) // plan.batch))]
        found += [epoch[i] for i in rng.permutation(len(epoch))]
    return found[: plan.steps]


def train(model: Any, rows: Sequence[list[int]], plan: Plan) -> None:
    """AdamW with linear warm-up and cosine decay to zero, in place; prints the loss now and then."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.98))

    def scale(step: int) -> float:
        return min((step + 1) / plan.warmup, 0.5 * (1 + math.cos(math.pi * step / plan.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    began = time.monotonic()
    for step, batch in enumerate(_batches(np.array([len(r) for r in rows]), plan), 1):
        loss = _loss(model, [rows[i] for i in batch], "mean")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_grad_norm)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == plan.steps:
            print(f"step {step}/{plan.steps}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True)


def perplexity(model: Any, rows: Sequence[list[int]]) -> float:
    """exp of the mean negative log-likelihood over all tokens but the first of each row."""
    with torch.no_grad():
        total = sum(_loss(model, rows[i : i + 32], "sum").item() for i in range(0, len(rows), 32))
    return math.exp(total / sum(len(row) - 1 for row in rows))


def unigram_perplexity(train: Sequence[list[int]], heldout: Sequence[list[int]], vocabulary: int) -> float:
    """The same for the model that knows only how often each token occurs in ``train`` (add-one smoothed)."""
    counts = np.bincount(np.concatenate([row[1:] for row in train]), minlength=vocabulary) + 1.0
    logp = np.log(counts / counts.sum())
    return math.exp(-float(np.mean(logp[np.concatenate([row[1:] for row in heldout])])))


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write weights (float16), configuration and tokenizer beside ``out``, then move the files into it."""
    from transformers import PreTrainedTokenizerFast

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.half().save_pretrained(partial)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=512)
    fast.save_pretrained(partial)
    out.mkdir(parents=True, exist_ok=True)
    for file in partial.iterdir():
        file.chmod(0o644)
        file.replace(out / file.name)
    partial.rmdir()


def run(plan: Plan, out: Path) -> None:
    """The whole of it: text, tokenizer, model, training, both perplexities printed, files in ``out``."""
    data = corpus(plan)
    texts = [text + answer for text, answer in data.train]
    tokenizer = train_tokenizer(texts[:: max(1, len(texts) // plan.tokenizer_notes)], plan.vocabulary)
    rows = encode(tokenizer, data.train)
    model = new_model(plan.vocabulary, GENERAL_SEED)
    size = sum(p.numel() for p in model.parameters())
    print(f"{len(rows)} notes, {sum(map(len, rows))} tokens, {size} parameters")
    train(model, rows, plan)
    for name, pairs in (("general", data.general), ("ward", data.ward)):
        other = encode(tokenizer, pairs)
        unigram = unigram_perplexity(rows, other, plan.vocabulary)
        print(f"{name}: held-out perplexity {perplexity(model, other):.2f}, unigram {unigram:.1f}, {len(other)} notes")
    save(model, tokenizer, out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain the tiny model on generated clinical notes.")
    parser.add_argument(
        "--out", type=Path, required=True, help="directory to write; files of the same names are replaced"
    )
    parser.add_argument("--steps", type=int, default=Plan.steps, help=f"optimiser steps (default {Plan.steps})")
    parser.add_argument("--lr", type=float, default=Plan.lr, help=f"peak learning rate (default {Plan.lr})")
    arguments = parser.parse_args()
    began = time.monotonic()
    run(Plan(steps=arguments.steps, lr=arguments.lr), arguments.out)
    print(f"wrote {arguments.out} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
