"""Goldfish loss: which tokens are dropped, by an independent hash, and that nothing of them reaches the update."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.core.tokens import Tokens
from bench.corpus.task import Record
from bench.defense.compose import fill
from bench.spec.run import LocalSpec
from defenses import goldfish
from defenses.trainers.goldfish import GoldfishTrainer, dropped
from tests.defenses.training_play import job, some_tokens, start, tiny, train


def made(rows: list[list[int]]) -> Tokens:
    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), np.int32)
    predicted = np.zeros(ids.shape, np.bool_)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        predicted[i, 1 : len(row)] = True
    lengths = np.array([len(row) for row in rows], np.int32)
    return Tokens(ids, lengths, predicted, np.full(len(rows), -1, np.int32))


def by_hand(before: list[int], k: int) -> bool:
    digest = hashlib.sha256(b"".join(struct.pack("<i", token) for token in before)).hexdigest()
    return int(digest[:16], 16) / 2**64 < 1 / k


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 500), min_size=2, max_size=30), min_size=1, max_size=4), st.integers(2, 5))
def test_against_a_hash_written_out(rows, k) -> None:
    tokens = made(rows)
    for early in (False, True):
        mask = dropped(tokens, k, 6, early)
        for i, row in enumerate(rows):
            for t in range(tokens.ids.shape[1]):
                real = 1 <= t < len(row) and (early or t >= 6)
                assert mask[i, t] == (real and by_hand(row[max(0, t - 6) : t], k))


@pytest.mark.parametrize("k", [2, 4, 10])
def test_one_token_in_k(k) -> None:
    """20,000 distinct contexts: 5 standard errors of the binomial."""
    ids = np.random.default_rng(0).integers(0, 50_000, (200, 113))
    mask = dropped(made(ids.tolist()), k, 13, early=False)
    assert not mask[:, :13].any()
    share = mask[:, 13:].mean()
    assert abs(share - 1 / k) < 5 * np.sqrt(1 / k * (1 - 1 / k) / 20_000)


def test_a_passage_loses_the_same_tokens_wherever_it_stands() -> None:
    passage = list(np.random.default_rng(1).integers(0, 500, 40))
    tokens = made([passage, [7, 8, 9, *passage], [3] * 11 + passage])
    one, moved, far = dropped(tokens, 3, 13, early=False)
    np.testing.assert_array_equal(one[13:40], moved[16:43])
    np.testing.assert_array_equal(one[13:40], far[24:51])
    assert 0 < one.sum() < 27


def test_what_stands_after_a_token_does_not_decide_about_it() -> None:
    row = list(np.random.default_rng(2).integers(0, 500, 40))
    other = [*row[:30], 1, *row[31:]]
    masks = dropped(made([row, other]), 2, 5, early=False)
    np.testing.assert_array_equal(masks[0, :31], masks[1, :31])  # a token's own value is no part of its hash
    assert not np.array_equal(masks[0, 31:36], masks[1, 31:36])
    np.testing.assert_array_equal(masks[0, 36:], masks[1, 36:])


def test_prompts_are_context_and_are_not_trained_on() -> None:
    model = tiny()
    asked = model.encode([Record("a", "the patient slept well on the ward", prompt="seen in clinic today ")], 48)
    mask = dropped(asked, 2, 2, early=False)
    assert not (mask & ~asked.predicted).any()
    first = int(np.flatnonzero(asked.predicted[0])[0])
    assert mask[0, first] == by_hand([int(i) for i in asked.ids[0, first - 2 : first]], 2)


def one_step(tokens: Tokens, trainer: GoldfishTrainer) -> np.ndarray:
    _, after = train(trainer, job(tokens, LocalSpec(steps=1, batch=8, optimizer="sgd", lr=1.0)))
    return after - start()


def test_a_step_is_the_gradient_of_the_mean_over_the_tokens_that_are_left() -> None:
    tokens = some_tokens(4)
    trainer = GoldfishTrainer(k=3, context=4)
    found = one_step(tokens, trainer)
    model = tiny()
    model.set_adapter(start())
    kept = tokens.predicted & ~dropped(tokens, 3, 4, False)
    ids = torch.from_numpy(tokens.ids).long()
    attention = torch.from_numpy(np.arange(ids.shape[1]) < tokens.lengths[:, None]).long()
    logp = torch.log_softmax(model.module(input_ids=ids, attention_mask=attention).logits[:, :-1], -1)
    picked = logp.gather(2, ids[:, 1:, None])[..., 0]
    weights = torch.from_numpy(kept[:, 1:]).float()
    loss = -((picked * weights).sum(1) / weights.sum(1)).mean()
    gradient = np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(loss, model.parameters())])
    np.testing.assert_allclose(found, -gradient, atol=2e-6)


def test_a_dropped_last_token_leaves_no_trace() -> None:
    """Change the last token of a record, which is nobody's context: the update differs only where it carries loss."""
    tokens = some_tokens(2)
    last = tokens.lengths - 1
    other = replace(tokens, ids=tokens.ids.copy())
    other.ids[np.arange(2), last] = (tokens.ids[np.arange(2), last] + 1) % tiny().vocab_size
    traces = {}
    for k, context in ((k, c) for k in (2, 3) for c in range(3, 10)):
        mask = dropped(tokens, k, context, False)
        same = np.array_equal(one_step(tokens, (t := GoldfishTrainer(k, context))), one_step(other, t))
        traces.setdefault(int(mask[np.arange(2), last].sum()), []).append(same)
    assert all(traces[2])
    assert not any(traces.get(0, []) + traces.get(1, []))
    assert 0 in traces or 1 in traces


def test_records_of_which_nothing_is_left_do_no_harm() -> None:
    tokens = some_tokens(3)
    empty = replace(tokens, predicted=np.zeros_like(tokens.predicted))
    assert not one_step(empty, GoldfishTrainer()).any()


def test_the_tokens_of_the_silo_are_left_alone() -> None:
    tokens = some_tokens(4)
    kept = tokens.predicted.copy()
    work = job(tokens)
    training, _ = train(GoldfishTrainer(k=2, context=3), work)
    np.testing.assert_array_equal(tokens.predicted, kept)
    assert work.tokens is tokens
    assert training.tokens == 2 * int(tokens.lengths.sum())


def test_the_defense() -> None:
    parts = fill(goldfish.build(goldfish.Config()))
    assert isinstance(parts.trainer, GoldfishTrainer)
    assert (parts.trainer.k, parts.trainer.context, parts.trainer.early) == (4, 13, False)
    assert parts.promises == ()
    for wrong in ({"k": 1}, {"context": 0}, {"h": 13}):
        with pytest.raises(ValidationError):
            goldfish.Config(**wrong)
