"""Adaptive clipping: its budget, its noise, where the clip goes, and copies that tell the quantile without noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from bench.defense.parts import Mechanism
from bench.privacy import claim, composition, epsilon
from bench.spec.run import LocalSpec
from defenses import dp_sgd
from defenses.trainers.dp_sgd import DPSGD, Quantile
from tests.defenses.dp_audit import ALARM, NORMAL, Line, flat_sum, marked, run_job, sgd


@given(st.floats(0.1, 20), st.floats(0.001, 0.999))
@settings(max_examples=30)
def test_the_two_noises_are_worth_the_one_that_was_asked_for(z, share) -> None:
    sigma, sigma_count = Quantile(share=share).split(z)
    assert sigma > z
    assert sigma**-2 + (2 * sigma_count) ** -2 == pytest.approx(z**-2, rel=1e-9)
    assert (2 * sigma_count) ** -2 == pytest.approx(share * z**-2, rel=1e-9)


def test_the_formula_is_that_of_two_composed_releases() -> None:
    """Without sampling: a sum of sensitivity 1 (in clips) and a count of halves, each with its own noise."""
    sigma, sigma_count = Quantile(share=0.3).split(2.0)
    params = {"rate": 1.0, "sigma": sigma, "sigma_count": sigma_count, "steps": 5.0}
    (release,) = composition([Mechanism("poisson-gaussian-counts", params)], "add-remove")
    assert release == (1.0, pytest.approx(2.0), 5)
    apart = epsilon(((1.0, sigma, 5), (1.0, 2 * sigma_count, 5)), 1e-3)
    assert apart == pytest.approx(epsilon(((1.0, 2.0, 5),), 1e-3), rel=1e-3)


def test_a_step_by_hand() -> None:
    rule = Quantile(target=0.5, rate=0.2)
    # 6 of 8 expected records joined, 5 of them within the clip: halves 2.5 - 0.5 = 2; noise took 0.4 away
    assert rule.moved(2.0, 1.6, 8.0, 1.0) == pytest.approx(2.0 * math.exp(-0.2 * (1.6 / 8)))
    assert rule.moved(2.0, 1e9, 8.0, 1.0) == pytest.approx(2.0 * math.exp(-0.1))
    assert rule.moved(2.0, -1e9, 8.0, 1.0) == pytest.approx(2.0 * math.exp(0.1))
    assert rule.moved(1e-4, 1e9, 8.0, 1.0) == 1e-4
    assert rule.moved(1e4, -1e9, 8.0, 1.0) == 1e4


def test_the_run_costs_what_was_asked_for_with_the_counts() -> None:
    trainer = dp_sgd.build(dp_sgd.Config(clip_quantile=0.5)).trainer
    assert trainer is not None
    plan = trainer.plan(3, LocalSpec(epochs=2, batch=8), 30)
    assert {m.kind for m in plan} == {"poisson-gaussian-counts"}
    found = claim({"silo-0": plan}, [trainer.promise], frozenset(), ["silo-0"], {"silo-0": 30})
    assert found.epsilon is not None
    assert 7.8 < found.epsilon <= 8
    without = [Mechanism("poisson-gaussian", {**m.params}) for m in plan]
    assert claim({"silo-0": without}, [trainer.promise], frozenset(), ["silo-0"], {"silo-0": 30}).epsilon < 7.7


@pytest.mark.parametrize("wrong", [{"clip_quantile": 0}, {"clip_quantile": 1}, {"clip_share": 0}, {"clip_share": 1}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        dp_sgd.Config(**wrong)


def adaptive(kind: type[DPSGD] = DPSGD, sigma: float = 1.0, **rule: float) -> DPSGD:
    return kind(None, sigma, 1.0, quantile=Quantile(**rule))


def clips(trainer: DPSGD, records: int, rounds: int, nominal: int = 64) -> np.ndarray:
    """The clip after each of ``rounds`` rounds of one step at the rate 1/2."""
    state: dict[str, Any] = {}
    model, tokens = Line(), marked([NORMAL] * records)
    found = []
    for round in range(rounds):
        run_job(trainer, model, tokens, sgd(1, nominal // 2), nominal, round, rounds, state)
        found.append(float(state["clip"]))
    return np.array(found)


def check_count_noise(make) -> None:
    """With nobody there the clip moves by the noise of the count alone, of the stated size and fresh every round."""
    sigma, share, rate, rounds = 0.8, 0.1, 0.01, 150
    trainer = make(sigma=sigma, rate=rate, share=share)
    steps = np.diff(np.log(clips(trainer, 0, rounds))) / -rate
    expected = sigma / (2 * math.sqrt(share)) / 32
    squares = float(np.square(steps / expected).sum())
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], len(steps))
    assert low < squares < high, f"the count's noise is {math.sqrt(squares / len(steps)):.3f} times the stated"
    again = np.diff(np.log(clips(trainer, 0, rounds))) / -rate
    correlation = float(np.corrcoef(steps, again)[0, 1])
    assert abs(correlation) < stats.norm.isf(ALARM / 2) / math.sqrt(len(steps)), "two runs draw alike"


class CountsWithoutNoise(DPSGD):
    def plan(self, rounds, local, nominal_size):
        plan = super().plan(rounds, local, nominal_size)
        for mechanism in plan:
            mechanism.params["sigma_count"] = 0.0
        return plan


class TakesNoiseForTheWholeCount(DPSGD):
    """Noise for the mean on the sum, a batch's size too small."""

    def plan(self, rounds, local, nominal_size):
        plan = super().plan(rounds, local, nominal_size)
        for mechanism in plan:
            mechanism.params["sigma_count"] /= local.batch
        return plan


