"""The row-space attack on real updates of the packaged small model, and on a random model of another shape."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import bench
from attacks import inversion
from bench.attack.attack import Reconstruction, Target
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.games.baselines import carriers, expected_distinct, inclusion, no_update
from bench.model.lora import LoraModel
from tests.attacks.updates import Adapter, FakeTools, FakeView, Upload, attack, auc, tokens_of, train

TINY = Path(bench.__file__).parent / "models" / "tiny"
RANK = 16
SENTENCES = (
    "The patient was seen in surgery with wound pain.",
    "Temperature 38.2, pulse 97, no fever since.",
    "Given morphine 20 mg at night.",
    "Dr Bell raised apixaban to 10 mg.",
    "The patient was given paracetamol.",
    "Pain for 6 days, worse at night.",
    "Seen with cough and fever for 3 days.",
    "No pain since surgery.",
    "Breathing rate 21 a minute.",
    "He was well and was sent home.",
    "She was seen by Dr Bell.",
    "Plan: an EEG in 2 weeks.",
)
#: of a mean of AUCs over n independent groups of m tokens against many others: standard deviation sqrt(1 / (12 n m))
SIGMAS = 4.9


def records(model: LoraModel) -> list[list[int]]:
    """Sentences cut to as many positions as carry gradient below the rank."""
    return [[int(i) for i in model.tokenizer(text)["input_ids"]][:RANK] for text in SENTENCES]


def random_records(n: int, length: int, seed: int, vocabulary: int = 2048) -> list[list[int]]:
    rows: list[list[int]] = np.random.default_rng(seed).integers(0, vocabulary, (n, length)).tolist()
    return rows


def held(tokens: Tokens) -> set[int]:
    return {int(token) for ids in carriers(tokens) for token in ids}


def precision_recall(answer: Reconstruction, there: set[int]) -> tuple[float, float]:
    claimed = set(answer.token_set.tolist())
    return len(claimed & there) / max(len(claimed), 1), len(claimed & there) / len(there)


def test_one_short_record_and_one_sgd_step_come_back_whole(model: LoraModel, initial: Adapter) -> None:
    population = tokens_of(random_records(20, 10, seed=1))
    figures, ordered = [], 0
    for row in records(model)[:5]:
        tokens = tokens_of([row])
        answer = attack(model, population, initial, train(model, initial, tokens))
        figures.append(precision_recall(answer, held(tokens)))
        ordered += answer.sequences == (tuple(row),)
        assert answer.exact
        assert auc(answer.token_scores, held(tokens)) == 1.0
    assert np.mean(figures, axis=0).min() >= 0.95
    assert ordered >= 3


def test_it_works_up_to_one_position_below_the_rank(model: LoraModel, initial: Adapter) -> None:
    """15 different tokens carry gradient at rank 16; one more, and nothing is certain any longer."""
    row = np.random.default_rng(2).permutation(model.vocab_size)[: RANK + 1].tolist()
    population = tokens_of(random_records(20, 10, seed=1))
    for length, exact in ((RANK, True), (RANK + 1, False)):
        tokens = tokens_of([row[:length]])
        answer = attack(model, population, initial, train(model, initial, tokens))
        assert answer.exact == exact
        assert (set(answer.token_set.tolist()) == held(tokens)) == exact


@pytest.mark.parametrize(
    "row",
    [[9, 9, 9, 30], [9, 9, 40, 9, 41, 40, 5], [7, 8], [7, 7], [300, 301, 300, 301, 300, 301, 2]],
    ids=["one token", "first token again", "two positions", "two positions, one token", "alternating"],
)
def test_repeated_tokens(model: LoraModel, initial: Adapter, row: list[int]) -> None:
    tokens = tokens_of([row])
    answer = attack(model, tokens_of(random_records(9, 9, seed=1)), initial, train(model, initial, tokens))
    assert set(answer.token_set.tolist()) == held(tokens)


def test_a_prompt_that_carries_no_loss(model: LoraModel, initial: Adapter) -> None:
    row = random_records(1, 11, seed=3)[0]
    population = tokens_of(random_records(20, 10, seed=1), start=4)
    answer = attack(model, population, initial, train(model, initial, tokens_of([row], start=4)))
    assert answer.sequences == (tuple(row),)


def test_two_records_in_one_step_are_told_apart(model: LoraModel, initial: Adapter) -> None:
    rows = [[11, 12, 13, 14, 15, 16], [21, 22, 12, 23, 24]]
    tokens = tokens_of(rows)
    answer = attack(model, tokens_of(random_records(9, 9, seed=1)), initial, train(model, initial, tokens), records=2)
    assert set(answer.token_set.tolist()) == held(tokens)
    assert sorted(answer.sequences) == sorted(tuple(row[:-1]) for row in rows)


def test_several_small_steps_on_one_record(model: LoraModel, initial: Adapter) -> None:
    """Steps blur what deeper layers read by the learning rate; a token whose successor was certain may drown."""
    whole = 0
    for row in records(model)[:3]:
        after = train(model, initial, tokens_of([row]), batches=[[0]] * 4)
        answer = attack(model, tokens_of(random_records(9, 9, seed=1)), initial, after, steps=4)
        assert min(precision_recall(answer, held(tokens_of([row])))) >= 0.9
        (found,) = answer.sequences
        assert found == tuple(row[: len(found)])
        whole += len(found) == len(row) - 1
    assert whole >= 1


def test_a_later_round_where_b_is_not_zero(model: LoraModel, initial: Adapter) -> None:
    middle = train(model, initial, tokens_of(random_records(16, 12, seed=4)), lr=0.5)
    for row in records(model)[:3]:
        after = train(model, middle, tokens_of([row]), lr=0.05)
        answer = attack(model, tokens_of(random_records(9, 9, seed=1)), middle, after)
        assert precision_recall(answer, held(tokens_of([row]))) == (1.0, 1.0)
        assert answer.sequences[0][: len(row) - 1] == tuple(row[:-1])


def test_another_records_update_tells_nothing(model: LoraModel, initial: Adapter) -> None:
    """Control without a leak: scores from the update of record i, judged by the tokens of record i + 1."""
    n, length = 8, 40
    rows = random_records(n, length, seed=6)
    population = tokens_of(random_records(60, length, seed=7))
    scores = [attack(model, population, initial, train(model, initial, tokens_of([r]))).token_scores for r in rows]
    margin = SIGMAS / np.sqrt(12 * n * (length - 1))
    own = np.mean([auc(s, set(r[:-1])) for s, r in zip(scores, rows, strict=True)])
    other = np.mean([auc(s, set(r[:-1])) for s, r in zip(scores, rows[1:] + rows[:1], strict=True)])
    assert abs(other - 0.5) < margin
    assert own > 0.5 + margin


def test_exact_sets_hold_nothing_of_other_records(model: LoraModel, initial: Adapter) -> None:
    rows = [list(range(a, a + 10)) for a in range(100, 140, 10)]
    population = tokens_of(rows)
    for row, other in pairwise(rows):
        answer = attack(model, population, initial, train(model, initial, tokens_of([row])))
        assert precision_recall(answer, set(other)) == (0.0, 0.0)


@pytest.mark.parametrize("adamw", [False, True], ids=["one SGD step", "AdamW, 4 steps"])
def test_a_batch_beyond_the_rank_is_ranked(model: LoraModel, initial: Adapter, adamw: bool) -> None:
    """Uniform tokens, so that the population tells nothing and the ranking is the update's alone."""
    n, length = 8, 8
    population = tokens_of(random_records(60, length, seed=7))
    found = []
    for seed in range(6):
        tokens = tokens_of(random_records(n, length, seed=20 + seed))
        batches = [range(4), range(4, 8)] * 2 if adamw else None
        after = train(model, initial, tokens, adamw=adamw, batches=batches)
        answer = attack(model, population, initial, after, records=n, steps=4 if adamw else 1)
        assert not answer.exact
        assert len(answer.token_set) == expected_distinct(population, model.vocab_size, n)
        assert len(answer.sequences) <= n
        found.append(auc(answer.token_scores, held(tokens)))
    assert np.mean(found) > 0.5 + SIGMAS / np.sqrt(12 * len(found) * n * (length - 1))


