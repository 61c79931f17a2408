"""DP-FTRL: its order, its noise correlated over steps and rounds, its one release, and copies that break each."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats
from scipy.linalg import toeplitz

from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams, Streams
from bench.defense.parts import TrainJob
from bench.privacy import claim, composition
from bench.spec.run import LocalSpec
from defenses import dp_ftrl
from defenses.trainers.dp_ftrl import DPFTRL
from tests.defenses.dp_audit import ALARM, NORMAL, Line, little_llama, make_tokens, marked, run_job, sgd


def matrix(bands: int, steps: int) -> np.ndarray:
    """The banded square root by its definition: C C = prefix sums without the cut."""
    column = np.array([math.comb(2 * j, j) / 4**j for j in range(steps)])
    np.testing.assert_allclose(np.linalg.matrix_power(np.tril(toeplitz(column)), 2), np.tri(steps), atol=1e-12)
    return np.tril(toeplitz(np.where(np.arange(steps) < bands, column, 0.0)))


def uploads(trainer: DPFTRL, rounds: int, steps: int, batch: int, nominal: int, forget: bool = False) -> np.ndarray:
    """(rounds, values) what each round of a silo without records changes, at learning rate 1, in units of the clip."""
    state: dict[str, Any] = {}
    changes = []
    for round in range(rounds):
        model = Line()
        before = model.values().astype(np.float64)
        run_job(trainer, model, marked([]), sgd(steps, batch), nominal, round, rounds, {} if forget else state)
        expected = nominal / math.ceil(nominal / batch)
        changes.append((before - model.values()) * expected / trainer.clip)
    return np.array(changes)


def check_noise(make) -> None:
    """A step a round: C times the noise of all rounds is independent, of the standard deviation that was logged.

    The period is 4, so at most 4 bands reach over rounds; 9 rounds, so the noise of several passes is in it.
    """
    sigma, nominal, batch, rounds, bands = 1.3, 16, 4, 9, 4
    trainer = make(sigma=sigma, clip=0.5, bands=bands)
    noise = uploads(trainer, rounds, 1, batch, nominal)
    logged = trainer.plan(rounds, sgd(1, batch), nominal)[0].params["sigma"]
    white = matrix(bands, rounds) @ noise / logged
    size = white.shape[1]
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], size)
    bound = stats.norm.isf(ALARM / 200) / math.sqrt(size)
    for step in range(rounds):
        squares = float(np.square(white[step]).sum())
        assert low < squares < high, f"step {step}: noise of {math.sqrt(squares / size):.3f} times the stated size"
        for earlier in range(step):
            correlation = float(np.corrcoef(white[step], white[earlier])[0, 1])
            assert abs(correlation) < bound, f"steps {earlier} and {step} are correlated by {correlation:.3f}"
    assert stats.kstest(white.ravel(), "norm").pvalue > ALARM


def check_order(make) -> None:
    """Every record's steps are a period apart over all rounds, and the release's sensitivity is that of those steps."""
    nominal, batch, rounds, records = 10, 3, 3, 11
    trainer = make(sigma=1.0, bands=3)
    local, period, state = sgd(6, batch), 4, {}
    tokens = marked([NORMAL] * records)
    batches: list[tuple[int, ...]] = []
    logged = []
    for round in range(rounds):
        training = run_job(trainer, Line(), tokens, local, nominal, round, rounds, state)
        batches += training.batches
        logged += training.mechanisms
    c = matrix(3, len(batches))
    largest = 0.0
    for record in range(records):
        steps = [t for t, rows in enumerate(batches) if record in rows]
        assert all(b - a == period for a, b in pairwise(steps)), f"record {record} is in {steps}"
        assert len(steps) >= len(batches) // period
        largest = max(largest, float(np.linalg.norm(c[:, steps] @ np.ones(len(steps)))))
    ((rate, sigma, count),) = composition(logged, "zero-out")
    assert (rate, count) == (1.0, 1)
    assert sigma == pytest.approx(logged[0].params["sigma"] / largest)
    assert sigma == pytest.approx(1.0), "the release is not of the multiplier that was asked for"


class ForgetsItsNoise(DPFTRL):
    """Starts the recursion anew every round."""

    def train(self, job):
        job.state = {}
        return super().train(job)


class AddsInsteadOfTakingBack(DPFTRL):
    def correlate(self, fresh, history):
        return fresh + (fresh - super().correlate(fresh, history))


class IndependentNoise(DPFTRL):
    """Logs bands that it does not have."""

    def correlate(self, fresh, history):
        return fresh


class WrongWayRound(DPFTRL):
    """Takes the oldest noise for the newest."""

    def correlate(self, fresh, history):
        return super().correlate(fresh, history[::-1])


class NoiseOfOneStep(DPFTRL):
    """Forgets that a record is in several steps: noise for a sensitivity of one clip."""

    def plan(self, rounds, local, nominal_size):
        plan = super().plan(rounds, local, nominal_size)
        for mechanism in plan:
            mechanism.params["sigma"] = self.sigma
        return plan


class ShuffledEveryRound(DPFTRL):
    def train(self, job):
        self._permutation = job.order.permutation(len(job.tokens))
        return super().train(job)

    def order(self, records, period, step):
        return np.sort(self._permutation[super().order(records, period, step)])


class StartsOverEveryRound(DPFTRL):
    """Forgets where in the order it was."""

    def train(self, job):
        job.state.pop("step", None)
        job.state.pop("noise", None)
        return super().train(job)


class PeriodOfTheTrueSize(DPFTRL):
    """Cuts the true records into batches: the period is then another than what is logged."""

    def order(self, records, period, step):
        return super().order(records, math.ceil(records / 3) + 1, step)


BROKEN = {
    ForgetsItsNoise: (check_noise, "noise of|correlated"),
    AddsInsteadOfTakingBack: (check_noise, "noise of|correlated"),
    IndependentNoise: (check_noise, "noise of|correlated"),
    WrongWayRound: (check_noise, "noise of|correlated"),
    NoiseOfOneStep: (check_order, "multiplier that was asked for"),
    ShuffledEveryRound: (check_order, "record"),
    StartsOverEveryRound: (check_order, "record"),
    PeriodOfTheTrueSize: (check_order, "record"),
}


def maker(kind: type[DPFTRL]):
    return lambda **options: kind(None, **options)


@pytest.mark.parametrize("check", [check_noise, check_order], ids=lambda c: c.__name__)
def test_the_trainer_passes(check) -> None:
    check(maker(DPFTRL))


@pytest.mark.parametrize("kind", BROKEN, ids=lambda k: k.__name__)
def test_a_broken_copy_is_caught(kind) -> None:
    check, words = BROKEN[kind]
    with pytest.raises(AssertionError, match=words):
        check(maker(kind))


def test_with_one_band_noise_is_independent_and_the_cost_that_of_every_pass() -> None:
    trainer = DPFTRL(None, 1.0, bands=1)
    noise = uploads(trainer, 4, 1, 4, 8) / math.sqrt(2)  # 4 steps of a period of 2: twice each record
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 6 / math.sqrt(noise.shape[1])
    assert noise.std() == pytest.approx(1.0, rel=6 / math.sqrt(2 * noise.size))


def test_correlated_noise_makes_sums_over_a_run_more_exact() -> None:
    """What it is for: at the same epsilon, the noise on the sum of all steps' gradients is smaller."""
    spread = {}
    for bands in (1, 8):
        trainer = DPFTRL(None, 1.0, bands=bands)
        spread[bands] = float(np.sum(uploads(trainer, 2, 16, 1, 8), 0).std())
    assert spread[8] < 0.75 * spread[1]