def test_the_counts_noise_is_as_stated() -> None:
    check_count_noise(adaptive)


@pytest.mark.parametrize("kind", [CountsWithoutNoise, TakesNoiseForTheWholeCount])
def test_a_count_with_less_noise_is_caught(kind) -> None:
    with pytest.raises(AssertionError, match="times the stated"):
        check_count_noise(lambda **rule: adaptive(kind, **rule))


def test_a_count_without_noise_costs_no_finite_epsilon() -> None:
    plan = adaptive(CountsWithoutNoise).plan(2, LocalSpec(), 30)
    found = claim({"silo-0": plan}, [DPSGD.promise], frozenset(), ["silo-0"], {"silo-0": 30})
    assert found.epsilon is None
    assert "no noise" in found.note


def test_the_clip_finds_the_quantile_and_goes_on_from_round_to_round() -> None:
    trainer = DPSGD(None, 0.05, 1.0, quantile=Quantile(0.5, 0.3))
    model, tokens = Line(), marked([NORMAL] * 24)
    norms = [np.linalg.norm(flat_sum(DPSGD(None, 1.0, 1e9), model, tokens, [row])) for row in range(24)]
    state: dict[str, Any] = {}
    local = LocalSpec(steps=40, batch=24, optimizer="sgd", lr=1e-12)
    for round in range(2):
        run_job(trainer, model, tokens, local, 24, round, 2, state)
    low, high = np.quantile(norms, [0.3, 0.7])
    assert low < float(state["clip"]) < high
    assert state["clip"].dtype == np.float64


def test_noise_follows_the_clip() -> None:
    """One step at a stored clip of 3: the sum's noise is 3 times sigma's."""
    trainer = adaptive(sigma=1.0, rate=0.1, share=0.1)
    model = Line()
    before = model.values().astype(np.float64)
    run_job(trainer, model, marked([]), sgd(1, 4), 4, 0, 1, {"clip": np.array(3.0)})
    spread = float(np.std((model.values() - before) * 4))
    assert spread == pytest.approx(3 / math.sqrt(0.9), rel=6 / math.sqrt(2 * 2048))


def test_a_fixed_clip_keeps_no_state() -> None:
    state: dict[str, Any] = {}
    run_job(DPSGD(None, 1.0), Line(), marked([NORMAL] * 3), sgd(2, 2), 4, 0, 1, state)
    assert state == {}
