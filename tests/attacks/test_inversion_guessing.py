"""Gradient matching and the attack trained on simulations: what they add to the row space, and what they cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bench
from attacks import gradient_matching, learned_inversion
from attacks.rowspace.learned import Logistic, simulate
from attacks.rowspace.observe import observe, signs
from attacks.rowspace.search import Grown, Plan, directions, grow
from attacks.rowspace.simulate import Matcher, Spent, log_records
from bench.attack.attack import Attack, Reconstruction, Target
from bench.core.tokens import Tokens
from bench.games.baselines import no_update
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec
from tests.attacks.updates import Adapter, FakeTools, FakeView, Upload, auc, tokens_of, train

TINY = Path(bench.__file__).parent / "models" / "tiny"
RANK = 16
TEXT = (
    "The patient was seen in surgery with wound pain.",
    "Given morphine 20 mg at night.",
    "Dr Bell raised apixaban to 10 mg.",
    "Pain for 6 days, worse at night.",
    "Seen with cough and fever for 3 days.",
    "No pain since surgery.",
    "She was seen by Dr Bell.",
    "Plan: an EEG in 2 weeks.",
    "He was well and was sent home.",
    "Breathing rate 21 a minute.",
)


def notes(model: LoraModel, length: int, texts: tuple[str, ...] = TEXT) -> list[list[int]]:
    return [[int(i) for i in model.tokenizer(text)["input_ids"]][:length] for text in texts]


def answers(
    attack: Attack, model: LoraModel, population: Tokens, uploads: list[Upload], records: int, **local: Any
) -> list[Reconstruction]:
    view: Any = FakeView(model.layout, tuple(uploads), {"federation": {"local": local}})
    targets = [Target(u.round, u.silo, records, 1) for u in uploads]
    return list(attack.reconstruct(view, targets, FakeTools(model, population)))


def seen(model: LoraModel, before: Adapter, after: Adapter) -> Any:
    view: Any = FakeView(model.layout, (Upload(after, before),))
    return observe(view, "silo-0", 0)


# -- gradient matching ------------------------------------------------------------------------------------------------


def test_a_records_gradient_is_the_sum_of_its_positions(model: LoraModel, initial: Adapter) -> None:
    row = notes(model, 9)[0]
    update = seen(model, initial, train(model, initial, tokens_of([row]), lr=1.0))
    matcher = Matcher(model, update, sign=False, budget=100)
    terms = matcher.terms([row[:n] for n in range(2, len(row) + 1)])
    (whole,) = matcher.records([row], 1)
    assert terms.sum(0) == pytest.approx(whole, abs=1e-4 * float(np.abs(whole).max()))
    assert whole / (len(row) - 1) == pytest.approx(matcher.wanted, abs=1e-4 * float(np.abs(whole).max()))
    assert matcher.agreement(np.stack([whole, -whole])) == pytest.approx([1, -1], abs=1e-5)
    assert matcher.used == len(row)


def test_only_what_is_known_is_compared(model: LoraModel, initial: Adapter) -> None:
    row = notes(model, 9)[0]
    after = train(model, initial, tokens_of([row]), lr=0.1)
    hidden = after.copy()
    hidden[::2] = initial[::2]
    matcher = Matcher(model, seen(model, initial, hidden), sign=False, budget=10)
    assert matcher.agreement(matcher.records([row], 1)) == pytest.approx([1], abs=1e-4)
    whole = Matcher(model, seen(model, initial, after), sign=False, budget=10)
    assert whole.agreement(whole.records([row[::-1]], 1))[0] < 0.9


def test_signs_are_compared_where_the_optimiser_keeps_only_those(model: LoraModel, initial: Adapter) -> None:
    row = notes(model, 9)[0]
    update = seen(model, initial, train(model, initial, tokens_of([row]), adamw=True))
    cosines = []
    for sign in (False, True):
        matcher = Matcher(model, update, sign=sign, budget=10)
        cosines.append(float(matcher.agreement(matcher.records([row], 1))[0]))
    assert cosines[1] > 0.7 > cosines[0]
    assert signs({"federation": {"local": {"optimizer": "adamw"}}})
    assert not signs({})


def test_the_budget_is_kept(model: LoraModel, initial: Adapter) -> None:
    update = seen(model, initial, train(model, initial, tokens_of(notes(model, 9)[:1]), adamw=True))
    matcher = Matcher(model, update, sign=True, budget=30)
    plan = Plan(2, 4, 9, 1, 100.0, 3.0)
    grown = grow(matcher, plan, [(int(t),) for t in range(3)], np.zeros(model.vocab_size), matcher.wanted)
    assert isinstance(grown, Grown)
    assert 0 < matcher.used <= 30
    with pytest.raises(Spent):
        Matcher(model, update, sign=True, budget=3).terms([[1, 2]] * 4)


def test_evidence_grows_with_the_cosine_and_ignores_contradiction() -> None:
    plan = Plan(2, 4, 9, 1, 100.0, 3.0)
    found = plan.evidence(np.array([-0.5, 0.0, 0.1, 0.9, 1.0]))
    assert found[:2].tolist() == [0, 0]
    assert found[2] == pytest.approx(-50 * np.log(0.99))
    assert (np.diff(found[1:]) > 0).all()
    assert np.isfinite(found).all()


def test_unrelated_gradients_point_in_many_directions(model: LoraModel, initial: Adapter) -> None:
    rows = [tuple(row) for row in notes(model, 9)]
    matcher = Matcher(model, seen(model, initial, train(model, initial, tokens_of(rows))), sign=False, budget=100)
    assert 5 < directions(matcher, rows, 1) < 1000
    assert matcher.used == 2 * len(rows)
    assert log_records(model, initial, rows[:2], 1) == pytest.approx(
        [log_records(model, initial, [row], 1)[0] for row in rows[:2]], rel=1e-4
    )


@pytest.mark.parametrize("records", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_short_records_come_back_far_above_the_baseline(model: LoraModel, initial: Adapter, records: int) -> None:
    rows = notes(model, 8 if records == 1 else 6)
    population = tokens_of(rows[4:])
    groups = [rows[i : i + records] for i in range(0, 4, records)]
    uploads = [Upload(train(model, initial, tokens_of(g), lr=0.1), initial, f"silo-{i}") for i, g in enumerate(groups)]
    attack = gradient_matching.build(gradient_matching.Config(budget=300))
    found = answers(attack, model, population, uploads, records, optimizer="sgd")
    targets = [a.target for a in found]
    recalls, base = [], []
    for group, answer, guess in zip(groups, found, no_update(targets, population, model.vocab_size), strict=True):
        there = {t for row in group for t in row[:-1]}
        recalls.append(len(there & set(answer.token_set.tolist())) / len(there))
        base.append(len(there & set(guess.token_set.tolist())) / len(there))
        assert "at most 300 passes" in answer.reads
    assert np.mean(recalls) > 0.9
    assert np.mean(recalls) > np.mean(base) + 0.3
    if records == 1:
        whole = [a.sequences[0][: len(g[0]) - 1] == tuple(g[0][:-1]) for a, g in zip(found, groups, strict=True)]
        assert np.mean(whole) > 0.5


def test_the_order_of_targets_does_not_matter_and_noise_is_survived(model: LoraModel, initial: Adapter) -> None:
    rows = notes(model, 8)
    noise = np.random.default_rng(2).normal(0, 1e-3, model.layout.size).astype(np.float32)
    uploads = [
        Upload(train(model, initial, tokens_of(rows[:1]), lr=0.1), initial, "silo-0"),
        Upload(initial + noise, initial, "silo-1"),
    ]
    attack = gradient_matching.build(gradient_matching.Config(budget=60, width=2, choices=4))
    one = answers(attack, model, tokens_of(rows[4:]), uploads, 1, optimizer="sgd")
    other = answers(attack, model, tokens_of(rows[4:]), uploads[::-1], 1, optimizer="sgd")[::-1]
    for a, b in zip(one, other, strict=True):
        assert a.sequences == b.sequences
        assert np.array_equal(a.token_scores, b.token_scores)
    assert not one[1].exact


# -- learned from simulations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_simulation_is_the_silos_own_training(model: LoraModel, initial: Adapter, optimizer: str) -> None:
    tokens = tokens_of(notes(model, 8)[:4])
    local = LocalSpec(lr=0.01, batch=4, optimizer=optimizer)
    found = simulate(model, initial, tokens, local, 2, np.random.default_rng(0))
    after = train(model, initial, tokens, lr=0.01, batches=[range(4)] * 2, adamw=optimizer == "adamw")
    assert found == pytest.approx(after.astype(float) - initial, abs=2e-5)
    assert not model.get_adapter().any()


def test_logistic_model_finds_known_coefficients() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(20000, 3)) * [1, 5, 0.1] + [0, 2, 1]
    truth = 1.5 * rows[:, 0] - 0.4 * rows[:, 1] + 1
    labels = rng.random(len(rows)) < 1 / (1 + np.exp(-truth))
    found = Logistic.fit(rows, labels).log_odds(rows)
    assert np.corrcoef(found, truth)[0, 1] > 0.99
    assert np.abs(found - truth).mean() < 0.15


def test_logistic_model_is_the_penalised_optimum_where_few_are_there_and_figures_have_long_tails() -> None:
    """As a vocabulary has it: one token in a hundred, log-odds of the commonest far out. The gradient vanishes."""
    rng = np.random.default_rng(4)
    prior = -5.0 + rng.exponential(1.0, 30000)
    rows = np.column_stack([prior, np.square(prior) / 10, rng.normal(size=30000), np.maximum(prior + 2, 0)])
    truth = prior + 0.5 * rows[:, 2]
    labels = rng.random(len(rows)) < 1 / (1 + np.exp(-truth))
    found = Logistic.fit(rows, labels)
    off = labels - 1 / (1 + np.exp(-found.log_odds(rows)))
    slope = np.append((rows - found.mean) / found.scale, np.ones((len(rows), 1)), axis=1).T @ off
    slope[:-1] -= found.weights[:-1]
    assert np.abs(slope).max() < 0.5
    assert auc(found.log_odds(rows), set(np.flatnonzero(labels))) > auc(prior, set(np.flatnonzero(labels))) + 0.01


def test_logistic_model_of_one_class_ranks_nothing() -> None:
    found = Logistic.fit(np.arange(6.0).reshape(3, 2), np.ones(3, bool))
    assert not found.log_odds(np.ones((2, 2))).any()


def test_the_learned_attack_reads_what_the_update_is_made_of(model: LoraModel, initial: Adapter) -> None:
    """Uniform tokens, so that the population tells nothing; another batch's update tells nothing either."""
    rng = np.random.default_rng(8)
    n, length = 4, 8
    population = tokens_of(rng.integers(0, model.vocab_size, (60, length)).tolist())
    batches = [tokens_of(rng.integers(0, model.vocab_size, (n, length)).tolist()) for _ in range(4)]
    uploads = [Upload(train(model, initial, b, lr=0.1), initial, f"silo-{i}") for i, b in enumerate(batches)]
    attack = learned_inversion.build(learned_inversion.Config(simulations=6))
    found = answers(attack, model, population, uploads, n, optimizer="sgd", lr=0.1, batch=n)
    there = [{int(t) for row in b.ids for t in row[:-1]} for b in batches]
    margin = 4.9 / np.sqrt(12 * 4 * n * (length - 1))
    own = np.mean([auc(a.token_scores, t) for a, t in zip(found, there, strict=True)])
    other = np.mean([auc(a.token_scores, t) for a, t in zip(found, there[1:] + there[:1], strict=True)])
    assert own > 0.5 + margin
    assert abs(other - 0.5) < margin


