"""DP-SGD: gradients against a loop over records, its epsilon, its options, and what it leaves on the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bench.errors import SiloBenchError, UsageError
from bench.privacy import calibrate, claim
from bench.spec import LocalSpec
from bench.tokens import Tokens
from defenses import dp_sgd
from defenses.trainers.dp_sgd import DPSGD, record_gradients
from tests.defenses.dp_audit import (
    HUGE,
    INFINITE,
    NORMAL,
    NOT_A_NUMBER,
    Line,
    flat_sum,
    little_llama,
    make_tokens,
    marked,
    run_job,
    sgd,
)


def one_by_one(model, tokens: Tokens, clip: float) -> np.ndarray:
    """The clipped sum with nothing but autograd, a record at a time."""
    total = 0.0
    for row in range(len(tokens)):
        loss = model.losses(tokens.take([row])).sum()
        gradients = torch.autograd.grad(loss, model.parameters())
        flat = torch.cat([g.double().ravel() for g in gradients])
        total = total + flat * min(1.0, clip / float(flat.norm()))
    return np.asarray(total)


@pytest.mark.parametrize("clip", [0.3, 3.0, 1e6])
@pytest.mark.parametrize("microbatch", [1, 3, 64])
def test_clipped_sums_equal_a_loop_over_records(clip, microbatch) -> None:
    model = little_llama()
    tokens = make_tokens([5, 17, 3, 9, 30, 2, 12])
    expected = one_by_one(model, tokens, clip)
    found = flat_sum(DPSGD(sigma=1.0, epsilon=None, clip=clip, microbatch=microbatch), model, tokens, range(7))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_every_record_is_cut_to_the_clip_over_all_values_together() -> None:
    model, tokens = little_llama(), make_tokens([5, 17, 3])
    for row in range(3):
        alone = flat_sum(DPSGD(sigma=1.0, epsilon=None, clip=0.01), model, tokens, [row])
        assert np.linalg.norm(alone) == pytest.approx(0.01, rel=1e-5)


def test_what_is_not_finite_counts_as_nothing_and_spoils_nothing() -> None:
    trainer = DPSGD(sigma=1.0, epsilon=None, clip=0.5)
    tokens = marked([NORMAL, NOT_A_NUMBER, NORMAL, INFINITE])
    whole = flat_sum(trainer, Line(), tokens, range(4))
    np.testing.assert_allclose(whole, flat_sum(trainer, Line(), tokens, [0, 2]), atol=1e-7)
    assert not flat_sum(trainer, Line(), tokens, [1, 3]).any()
    huge = flat_sum(trainer, Line(), marked([HUGE]), [0])
    assert np.linalg.norm(huge) == pytest.approx(0.5, rel=1e-5)


def test_no_record_gives_a_sum_of_zeros() -> None:
    assert not flat_sum(DPSGD(sigma=1.0, epsilon=None), little_llama(), make_tokens([4, 5]), []).any()


# the trainer as a part


LOCAL = LocalSpec(epochs=2, batch=8, lr=1e-2)


def test_the_run_costs_what_was_asked_for() -> None:
    """3 rounds of 2 epochs at 30 records, batch 8: rate 8/30, 24 steps; as logged, at most epsilon 8, hardly less."""
    from opacus.accountants import PRVAccountant

    trainer = dp_sgd.build(dp_sgd.Config()).trainer
    assert isinstance(trainer, DPSGD)
    tokens = make_tokens([6] * 28)
    logged = []
    for round in range(3):
        training = run_job(trainer, little_llama(), tokens, LOCAL, 30, round)
        assert training.steps == len(training.batches) == 8
        logged += training.mechanisms
    assert list(logged) == list(trainer.plan(3, LOCAL, 30))
    assert logged[0].params == {"rate": 8 / 30, "sigma": calibrate(8, 0.003, 8 / 30, 24), "steps": 8.0}
    found = claim({"silo-0": logged}, [trainer.promise], frozenset({"server"}), ["silo-0"], {"silo-0": 30})
    assert 7.8 < found.epsilon <= 8
    assert (found.delta, found.unit, found.adjacency) == (0.003, "record", "add-remove")
    opacus = PRVAccountant()
    opacus.history = [(m.params["sigma"], m.params["rate"], int(m.params["steps"])) for m in logged]
    assert found.epsilon == pytest.approx(opacus.get_epsilon(0.003), abs=0.02)


def test_the_promise_is_void_where_the_silo_itself_attacks() -> None:
    promise = DPSGD.promise
    assert promise is not None
    assert promise.against(frozenset({"server", "silo-1"}), "silo-0")
    assert promise.against(frozenset(), "silo-0")
    assert not promise.against(frozenset({"silo-0"}), "silo-0")


def test_a_small_silo_takes_every_record_every_step() -> None:
    mechanism = DPSGD(None, 1.5).plan(2, LocalSpec(epochs=3, batch=50), 20)[0]
    assert mechanism.params == {"rate": 1.0, "sigma": 1.5, "steps": 3.0}
    assert DPSGD(None, 1.5).plan(2, LocalSpec(steps=7, batch=5), 20)[0].params["steps"] == 7


def test_a_delta_of_ones_own_is_logged_and_bounded() -> None:
    trainer = dp_sgd.build(dp_sgd.Config(delta=1e-5)).trainer
    assert trainer is not None
    plan = trainer.plan(3, LOCAL, 30)
    assert plan[0].params["delta"] == 1e-5
    assert plan[0].params["sigma"] > DPSGD(8.0).plan(3, LOCAL, 30)[0].params["sigma"]
    found = claim({"silo-0": plan}, [trainer.promise], frozenset(), ["silo-0"], {"silo-0": 30})
    assert found.delta == 1e-5
    assert 7.8 < found.epsilon <= 8
    with pytest.raises(UsageError, match=r"dp-sgd.delta is 0\.1"):
        DPSGD(8.0, delta=0.1).plan(3, LOCAL, 30)


def test_sigma_replaces_the_default_epsilon() -> None:
    config = dp_sgd.Config(sigma=2.0)
    assert config.epsilon is None
    assert dp_sgd.Config.model_validate(config.model_dump()) == config
    assert dp_sgd.Config().epsilon == 8.0


@pytest.mark.parametrize(
    "wrong",
    [{"epsilon": 8, "sigma": 1}, {"epsilon": None}, {"epsilon": 0}, {"clip": 0}, {"delta": 1}, {"microbatch": 0}],
)
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        dp_sgd.Config(**wrong)


def test_with_hardly_any_noise_it_learns_the_records() -> None:
    model, tokens = little_llama(), make_tokens([8] * 12)
    before = float(model.losses(tokens).detach().mean())
    training = run_job(DPSGD(None, 1e-6, clip=10.0), model, tokens, LocalSpec(steps=30, batch=6, lr=2e-2), 12)
    assert float(model.losses(tokens).detach().mean()) < before - 0.3
    assert training.losses[-1] < training.losses[0]
    assert training.tokens == sum(8 * len(rows) for rows in training.batches)
    assert len(training.losses) == sum(bool(rows) for rows in training.batches)


def test_losses_that_are_not_finite_are_left_out_not_raised() -> None:
    tokens = marked([NOT_A_NUMBER] * 6)
    training = run_job(DPSGD(None, 1.0), Line(), tokens, sgd(4, 6), 6)
    assert training.losses == ()
    assert [len(rows) for rows in training.batches] == [6] * 4


def traces(model) -> list[str]:
    left = [name for p in model.module.parameters() for name in vars(p) if "grad" in name or "counter" in name]
    left += [f"hook on {n}" for n, m in model.module.named_modules() if m._forward_hooks or m._backward_hooks]
    left += [f"training mode of {n}" for n, m in model.module.named_modules() if m.training]
    left += ["gradient" for p in model.parameters() if p.grad is not None]
    return left


def test_nothing_of_opacus_stays_on_the_shared_model() -> None:
    model = little_llama()
    assert traces(model) == []
    run_job(DPSGD(None, 1.0), model, make_tokens([5] * 9), LOCAL, 9)
    assert traces(model) == []
    with pytest.raises(KeyError), record_gradients(model):
        raise KeyError
    assert traces(model) == []


def test_only_the_adapters_own_maps_change_mode() -> None:
    model = little_llama()
    with record_gradients(model):
        training = {n.split(".")[-2] for n, m in model.module.named_modules() if m.training}
    assert training == {"lora_A", "lora_B"}


def test_a_model_that_mixes_records_is_refused() -> None:
    class Flattened(Line):
        """Hands all records to the map as one."""

        def losses(self, tokens: Tokens) -> torch.Tensor:
            return self.module(self._table[tokens.ids[:, 0]][None]).square().sum(2)[0]

    with pytest.raises(SiloBenchError, match="per-record gradients"):
        flat_sum(DPSGD(None, 1.0), Flattened(), marked([NORMAL] * 4), range(4))


def test_clipping_the_private_gradient_further_is_honoured() -> None:
    model = Line()
    before = model.values()
    local = LocalSpec(steps=1, batch=4, optimizer="sgd", lr=1.0, max_grad_norm=1e-3)
    run_job(DPSGD(None, 1.0), model, marked([NORMAL] * 4), local, 4)
    assert np.linalg.norm(model.values() - before) == pytest.approx(1e-3, rel=1e-2)
