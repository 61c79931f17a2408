"""Noise on updates: its size, its independence, its secrecy, and that nothing is promised."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from bench.conformance.fixtures import transform_context
from bench.core.errors import SiloBenchError
from bench.core.update import Grid, Layout, Update
from bench.defense.compose import fill
from bench.defense.flow import Flow
from defenses import noise
from defenses.transforms.noise import UpdateNoise

LAYOUT = Layout(("a", "b"), ((100, 200), (20_000,)))
N = LAYOUT.size
BASE = np.zeros(N, np.float32)


def added(part: UpdateNoise, round: int = 0, seed: int | None = 7) -> np.ndarray:
    values = np.full(N, 0.5, np.float32)
    after = part.apply(Update(values, LAYOUT), transform_context(BASE, round, layout=LAYOUT, secret_seed=seed))
    assert after.values.dtype == np.float32
    assert (values == 0.5).all()
    return after.values.astype(np.float64) - 0.5


@pytest.mark.parametrize(("part", "sd"), [(UpdateNoise(0.5, "value"), 0.5), (UpdateNoise(2.0, "step"), 2 * 2e-3 * 8)])
def test_its_mean_and_its_spread(part, sd) -> None:
    """40,000 normal values: mean within 5 sd/200, mean square within 5 sqrt(2) sd^2/200 (5 standard errors: 6e-7)."""
    drawn = added(part)
    assert abs(drawn.mean()) < 5 * sd / 200
    assert abs((drawn**2).mean() - sd**2) < 5 * np.sqrt(2) * sd**2 / 200
    halved = drawn / 2  # a copy with the wrong size is caught
    assert abs((halved**2).mean() - sd**2) > 5 * np.sqrt(2) * sd**2 / 200


def test_it_is_normal() -> None:
    """The share beyond 2 sd is .0455; 5 standard errors of 40,000 draws."""
    share = (np.abs(added(UpdateNoise(1.0, "value"))) > 2).mean()
    assert abs(share - 0.0455) < 5 * np.sqrt(0.0455 * 0.9545 / N)


def test_rounds_and_silos_draw_anew_and_nothing_follows_from_the_seed_of_the_run() -> None:
    part = UpdateNoise(1.0, "value")
    first = added(part)
    np.testing.assert_array_equal(first, added(part))  # only with --secret-seed
    for other in (added(part, round=1), added(part, seed=8), added(part, seed=None)):
        # correlation of 40,000 independent pairs: standard error .005
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.025


def test_only_what_travels_gets_noise() -> None:
    support = np.arange(0, N, 4)
    update = Update(np.zeros(len(support), np.float32), LAYOUT, support=support)
    after = UpdateNoise(1.0, "value").apply(update, transform_context(BASE, layout=LAYOUT))
    assert after.values.shape == support.shape
    np.testing.assert_array_equal(after.support, support)


def test_a_norm_bound_does_not_survive() -> None:
    after = UpdateNoise(1.0, "value").apply(
        Update(BASE, LAYOUT, norm_bound=1.0), transform_context(BASE, layout=LAYOUT)
    )
    assert after.norm_bound is None
    assert UpdateNoise(0.1, "value").follow(Flow().bounded()).unbounded


def test_integers_are_refused() -> None:
    update = Update(np.zeros(N, np.int64), LAYOUT, grid=Grid(8, 1.0))
    with pytest.raises(SiloBenchError, match="put it before"):
        UpdateNoise(1.0, "value").apply(update, transform_context(BASE, layout=LAYOUT))


def test_it_promises_nothing_and_logs_nothing() -> None:
    defense = noise.build(noise.Config())
    assert fill(defense).promises == ()
    part = defense.transforms[0]
    context = transform_context(BASE, layout=LAYOUT)
    assert part.mechanism(Update(BASE, LAYOUT), context) is None
    assert "no promise" in (noise.__doc__ or "")


@pytest.mark.parametrize("wrong", [{"sd": 0}, {"sd": -1}, {"of": "norm"}, {"epsilon": 8}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        noise.Config(**wrong)
