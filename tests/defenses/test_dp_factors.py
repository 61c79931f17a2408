"""Training one LoRA matrix at a time: what stays as it is, what is clipped, what travels."""

from __future__ import annotations

import numpy as np
import pytest

from bench.core.streams import SecretStreams
from bench.core.update import Layout, Update
from bench.defense.contexts import TransformContext
from bench.defense.defaults.mean import Mean
from bench.defense.public import Public, alike
from bench.privacy import composition
from bench.spec.run import LocalSpec
from defenses import dp_alternate_lora, dp_ffa_lora
from defenses.trainers.dp_sgd import DPSGD
from defenses.trainers.factors import Factors, is_trained
from defenses.transforms.trained_factors import TrainedFactors, coordinates
from tests.defense.toys import public_of
from tests.defenses.dp_audit import flat_sum, little_llama, make_tokens, run_job

LAYOUT = Layout(
    tuple(f"base_model.model.layers.0.{m}.lora_{f}.weight" for m in ("q_proj", "v_proj") for f in "AB"),
    ((2, 3), (4, 2), (2, 3), (5, 2)),
)
OF_A = [*range(0, 6), *range(14, 20)]
OF_B = [*range(6, 14), *range(20, 30)]


@pytest.mark.parametrize(("factors", "round", "expected"), [("b", 0, OF_B), ("b", 3, OF_B), ("alternate", 0, OF_B)])
def test_coordinates_by_hand(factors, round, expected) -> None:
    assert coordinates(LAYOUT, factors, round).tolist() == expected
    assert coordinates(LAYOUT, "alternate", 1).tolist() == OF_A
    assert coordinates(LAYOUT, "both", round).tolist() == list(range(30))
    assert not is_trained("base_model.lora_Bx.weight", "b", 0)


def context(round: int) -> TransformContext:
    public = Public(alike(LAYOUT), ("silo-0",), {"silo-0": 1}, 4, [("silo-0",)] * 4)
    return TransformContext(
        public=public,
        round=round,
        global_adapter=np.zeros(30, np.float32),
        lr=0.1,
        steps=1,
        secret=SecretStreams("silo-0"),
        state={},
    )


def test_only_the_trained_matrices_travel() -> None:
    values = np.zeros(30, np.float32)
    values[OF_B] = np.arange(1, 19)
    sent = TrainedFactors("b").apply(Update(values, LAYOUT, norm_bound=50.0), context(2))
    assert sent.support is not None
    assert sent.support.tolist() == OF_B == TrainedFactors("b").support(context(2)).tolist()  # type: ignore[union-attr]
    assert sent.values.tolist() == list(range(1, 19))
    assert sent.norm_bound == 50.0
    assert np.array_equal(sent.dense(), values)


def test_what_others_do_to_the_fixed_matrices_is_dropped() -> None:
    sent = TrainedFactors("b").apply(Update(np.ones(30, np.float32), LAYOUT), context(0))
    assert np.flatnonzero(sent.dense()).tolist() == OF_B
    fewer = Update(np.ones(3, np.float32), LAYOUT, support=np.array([0, 6, 29]))
    with_fewer = TrainedFactors("b").apply(fewer, context(0))
    assert with_fewer.support is not None
    assert with_fewer.support.tolist() == [6, 29]


def split(model, values: np.ndarray) -> dict[str, np.ndarray]:
    tensors = list(model.layout.tensors(values))
    return {f: np.concatenate([t.ravel() for name, t in tensors if f"lora_{f}" in name]) for f in "AB"}


LOCAL = LocalSpec(steps=3, batch=4, lr=1e-2, weight_decay=0.1)


@pytest.mark.parametrize("gradients", ["fast", "opacus"])
@pytest.mark.parametrize(
    ("factors", "round", "moved"), [("b", 0, "B"), ("b", 1, "B"), ("alternate", 0, "B"), ("alternate", 1, "A")]
)
def test_the_other_matrices_stay_bit_for_bit(gradients, factors, round, moved) -> None:
    model = little_llama()
    before = split(model, model.get_adapter())
    trainer = DPSGD(None, 1.0, gradients=gradients, factors=factors)
    run_job(trainer, model, make_tokens([5] * 6), LOCAL, 6, round)
    after = split(model, model.get_adapter())
    fixed = {"A": "B", "B": "A"}[moved]
    assert np.array_equal(before[fixed], after[fixed])
    assert (before[moved] != after[moved]).mean() > 0.99  # noise reaches every value
    assert all(p.requires_grad for p in model.parameters())


def test_the_clip_is_over_what_is_trained() -> None:
    model, tokens = little_llama(), make_tokens([5, 9])
    both = flat_sum(DPSGD(None, 1.0, 1e9), model, tokens, [1])
    of_b = flat_sum(DPSGD(None, 1.0, 1e9, factors="b"), model, tokens, [1])
    of_a = flat_sum(DPSGD(None, 1.0, 1e9, factors="alternate"), model, tokens, [1], round=1)
    parts = split(model, both)
    np.testing.assert_allclose(of_b, parts["B"], rtol=1e-5)
    np.testing.assert_allclose(of_a, parts["A"], rtol=1e-5)
    cut = flat_sum(DPSGD(None, 1.0, 0.01, factors="b"), model, tokens, [1])
    assert np.linalg.norm(cut) == pytest.approx(0.01, rel=1e-5)
    np.testing.assert_allclose(cut, parts["B"] * 0.01 / np.linalg.norm(parts["B"]), rtol=1e-4)


def test_the_mean_of_factors_is_then_the_mean_of_the_products() -> None:
    """Through transform and aggregator, on one adapted map; with both factors trained it is not."""
    layout = Layout(("l.lora_A.weight", "l.lora_B.weight"), ((2, 7), (5, 2)))
    rng = np.random.default_rng(0)
    start = rng.normal(size=layout.size).astype(np.float32)

    def product(adapter: np.ndarray) -> np.ndarray:
        (_, a), (_, b) = layout.tensors(adapter.astype(np.float64))
        return b @ a

    def gap(factors: Factors) -> float:
        trained = coordinates(layout, factors, 0)
        deltas = np.zeros((3, layout.size), np.float32)
        deltas[:, trained] = rng.normal(size=(3, len(trained)))
        sent = [TrainedFactors(factors).apply(Update(d, layout), context(0)) for d in deltas]
        mean = Mean(weighted=False)
        total = sum(mean.summand(update, start, public_of([1, 1, 1])).dense().astype(np.float64) for update in sent)
        public = public_of([1, 1, 1])
        after = mean.apply(np.asarray(total), public.silos, start, public)
        if factors == "b":
            assert np.array_equal(after[:14], start[:14])
        return float(np.abs(product(after) - np.mean([product(start + d) for d in deltas], 0)).max())

    assert gap("b") < 1e-6
    assert gap("both") > 0.1


@pytest.mark.parametrize("module", [dp_ffa_lora, dp_alternate_lora])
def test_the_defenses(module) -> None:
    defense = module.build(module.Config(sigma=2.0))
    assert isinstance(defense.trainer, DPSGD)
    assert len(defense.transforms) == 1
    assert module.build(module.Config(send="all")).transforms == ()
    plan = defense.trainer.plan(3, LOCAL, 30)
    assert composition(plan, "add-remove") == ((4 / 30, 2.0, 9),)
