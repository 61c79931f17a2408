"""DP-SGD as a part of a defense: what a run costs, its options, and what it does to a model."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from bench.core.errors import UsageError
from bench.privacy import calibrate, claim, composition
from bench.spec.run import LocalSpec
from defenses import dp_sgd, dp_sgd_high_utility
from defenses.trainers.dp_sgd import DPSGD
from tests.defenses.dp_audit import NORMAL, NOT_A_NUMBER, Line, little_llama, make_tokens, marked, run_job, sgd

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
    plan = DPSGD(None, 4.0, delta=1e-5).plan(3, LOCAL, 30)
    assert plan[0].params["delta"] == 1e-5
    found = claim({"silo-0": plan}, [DPSGD.promise], frozenset(), ["silo-0"], {"silo-0": 30})
    assert found.delta == 1e-5
    with pytest.raises(UsageError, match=r"dp-sgd.delta is 0\.1"):
        DPSGD(8.0, delta=0.1).plan(3, LOCAL, 30)


def test_the_noise_is_calibrated_to_all_rounds_at_that_delta(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("defenses.trainers.private.calibrate", lambda *words: asked.append(words) or 2.0)
    for delta in (None, 1e-5):
        assert DPSGD(8.0, delta=delta).plan(3, LOCAL, 30)[2].params["sigma"] == 2.0
    assert asked == [(8.0, 0.003, 8 / 30, 24), (8.0, 1e-5, 8 / 30, 24)]


def test_sigma_replaces_the_default_epsilon() -> None:
    config = dp_sgd.Config(sigma=2.0)
    assert config.epsilon is None
    assert dp_sgd.Config.model_validate(config.model_dump()) == config
    assert dp_sgd.Config().epsilon == 8.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 8, "sigma": 1},
        {"epsilon": None},
        {"epsilon": 0},
        {"clip": 0},
        {"delta": 1},
        {"microbatch": 0},
        {"gradients": "functorch"},
    ],
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


def test_clipping_the_private_gradient_further_is_honoured() -> None:
    model = Line()
    before = model.values()
    local = LocalSpec(steps=1, batch=4, optimizer="sgd", lr=1.0, max_grad_norm=1e-3)
    run_job(DPSGD(None, 1.0), model, marked([NORMAL] * 4), local, 4)
    assert np.linalg.norm(model.values() - before) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("gradients", ["fast", "opacus"])
def test_the_way_to_gradients_is_an_option_that_changes_no_result(gradients) -> None:
    trainer = dp_sgd.build(dp_sgd.Config(sigma=1e-6, gradients=gradients)).trainer
    assert isinstance(trainer, DPSGD)
    model, tokens = little_llama(), make_tokens([8] * 4)
    run_job(trainer, model, tokens, LocalSpec(steps=3, batch=4, optimizer="sgd", lr=0.5), 4)
    other = little_llama()
    run_job(DPSGD(None, 1e-6), other, tokens, LocalSpec(steps=3, batch=4, optimizer="sgd", lr=0.5), 4)
    np.testing.assert_allclose(model.get_adapter(), other.get_adapter(), atol=1e-5)


def test_high_utility_is_a_fixed_little_noise_with_a_vast_epsilon() -> None:
    trainer = dp_sgd_high_utility.build(dp_sgd_high_utility.Config()).trainer
    assert isinstance(trainer, DPSGD)
    plan = trainer.plan(3, LocalSpec(epochs=2, batch=8), 30)
    assert composition(plan, "add-remove") == ((8 / 30, 0.03, 24),)
    found = claim({"silo-0": plan}, [trainer.promise], frozenset(), ["silo-0"], {"silo-0": 30})
    assert found.epsilon is not None
    assert 5000 < found.epsilon < 10000
    with pytest.raises(UsageError, match=r"dp-sgd-high-utility\.delta"):
        dp_sgd_high_utility.build(dp_sgd_high_utility.Config(delta=0.1)).trainer.plan(3, LocalSpec(), 30)  # type: ignore[union-attr]
    with pytest.raises(ValidationError):
        dp_sgd_high_utility.Config(epsilon=8)  # type: ignore[call-arg]
