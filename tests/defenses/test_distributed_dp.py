"""Distributed noise: shares, grids that hold every value, and what each adversary meets."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.fixtures import LAYOUT, transform_context
from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams
from bench.core.update import Grid, Update
from bench.defense.compose import fill
from bench.privacy import Skellam, epsilon_skellam
from bench.spec.run import Dropout
from bench.transcript.notes import logged_mechanisms, opened_sums
from defenses import distributed_dp
from defenses.transforms.bounded_rounding import BoundedRounding, norm_after
from defenses.transforms.budget import Budget
from defenses.transforms.clip import Clip
from defenses.transforms.integer_noise import SkellamNoise
from tests.defenses.silo_privacy import claimed, federate, named

ZEROS = np.zeros(LAYOUT.size, np.float32)

# shares


def clipped(values: np.ndarray, clip: float = 1.0) -> Update:
    return Clip(clip).apply(Update(values.astype(np.float32), LAYOUT), transform_context(ZEROS))


def random_update(seed: int = 0, clip: float = 1.0) -> Update:
    return clipped(np.random.default_rng(seed).normal(size=LAYOUT.size), clip)


def noise(sigma: float = 1.0, missing: int = 0) -> SkellamNoise:
    return SkellamNoise(Budget("distributed-dp", sigma=sigma), missing)


def rounded_update(seed: int = 0) -> Update:
    return BoundedRounding(4.0).apply(random_update(seed), transform_context(ZEROS))


def test_a_share_has_its_part_of_the_variance_and_the_log_says_so() -> None:
    """Over 5,152 values the sample variance has a standard error of sqrt(2/n) about: 4.9 allowed."""
    update, context = rounded_update(), transform_context(ZEROS, silos=5)
    for sigma, missing, counted in ((1.0, 0, 5), (2.0, 2, 3), (0.5, 4, 1)):
        transform = noise(sigma, missing)
        logged = transform.mechanism(update, context)
        after = transform.apply(update, context)
        sensitivity = norm_after(4 * math.sqrt(LAYOUT.size), LAYOUT.size)
        assert logged.kind == "skellam-share"
        assert logged.params["sensitivity"] == pytest.approx(sensitivity, rel=1e-9)
        assert logged.params["dimension"] == LAYOUT.size
        wanted = (sigma * sensitivity) ** 2 / counted
        assert wanted <= logged.params["variance"] <= wanted + 1 / 1024 + 1e-6
        drawn = (after.values - update.values).astype(float)
        assert abs(drawn.var() / wanted - 1) < 4.9 * math.sqrt(2.1 / LAYOUT.size)
        assert abs(drawn.mean()) < 4.9 * math.sqrt(wanted / LAYOUT.size)


@given(st.integers(0, 2**32), st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=15, deadline=None)
def test_every_value_lies_on_the_widened_grid_and_the_step_stays(seed: int, sigma: float) -> None:
    update = rounded_update(seed % 5)
    after = noise(sigma).apply(update, transform_context(ZEROS, secret_seed=seed))
    assert after.grid is not None
    assert update.grid is not None
    assert np.abs(after.values).max() <= after.grid.levels
    assert after.grid.step == pytest.approx(update.grid.step, rel=1e-14)
    assert after.norm_bound is None


def test_noise_for_an_epsilon_keeps_it_over_all_rounds() -> None:
    update, context = rounded_update(), transform_context(ZEROS, rounds=4)
    logged = SkellamNoise(Budget("distributed-dp", 2.0, None)).mechanism(update, context).params
    total = Skellam(3 * logged["variance"], logged["sensitivity"], int(logged["dimension"]))
    assert 1.98 < epsilon_skellam([total] * 4, logged["delta"]) <= 2.0


@pytest.mark.parametrize(
    ("update", "transform", "error", "says"),
    [
        (Update(ZEROS, LAYOUT, norm_bound=1.0), noise(), SiloBenchError, "integers on a grid"),
        (Update(ZEROS.astype(np.int64), LAYOUT, grid=Grid(8, 1.0)), noise(), SiloBenchError, "put a clip before it"),
        (None, noise(missing=3), UsageError, "only 3 silos take part"),
        (None, noise(sigma=1e4), UsageError, "coarser grid"),
    ],
)
def test_noise_that_cannot_be_is_refused(update, transform, error, says) -> None:
    with pytest.raises(error, match=says):
        transform.apply(update or rounded_update(), transform_context(ZEROS))


# what each adversary meets

SIGMA = {"distributed_dp": {"sigma": 2.0}}


def shares(transcript: Any) -> tuple[float, float, int]:
    """(variance of a share, sensitivity, dimension), the same for all silos and rounds."""
    found = {tuple(m.params.values()) for ms in logged_mechanisms(transcript).values() for m in ms}
    ((variance, sensitivity, dimension),) = found
    return variance, sensitivity, int(dimension)


def expected(transcript: Any, *counts: int, n: int = 4) -> float:
    """Epsilon of rounds in which ``counts`` shares protect."""
    variance, sensitivity, dimension = shares(transcript)
    return epsilon_skellam([Skellam(c * variance, sensitivity, dimension) for c in counts], 1 / (10 * n) - 0.005)


READS = {
    "distributed-dp": {"user": 4, "outsider": 4, "silo": 3, "server": 1, "server+silo": 1, "all-but-one": 1},
    "distributed-dp+secagg": {"user": 4, "outsider": 4, "silo": 3, "server": 4, "server+silo": 3, "all-but-one": 1},
    "distributed-dp+rlwe": {"user": 4, "outsider": 4, "silo": 3, "server": 4, "server+silo": 3, "all-but-one": 1},
}


@pytest.mark.parametrize("names", READS)
def test_the_noise_that_counts_follows_from_what_is_read(tmp_path, names: str) -> None:
    """4 silos, 2 rounds: epsilon of so many shares. That a server reads uploads in clear, and no upload under secure
    sums, is found by trying."""
    setup, transcript = federate(tmp_path, named(names, **SIGMA), release="every-round")
    for adversary, count in READS[names].items():
        found = claimed(tmp_path, setup, transcript, adversary)
        assert found.epsilon == pytest.approx(expected(transcript, count, count), rel=1e-12), adversary
        assert (found.unit, found.adjacency) == ("silo", "zero-out")


@pytest.mark.parametrize("names", ["distributed-dp", "distributed-dp+secagg"])
def test_a_silo_that_drops_out_takes_its_noise_with_it(tmp_path, names: str) -> None:
    away = (Dropout(round=0, silo=1, stage="upload"),)
    setup, transcript = federate(tmp_path, named(names, **SIGMA), dropouts=away)
    assert [len(s.bounds) for s in opened_sums(transcript)] == [3, 4]
    true = expected(transcript, 3, 4)
    assert claimed(tmp_path, setup, transcript, "outsider").epsilon == pytest.approx(true, rel=1e-12)
    assert expected(transcript, 4, 4) < true * 0.97  # a broken copy that counts all who were called
    found = claimed(tmp_path, setup, transcript, "all-but-one").epsilon
    assert found == pytest.approx(expected(transcript, 1, 1), rel=1e-12)


def test_missing_shares_are_paid_for_by_the_others(tmp_path) -> None:
    """With ``missing`` 2, two honest shares of four amount to the budget."""
    options = {"distributed_dp": {"sigma": 2.0, "missing": 2}}
    setup, transcript = federate(tmp_path, named("distributed-dp+secagg", **options))
    variance, sensitivity, _ = shares(transcript)
    assert 2 * variance == pytest.approx((2.0 * sensitivity) ** 2, rel=1e-4)
    assert claimed(tmp_path, setup, transcript, "outsider").epsilon == pytest.approx(expected(transcript, 4, 4))


def test_the_sum_is_exact_and_the_mean_is_near(tmp_path) -> None:
    """Under secure aggregation the adapter moves by the mean of what the silos handed over, rounded to float32."""
    _, transcript = federate(tmp_path, named("distributed-dp+secagg", **SIGMA), rounds=1)
    summands = [np.asarray(transcript.truth(0, f"silo-{i}"), dtype=np.float64) for i in range(4)]
    after, before = transcript.truth(0, "adapter"), transcript.initial_adapter()
    np.testing.assert_allclose(after - before, sum(summands) / 4, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("distributed-dp+ckks", "takes real values but is handed grid"),
        ("distributed-dp+quantize", "Quantise can.t come after it"),
        ("quantize+distributed-dp", "Clip takes real values"),
        ("distributed-dp+fedshield", "each brings its own aggregator"),
        ("distributed-dp+dp-ffa-lora", "TrainedFactors can.t come after it"),
    ],
)
def test_unsound_combinations_are_refused_with_a_reason(names: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fill(named(names))


def test_nothing_may_follow_a_share() -> None:
    from bench.defense.parts import Transform

    class Halve(Transform):
        def follow(self, flow):  # type: ignore[no-untyped-def]
            return flow.taken(self, "grid")

        def apply(self, update, context):  # type: ignore[no-untyped-def]
            return replace(update, values=update.values // 2)

    defense = distributed_dp.build(distributed_dp.Config())
    with pytest.raises(UsageError, match="Halve can't come after it"):
        fill(replace(defense, transforms=(*defense.transforms, Halve())))
    clip, rounding, share = defense.transforms
    fill(replace(defense, transforms=(clip, rounding, Halve(), share)))
    with pytest.raises(UsageError, match="nothing before it clips"):
        fill(replace(defense, transforms=(rounding, share)))


def test_noise_comes_from_secrets_that_nobody_can_redraw() -> None:
    update = rounded_update()
    one, other = (noise().apply(update, transform_context(ZEROS, secret_seed=None)).values for _ in range(2))
    assert (one != other).mean() > 0.9
    assert not SecretStreams("silo-0").simulated


@pytest.mark.parametrize("wrong", [{"scale": 0.1}, {"missing": -1}, {"epsilon": 1.0, "sigma": 1.0}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        distributed_dp.Config(**wrong)
