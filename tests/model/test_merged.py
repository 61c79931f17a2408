"""Dense changes of frozen weights: what they do, against weights that were changed by hand, and that they go again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bench.core.errors import SiloBenchError
from bench.core.streams import SecretStreams, Streams
from bench.core.tokens import Tokens
from bench.core.update import Array
from bench.defense.defaults.trainer import GradientTrainer
from bench.defense.parts import Trainer, TrainJob
from bench.model.gradients import record_gradients
from bench.model.lora import LoraModel
from bench.model.products import dense, pairs, widened
from bench.spec.run import LocalSpec, LoraSpec, ModelSpec
from defenses.trainers.dropout import DropoutTrainer
from defenses.trainers.early_stop import EarlyStopTrainer
from tests.model_checks import PREFIX, RECORDS, SPEC, TINY, adapter

LORA = LoraSpec(rank=4, alpha=8.0, targets=("q_proj", "v_proj"))


@pytest.fixture(scope="module")
def loaded() -> LoraModel:
    return LoraModel.load(TINY, SPEC, LORA, device="cpu")


@pytest.fixture
def model(loaded: LoraModel) -> Iterator[LoraModel]:
    yield loaded
    loaded.set_adapter(None)


def wide(model: LoraModel, scale: float = 0.02) -> Array:
    state = widened(adapter(model), model.wide)
    state[model.layout.size :] = np.random.default_rng(3).normal(0, scale, model.wide.size - model.layout.size)
    return state


@pytest.fixture(scope="module")
def by_hand() -> LoraModel:
    """The same model with the change added to its weights."""
    other = LoraModel.load(TINY, SPEC, LORA, device="cpu")
    state = wide(other)
    with torch.no_grad():
        for pair, change in zip(pairs(other.layout), dense(other.layout, state), strict=True):
            other.module.get_submodule(pair.prefix).base_layer.weight += 2.0 * torch.from_numpy(change)  # alpha / rank
    other.set_adapter(state[: other.layout.size])
    return other


@pytest.fixture
def tokens(model: LoraModel) -> Tokens:
    return model.encode(RECORDS, 48, PREFIX)


def test_the_model_computes_with_changed_weights(model: LoraModel, by_hand: LoraModel, tokens: Tokens) -> None:
    factors_only = model.stats(tokens).logp
    model.set_adapter(wide(model))
    np.testing.assert_allclose(model.stats(tokens).logp, by_hand.stats(tokens).logp, atol=2e-5)
    assert np.abs(model.stats(tokens).logp - factors_only).max() > 0.1


def test_gradients_are_those_under_changed_weights(model: LoraModel, by_hand: LoraModel, tokens: Tokens) -> None:
    state = wide(model)
    ours = np.stack(list(record_gradients(model, state, tokens)))
    theirs = np.stack(list(record_gradients(by_hand, state[: model.layout.size], tokens)))
    assert ours.shape == (len(tokens), model.layout.size)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_nothing_is_left_of_a_change(model: LoraModel, tokens: Tokens) -> None:
    before = {name: p.clone() for name, p in model.module.get_base_model().named_parameters()}
    base = model.stats(tokens).logp
    model.set_adapter(wide(model))
    model.set_adapter(adapter(model))
    plain = model.stats(tokens).logp
    model.set_adapter(widened(adapter(model), model.wide))  # zeros are no change
    np.testing.assert_array_equal(model.stats(tokens).logp, plain)
    model.set_adapter(None)
    np.testing.assert_array_equal(model.stats(tokens).logp, base)
    assert all(
        torch.equal(p, before[name])
        for name, p in model.module.get_base_model().named_parameters()
        if "lora" not in name
    )
    assert not any(module._forward_hooks for module in model.module.modules())


def test_what_is_read_can_be_put_back(model: LoraModel) -> None:
    state = wide(model)
    model.set_adapter(state)
    kept = model.get_adapter()
    np.testing.assert_array_equal(kept, state)
    model.set_adapter(None)
    assert model.get_adapter().shape == (model.layout.size,)
    model.set_adapter(kept)
    np.testing.assert_array_equal(model.get_adapter(), state)
    state[-1] = 5  # a copy was taken
    assert model.get_adapter()[-1] != 5


@pytest.mark.parametrize("wrong", ["short", "long", "not finite"])
def test_what_is_no_wide_adapter_is_refused(model: LoraModel, wrong: str) -> None:
    state = wide(model)
    bad = {"short": state[:-1], "long": np.append(state, np.float32(0)), "not finite": state + np.float32(np.inf)}
    with pytest.raises(SiloBenchError):
        model.set_adapter(bad[wrong])


def test_a_small_change_of_a_half_precision_weight_is_not_rounded_away() -> None:
    half = LoraModel.load(TINY, ModelSpec(name="tiny", dtype="bfloat16"), LORA, device="cpu")
    pair = pairs(half.layout)[0]
    layer = half.module.get_submodule(pair.prefix).base_layer
    state = np.zeros(half.wide.size, dtype=np.float32)
    state[half.layout.size :] = 1e-5  # far below half a unit in the last place of most weights
    x = torch.ones(1, 1, layer.in_features, dtype=torch.bfloat16) * 64
    before = layer.weight.clone()
    with torch.no_grad():
        still = layer(x).float()
        half.set_adapter(state)
        moved = layer(x).float() - still
    assert torch.equal(layer.weight, before)
    expected = 2.0 * 1e-5 * 64 * layer.in_features
    assert float(moved.mean()) == pytest.approx(expected, rel=0.2)


def job(model: LoraModel, tokens: Tokens) -> TrainJob:
    return TrainJob(
        model=model,
        tokens=tokens,
        local=LocalSpec(epochs=2, batch=3, lr=5e-3),
        lr=5e-3,
        round=0,
        rounds=3,
        nominal_size=len(tokens),
        order=Streams(3).generator("silo", 0, 0),
        secret=SecretStreams("silo-0", 7),
        state={},
    )


def private(gradients: str) -> Trainer:
    from bench.plugins.find import Plugins

    trainer = Plugins().find("defense", "dp-sgd").build({"gradients": gradients, "sigma": 0.5}).trainer
    assert trainer is not None
    return trainer


TRAINERS = {
    "plain": GradientTrainer,
    "dropout": lambda: DropoutTrainer(0.1),
    "early-stop": lambda: EarlyStopTrainer(0.34, 1),
    "dp fast": lambda: private("fast"),
    "dp opacus": lambda: private("opacus"),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_trainers_train_on_changed_weights(model: LoraModel, by_hand: LoraModel, tokens: Tokens, name: str) -> None:
    state = wide(model)
    model.set_adapter(state)
    TRAINERS[name]().train(job(model, tokens))
    after = model.get_adapter()
    np.testing.assert_array_equal(after[model.layout.size :], state[model.layout.size :])  # still on
    by_hand.set_adapter(state[: model.layout.size])
    TRAINERS[name]().train(job(by_hand, tokens))
    other = by_hand.get_adapter()
    by_hand.set_adapter(state[: model.layout.size])
    moved = np.abs(other - state[: model.layout.size]).max()
    assert moved > 1e-4
    assert np.abs(after[: model.layout.size] - other).mean() < 1e-2 * moved
