"""LoRA dropout: PEFT's own formula, only inside a round's training, and nothing else changed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bench.core.errors import SiloBenchError
from bench.defense.compose import fill
from bench.defense.defaults.trainer import GradientTrainer
from bench.spec.run import LocalSpec
from defenses import dropout
from defenses.trainers.dropout import DropoutTrainer, SeededDropout, dropping
from tests.defenses.training_play import LOCAL, job, some_tokens, start, tiny, train

TOKENS = some_tokens(8)


def dropouts() -> list[torch.nn.Module]:
    return [d for m in tiny().module.modules() if hasattr(m, "lora_dropout") for d in m.lora_dropout.values()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_zeroes_a_share_and_scales_the_rest() -> None:
    """40,000 values, share .3: 5 standard errors of the binomial; the kept ones are 1 / .7 exactly."""
    kept = SeededDropout(0.3, generator())(torch.ones(200, 200)).numpy()
    assert set(np.unique(kept)) == {0.0, np.float32(1) / np.float32(0.7)}
    assert abs((kept == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 40_000)
    half = SeededDropout(0.5, generator())(torch.ones(4, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16


def test_every_call_draws_anew_and_gradients_are_masked_alike() -> None:
    part = SeededDropout(0.5, generator())
    values = torch.ones(64, requires_grad=True)
    first = part(values)
    assert not torch.equal(first, part(values))
    (gradient,) = torch.autograd.grad(first.sum(), values)
    torch.testing.assert_close(gradient, first.detach())


def test_a_layer_computes_what_peft_does_with_the_same_mask() -> None:
    """W x + scale B A (m * x / (1 - p)), against the matrices by hand."""
    model = tiny()
    model.set_adapter(start() + np.float32(0.01))
    layer = next(m for m in model.module.modules() if hasattr(m, "lora_dropout"))
    x = torch.randn(3, layer.in_features, generator=generator(5))
    plain = layer(x)
    with dropping(model, 0.4, seed=9):
        found = layer(x)
    mask = (torch.rand(x.shape, generator=generator(9)) >= 0.4).float() / 0.6
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = layer.base_layer(x) + (x * mask) @ a.T @ b.T * layer.scaling["default"]
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, plain)
    torch.testing.assert_close(layer(x), plain, rtol=0, atol=0)


def test_only_inside_training_is_anything_dropped() -> None:
    model = tiny()
    before = dropouts()
    seen: list[bool] = []

    class Watched(DropoutTrainer):
        def steps(self, work):  # type: ignore[no-untyped-def]
            for rows in super().steps(work):
                seen.append(all(isinstance(d, SeededDropout) for d in dropouts()))
                yield rows

    train(Watched(0.2), job(TOKENS))
    assert seen
    assert all(seen)
    after = dropouts()
    assert all(one is other for one, other in zip(before, after, strict=True))
    with torch.no_grad():
        assert torch.equal(model.losses(TOKENS), model.losses(TOKENS))


def test_a_failure_in_training_leaves_the_model_as_it_was() -> None:
    before = dropouts()
    work = job(TOKENS, LocalSpec(epochs=2, batch=4, optimizer="sgd"))
    work.lr = math.inf
    with pytest.raises(SiloBenchError, match="diverged"):
        DropoutTrainer(0.1).train(work)
    assert all(one is other for one, other in zip(before, dropouts(), strict=True))


def test_the_records_come_in_the_order_of_plain_training_and_the_masks_with_the_run() -> None:
    plain, plain_after = train(GradientTrainer(), job(TOKENS))
    one, after = train(DropoutTrainer(0.3), job(TOKENS))
    again, repeated = train(DropoutTrainer(0.3), job(TOKENS))
    assert one.batches == plain.batches == again.batches
    np.testing.assert_array_equal(after, repeated)
    assert not np.array_equal(after, plain_after)
    assert one.losses[0] == pytest.approx(plain.losses[0], abs=1e-6)  # B is still zero: nothing to drop
    assert one.losses[1:] != plain.losses[1:]


def test_a_tiny_share_is_almost_plain_training() -> None:
    _, plain = train(GradientTrainer(), job(TOKENS, LOCAL))
    _, after = train(DropoutTrainer(1e-12), job(TOKENS, LOCAL))
    np.testing.assert_allclose(after, plain, atol=1e-6)


def test_a_model_without_lora_is_refused() -> None:
    class Bare:
        module = torch.nn.Linear(2, 2)
        device = torch.device("cpu")

    with pytest.raises(SiloBenchError, match="no LoRA layer"), dropping(Bare(), 0.1, 0):  # type: ignore[arg-type]
        pass


def test_the_defense() -> None:
    parts = fill(dropout.build(dropout.Config()))
    assert isinstance(parts.trainer, DropoutTrainer)
    assert parts.promises == ()
    for wrong in ({"share": 0}, {"share": 1}, {"p": 0.1}):
        with pytest.raises(ValidationError):
            dropout.Config(**wrong)
