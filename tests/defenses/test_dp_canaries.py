"""Eight broken copies of DP-SGD, each found by canaries with orthogonal gradients where they have the power to, and
the correct one by none. A false alarm of an audit comes once in 10^6."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from bench import stats
from bench.conformance import canaries
from bench.conformance.canaries import COUPLED, DELTA, SIGNIFICANCE, Audit, Inapplicable
from bench.conformance.canary_model import LENGTH
from bench.conformance.checks import Finding, run_checks
from bench.conformance.trainer import checks
from defenses.trainers.dp_ftrl import DPFTRL
from defenses.trainers.dp_sgd import DPSGD, Quantile
from tests.defenses.dp_broken import (
    BatchMeanLoss,
    HalfTheNoise,
    NoClip,
    NoiseOverRootTwo,
    NoiseShareOfThree,
    NoiseSharesSummed,
    NoNoise,
    SameSecretsEveryRound,
    SamplerThrownAway,
)

SIGMA = 1.0


def rates(mu: float) -> tuple[float, float]:
    """Of a threshold half way between N(0, 1) and N(mu, 1)."""
    return float(ndtr(mu / 2)), float(ndtr(-mu / 2))


def make(kind: type[DPSGD], **more: object) -> DPSGD:
    return kind(None, SIGMA, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def size() -> int:
    return canaries.needed(make(DPSGD), math.sqrt(2))


def test_the_audit_is_strict_and_sized_for_the_smallest_mistake(size: int) -> None:
    assert SIGNIFICANCE <= 1e-6
    claim, used = stats.gdp_epsilon(1 / SIGMA, DELTA), size - round(0.2 * size)
    tpr, fpr = rates(math.sqrt(2) / SIGMA)
    assert stats.clopper_pearson_power(tpr, fpr, used, used, claim, DELTA, SIGNIFICANCE, "gaussian") >= 0.99


@pytest.mark.parametrize(
    "trainer",
    [
        make(DPSGD),
        make(DPSGD, clip=1e-3, microbatch=64),
        make(DPSGD, quantile=Quantile()),
        make(DPSGD, factors="b", gradients="opacus"),
        pytest.param(DPSGD(8.0), marks=pytest.mark.slow),  # the noise of four claims is calibrated
    ],
    ids=["plain", "small-clip", "adaptive", "opacus", "calibrated"],
)
def test_the_correct_trainer_is_flagged_by_none(trainer: DPSGD) -> None:
    found = [audit(trainer) for audit in canaries.AUDITS]
    assert [str(one) for one in found if one.refuted] == []
    # and what it leaks is really seen: a bound far above nothing where most canaries are
    assert found[0].bound > 0.5 * found[0].claim


#: broken copy: (the audit, mu that its mistake leaks or None for all)
IN_ONE_STEP = {
    NoNoise: math.inf,
    HalfTheNoise: 2 / SIGMA,
    NoiseOverRootTwo: math.sqrt(2) / SIGMA,
    NoiseShareOfThree: math.sqrt(3) / SIGMA,
    NoClip: LENGTH / SIGMA,
}


@pytest.mark.parametrize("kind", IN_ONE_STEP, ids=lambda kind: kind.__name__)
def test_mistakes_in_clip_and_noise_are_flagged_in_one_step(kind: type[DPSGD], size: int) -> None:
    """Against the claim of one unsampled step."""
    found = canaries.one_step(make(kind), size if kind in (NoiseOverRootTwo, NoiseShareOfThree) else 1024)
    assert found.claim == pytest.approx(stats.gdp_epsilon(1 / SIGMA, DELTA))
    assert found.power(*rates(IN_ONE_STEP[kind])) >= 0.99
    assert found.refuted, found


def test_shares_of_noise_that_are_summed_are_enough(size: int) -> None:
    """The same shares, in the sum of three uploads, keep the claim: what refutes is an upload by itself."""
    found = canaries.one_step(make(NoiseSharesSummed), size)
    assert not found.refuted, found


def test_one_noise_for_all_rounds_is_flagged_by_their_difference() -> None:
    """Against the claim of both rounds together; neither round alone tells."""
    found = canaries.two_rounds(make(SameSecretsEveryRound), 512)
    assert found.claim == pytest.approx(stats.gdp_epsilon(math.sqrt(2) / SIGMA, DELTA))
    assert found.power(*rates(math.inf)) >= 0.99
    assert found.refuted, found
    assert not canaries.one_step(make(SameSecretsEveryRound), 1024).refuted


def test_a_sampler_that_is_thrown_away_is_flagged_by_who_stands_first() -> None:
    """Against the (epsilon, delta) of one sampled step, no Gaussian assumed."""
    found = canaries.sampling(make(SamplerThrownAway))
    assert (found.family, found.delta) == ("approximate", pytest.approx(0.15))
    assert found.power(*rates(1 / SIGMA)) >= 0.99
    assert found.refuted, found


def test_a_loss_over_the_batch_is_flagged_by_a_long_record() -> None:
    """Against the claim of one step. Seven records of 0.9 clips are scaled by 8 / (7 + 64) where the long one joins."""
    found = canaries.coupling(make(BatchMeanLoss))
    shift = 7 * 0.9 * (1 - 8 / (7 + 64))
    assert shift == pytest.approx(COUPLED)
    assert found.claim == pytest.approx(stats.gdp_epsilon(1 / SIGMA, DELTA))
    assert found.power(*rates(shift / SIGMA)) >= 0.99
    assert found.refuted, found


def test_the_counts_behind_a_bound() -> None:
    """One third of the claims' Clopper-Pearson limits by hand: 100 of 100 and 0 of 100 at 10^-6."""
    one = Audit("x", 100, 100, 0, 100, claim=1.0, delta=1e-5)
    low = (SIGNIFICANCE / 2) ** (1 / 100)
    from scipy.special import ndtri

    assert one.bound == one.limit == pytest.approx(stats.gdp_epsilon(2 * float(ndtri(low)), 1e-5), rel=1e-6)
    assert one.refuted
    assert not Audit("x", 50, 100, 50, 100, claim=1.0, delta=1e-5).refuted