def test_adams_first_step_on_a_short_record_is_not_called_exact(model: LoraModel, initial: Adapter) -> None:
    row = records(model)[0]
    after = train(model, initial, tokens_of([row]), adamw=True)
    assert not attack(model, tokens_of(random_records(9, 9, seed=1)), initial, after).exact


def test_another_shape_of_model() -> None:
    """Random weights, grouped-query attention, untied embeddings, LoRA on keys and the feed-forward layers too."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        base = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15, generator=generator)
    lora = LoraConfig(r=12, target_modules=["k_proj", "v_proj", "up_proj", "down_proj"])
    model = LoraModel(get_peft_model(base, lora), None, torch.device("cpu"))
    before = model.initial_adapter(np.random.default_rng(0))
    for row in random_records(3, 10, seed=9, vocabulary=500):
        answer = attack(model, tokens_of(random_records(9, 9, 1, 500)), before, train(model, before, tokens_of([row])))
        assert set(answer.token_set.tolist()) == set(row[:-1])
        assert answer.sequences == (tuple(row),)


def test_targets_without_material_are_left_out(model: LoraModel, initial: Adapter) -> None:
    row = records(model)[4]
    after = train(model, initial, tokens_of([row]))
    view: Any = FakeView(model.layout, (Upload(after, initial, "silo-1", 0), Upload(after, None, "silo-2", 0)))
    targets = [
        Target(0, "silo-0", 1, 1),
        Target(0, "silo-1", 1, 1),
        Target(1, "silo-1", 1, 1),
        Target(0, "silo-2", 1, 1),
    ]
    tools = FakeTools(model, tokens_of(random_records(9, 9, seed=1)))
    (answer,) = inversion.build(inversion.Config()).reconstruct(view, targets, tools)
    assert answer.target == targets[1]
    assert answer.reads == "upload of silo-1, round 0"
    nothing: Any = FakeView(model.layout)
    assert list(inversion.build(inversion.Config()).reconstruct(nothing, targets, tools)) == []


def test_the_model_is_given_back_as_it_was(model: LoraModel, initial: Adapter) -> None:
    row = records(model)[4]
    after = train(model, initial, tokens_of([row]))
    kept = np.random.default_rng(1).normal(0, 0.01, model.layout.size).astype(np.float32)
    model.set_adapter(kept)
    attack(model, tokens_of(random_records(9, 9, seed=1)), initial, after)
    assert np.array_equal(model.get_adapter(), kept)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_update_of_nothing_and_one_of_noise(model: LoraModel, initial: Adapter) -> None:
    population = tokens_of(random_records(30, 9, seed=1))
    noise = initial + np.random.default_rng(2).normal(0, 1e-3, len(initial)).astype(np.float32)
    for after in (initial, noise):
        answer = attack(model, population, initial, after, records=2)
        assert not answer.exact
        assert np.isfinite(answer.token_scores).all()
        assert len(answer.sequences) <= 2
    empty = attack(model, tokens_of([[1, 2]]).take([]), initial, noise)
    assert len(empty.token_set) == 1


def test_learned_positions_are_refused() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    base = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    peft = get_peft_model(base.eval(), LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True))
    model = LoraModel(peft, None, torch.device("cpu"))
    before = model.initial_adapter(np.random.default_rng(0))
    with pytest.raises(SiloBenchError, match="position"):
        attack(model, tokens_of([[1, 2, 3]]), before, before + np.float32(0.1))


def test_options() -> None:
    built = inversion.build(inversion.Config(rounds=(0, 2)))
    assert (built.game, built.rounds) == ("reconstruction", (0, 2))
    assert built.needs == {"upload", "partial"}
    for bad in ({"groups": 1}, {"rounds": ()}, {"rounds": (-1,)}, {"other": 1}):
        with pytest.raises(ValidationError):
            inversion.Config.model_validate(bad)


def test_baseline_counts_records_not_tokens() -> None:
    population = tokens_of([[1, 1, 1, 9], [1, 2, 9], [2, 3, 9], [2, 4, 9]])
    p = inclusion(population, 20, 1)
    assert p[[1, 2, 3]] == pytest.approx([0.5, 0.75, 0.25])
    assert p[9] == p[15] < 0.25, "a last token carries no gradient"
    assert inclusion(population, 20, 2)[1] == pytest.approx(1 - 0.5**2)
    assert expected_distinct(population, 20, 1) == round(float(p.sum()))
    assert expected_distinct(population.take([]), 20, 3) == 1


def test_baseline_answers_every_target() -> None:
    population = tokens_of([[1, 2, 3], [1, 2, 4], [7, 8, 9]])
    targets = [Target(0, "silo-0", 2, 1), Target(1, "silo-0", 1, 1)]
    first, second = no_update(targets, population, 10)
    assert (first.target, second.target) == tuple(targets)
    assert first.sequences == ((1, 2, 3), (1, 2, 4))
    assert second.sequences == ((1, 2, 3),)
    assert {1, 2} <= set(first.token_set.tolist())
    assert first.token_scores.shape == (10,)
    assert not first.exact
    (none,) = no_update(targets[:1], population.take([]), 10)
    assert none.sequences == ()
    assert len(none.token_set) == 1