@pytest.mark.parametrize(("size", "expected"), [(1, 12), (5, 12), (12, 5), (30, 2), (500, 2)])
def test_no_more_is_simulated_than_so_many_records_but_two(
    size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attacks.rowspace import learned

    sizes: list[int] = []
    monkeypatch.setattr(learned, "simulate", lambda model, before, own, *_: sizes.append(len(own)))
    monkeypatch.setattr(learned, "alike", lambda *_: None)
    monkeypatch.setattr(learned, "features", lambda *_: np.zeros((9, 2)))
    population = tokens_of(np.full((1100, 3), 8).tolist())
    tools = SimpleNamespace(population=population)
    session: Any = SimpleNamespace(
        model=SimpleNamespace(vocab_size=9, layout=None), tools=tools, vocabulary=None, changes=lambda *_: None
    )
    attack: Any = learned_inversion.build(learned_inversion.Config(simulations=12, records=60))
    attack._learn(session, Target(0, "silo-0", size, 1), SimpleNamespace(before=None), {})
    assert sizes == [size] * expected


def test_one_short_record_is_learned_to_be_read(model: LoraModel, initial: Adapter) -> None:
    rows = notes(model, 8)
    uploads = [
        Upload(train(model, initial, tokens_of([r]), lr=0.1), initial, f"silo-{i}") for i, r in enumerate(rows[:4])
    ]
    attack = learned_inversion.build(learned_inversion.Config(simulations=8))
    found = answers(attack, model, tokens_of(rows[4:]), uploads, 1, optimizer="sgd", lr=0.1, batch=1)
    recalls = [
        len(set(r[:-1]) & set(a.token_set.tolist())) / len(set(r[:-1])) for r, a in zip(rows, found, strict=False)
    ]
    assert np.mean(recalls) > 0.9
    assert all("8 simulations" in a.reads and not a.exact for a in found)