def test_thresholds_are_set_on_trials_that_do_not_count() -> None:
    inside, outside = np.full(100, -2.0), np.full(50, 1.0)  # canaries may lie below
    inside[:20], outside[:10] = -1.0, 0.0
    inside[20:23] = 0.9
    assert canaries._split(inside, outside) == (77, 80, 0, 40)


def test_where_the_smallest_mistake_is_out_of_reach_the_next_is_looked_for() -> None:
    found = canaries.one_step(DPSGD(None, 2.0))
    assert found.of == "one step (finds noise 2 times too small)"
    assert found.power(*rates(2 / 2.0)) >= 0.99
    assert not found.refuted
    assert canaries.one_step(HalfTheNoise(None, 2.0)).refuted


def test_what_can_not_be_audited_says_why() -> None:
    with pytest.raises(Inapplicable, match="can't tell noise"):
        canaries.one_step(DPSGD(None, 20.0))
    with pytest.raises(Inapplicable, match="always join"):
        canaries.sampling(DPSGD(None, 50.0))
    with pytest.raises(Inapplicable, match="nothing of the kind"):
        canaries.one_step(DPFTRL(8.0))


def finding(trainer: DPSGD) -> Finding:
    """What ``bench check`` says of it."""
    (check,) = [one for one in checks(trainer) if "canaries" in one.title]
    (found,) = run_checks([check])
    return found


def test_bench_check_audits_a_private_trainer() -> None:
    found = finding(make(HalfTheNoise))
    assert not found.passed
    assert "refuted: one step" in found.says
    vast = finding(DPSGD(None, 0.03))
    assert vast.passed
    assert "one_step not made" in vast.says


def test_a_trainer_that_wants_more_of_a_model_is_said_not_to_be_audited() -> None:
    class Choosy(DPSGD):
        def train(self, job):  # type: ignore[no-untyped-def]
            return job.model.encode([])

    found = finding(make(Choosy))
    assert found.passed
    assert found.says.count("not made (on the canaries' model: AttributeError") == 4