LOCAL = LocalSpec(epochs=2, batch=8)


def test_the_run_costs_what_was_asked_for_and_no_more_for_fewer_rounds() -> None:
    trainer = dp_ftrl.build(dp_ftrl.Config(epsilon=4)).trainer
    assert trainer is not None
    plan = trainer.plan(3, LOCAL, 30)
    assert plan[0].params["separation"] == 4
    assert plan[0].params["bands"] == 4
    found = claim({"silo-0": plan}, [trainer.promise], frozenset(), ["silo-0"], {"silo-0": 30})
    assert found.epsilon is not None
    assert 3.9 < found.epsilon <= 4
    assert (found.unit, found.adjacency) == ("record", "zero-out")
    fewer = claim({"silo-0": plan[:2]}, [trainer.promise], frozenset(), ["silo-0"], {"silo-0": 30})
    assert fewer.epsilon is not None
    assert fewer.epsilon < found.epsilon


def test_bands_are_cut_to_the_period() -> None:
    assert DPFTRL(None, 1.0, bands=99).plan(1, LOCAL, 30)[0].params["bands"] == 4
    assert DPFTRL(None, 1.0).plan(1, LocalSpec(batch=64), 30)[0].params["bands"] == 1


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"epsilon": 8, "sigma": 1}, {"epsilon": None}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        dp_ftrl.Config(**wrong)


def test_a_delta_of_ones_own_is_bounded() -> None:
    with pytest.raises(UsageError, match=r"dp-ftrl\.delta"):
        DPFTRL(delta=0.1).plan(3, LOCAL, 30)


def test_state_that_lost_its_noise_is_an_error_not_a_fresh_start() -> None:
    trainer, state = DPFTRL(None, 1.0), {}
    run_job(trainer, Line(), marked([NORMAL] * 8), sgd(2, 2), 8, 0, 3, state)
    assert {k: v.dtype for k, v in state.items()} == {"step": np.int64, "noise": np.float32}
    assert state["noise"].shape == (2, 2048)
    del state["noise"]
    with pytest.raises(SiloBenchError, match="earlier steps"):
        run_job(trainer, Line(), marked([NORMAL] * 8), sgd(2, 2), 8, 1, 3, state)


def test_with_hardly_any_noise_it_learns_the_records() -> None:
    model, tokens = little_llama(), make_tokens([8] * 12)
    before = float(model.losses(tokens).detach().mean())
    run_job(DPFTRL(None, 1e-6, clip=10.0), model, tokens, LocalSpec(epochs=15, batch=6, lr=2e-2), 12)
    assert float(model.losses(tokens).detach().mean()) < before - 0.3


def test_the_noise_is_secret() -> None:
    """The same public order and other secrets give other noise; the state's names are not of keys, which views hold."""
    trainer = DPFTRL(None, 1.0)
    states: list[dict[str, Any]] = [{}, {}]
    for state in states:
        order, secret, local = Streams(1).generator("silo", 0, 0), SecretStreams("silo-0"), sgd(3, 2)
        trainer.train(TrainJob(Line(), marked([]), local, 1.0, 0, 1, 8, order, secret, state))
    assert abs(np.corrcoef(states[0]["noise"].ravel(), states[1]["noise"].ravel())[0, 1]) < 0.1
    assert not any(key.startswith("keys") for key in states[0])
