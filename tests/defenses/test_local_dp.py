"""Local noise: the right distribution, its own secret, and the same promise to everybody else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, kstest

from bench.conformance.fixtures import LAYOUT, transform_context
from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Grid, Update
from bench.defense.compose import Defense, fill
from bench.privacy import calibrate, epsilon
from bench.spec.run import Dropout
from bench.transcript.notes import logged_mechanisms
from defenses import local_dp
from defenses.transforms.budget import Budget
from defenses.transforms.local_noise import LocalGaussian
from defenses.transforms.prune import MagnitudePruning
from defenses.transforms.quantize import Quantise
from tests.defenses.silo_privacy import claimed, federate, named

ZEROS = np.zeros(LAYOUT.size, np.float32)


def bounded(bound: float | None = 2.5, values: np.ndarray = ZEROS) -> Update:
    return Update(values, LAYOUT, norm_bound=bound)


def transform(sigma: float = 2.0) -> LocalGaussian:
    return LocalGaussian(Budget("local-dp", sigma=sigma))


def test_every_value_gets_normal_noise_of_sigma_bounds() -> None:
    values = np.linspace(-0.01, 0.01, LAYOUT.size).astype(np.float32)
    after = transform().apply(bounded(2.5, values), transform_context(ZEROS, secret_seed=None))
    assert after.norm_bound is None
    noise = (after.values.astype(np.float64) - values) / 5.0
    assert kstest(noise, "norm").pvalue > 1e-6
    assert abs(noise.std() - 1) < 4.9 / math.sqrt(2 * LAYOUT.size)
    assert kstest(noise * 5.0 / 2.0, "norm").pvalue < 1e-6  # noise of a fixed size, whatever the bound


def test_noise_differs_by_silo_round_and_run() -> None:
    draws = [
        transform().apply(bounded(), transform_context(ZEROS, round, secret_seed=seed)).values
        for round, seed in ((0, 1), (1, 1), (0, 2), (0, None), (0, None))
    ]
    for i, one in enumerate(draws):
        assert all((one != other).mean() > 0.99 for other in draws[:i])


def test_what_is_logged_is_the_noise_over_the_bound() -> None:
    context = transform_context(ZEROS)
    assert dict(transform(3.0).mechanism(bounded(), context).params) == {"sigma": 3.0}
    calibrated = LocalGaussian(Budget("local-dp", 8.0, None))
    logged = dict(calibrated.mechanism(bounded(), context).params)
    assert logged == {"sigma": calibrate(8.0, 0.03, 1.0, 4), "delta": 0.03}


def test_without_a_bound_that_holds_there_is_no_noise() -> None:
    context = transform_context(ZEROS)
    with pytest.raises(SiloBenchError, match="put a clip before it"):
        transform().apply(bounded(None), context)
    with pytest.raises(SiloBenchError, match="states the bound"):
        transform().apply(bounded(0.1, np.ones(LAYOUT.size, np.float32)), context)
    grid = Update(np.zeros(LAYOUT.size, np.int64), LAYOUT, grid=Grid(8, 1.0), norm_bound=1.0)
    with pytest.raises(SiloBenchError, match="real values"):
        transform().apply(grid, context)


def test_everybody_but_the_silo_is_promised_the_same(tmp_path) -> None:
    defense = named("local-dp", local_dp={"sigma": 4.0})
    setup, transcript = federate(tmp_path, defense, release="every-round")
    expected = epsilon(((1.0, 4.0, 2),), 0.02)
    for adversary in ("user", "outsider", "silo", "server", "server+silo", "all-but-one"):
        found = claimed(tmp_path, setup, transcript, adversary)
        assert (found.epsilon, found.unit, found.adjacency) == (expected, "silo", "zero-out")
    (promise,) = setup.parts.promises
    assert not promise.against(frozenset({"silo-0", "server"}), "silo-0")


def test_a_round_that_it_trained_in_counts_even_if_it_dropped_out_after(tmp_path) -> None:
    away = (Dropout(round=0, silo=1, stage="train"), Dropout(round=0, silo=2, stage="upload"))
    setup, transcript = federate(tmp_path, named("local-dp", local_dp={"sigma": 4.0}), dropouts=away)
    assert [len(logged_mechanisms(transcript)[f"silo-{i}"]) for i in range(4)] == [2, 1, 2, 2]
    assert claimed(tmp_path, setup, transcript, "server").epsilon == epsilon(((1.0, 4.0, 2),), 0.02)


def test_what_follows_is_post_processing() -> None:
    """Weights, pruning and quantisation after the noise are free; before the clip too; between clip and noise not."""
    built = local_dp.build(local_dp.Config(sigma=1.0))
    clip, noise = built.transforms
    prune, quantise = MagnitudePruning(of="weights"), Quantise(bits=8, clip=1.0)
    for order in ((clip, noise, prune), (prune, clip, noise), (clip, noise, quantise)):
        fill(replace(built, transforms=order))
    for names in ("local-dp+ckks", "local-dp+secagg", "local-dp+fedshield"):
        fill(named(names))
    with pytest.raises(UsageError, match="MagnitudePruning, which comes between, may raise the norm"):
        fill(replace(built, transforms=(clip, prune, noise)))
    with pytest.raises(UsageError, match="nothing before it clips"):
        fill(Defense(transforms=(noise,)))


@pytest.mark.parametrize(("factor", "caught"), [(1.0, False), (0.25, True)])
def test_telling_whether_a_silo_took_part_is_as_hard_as_claimed(factor: float, caught: bool) -> None:
    """An audit. The adversary projects what it reads on the direction in which the longest update would lie, and says
    "took part" above a threshold; 4,000 draws each (50 disjoint blocks of 100 values from each of 80 updates). That
    TPR > e^epsilon FPR + delta may be found once in 10^6 at most; a broken copy with a quarter of the noise is."""
    sigma, delta, blocks, width = 1.5, 1e-3, 50, 100
    stated, noise = epsilon(((1.0, sigma, 1),), delta), transform(sigma * factor)

    def scores(length: float, seed: int) -> np.ndarray:
        """Projections of an update of norm ``length`` (which lies wholly in the block that is looked at)."""
        direction = np.full(width, 1 / math.sqrt(width))
        found = []
        for number in range(80):
            context = transform_context(ZEROS, number, 80, secret_seed=seed)
            drawn = noise.apply(bounded(1.0), context).values[: blocks * width].astype(np.float64)
            found.append((drawn.reshape(blocks, width) + length * direction) @ direction)
        return np.concatenate(found)

    present, absent = scores(1.0, 1), scores(0.0, 2)
    rates = np.linspace(0, 1, 2001)
    refuted = False
    for threshold in (0.5, 1.0, 1.5, 2.0):
        tpr, fpr = int((present > threshold).sum()), int((absent > threshold).sum())
        # the smallest TPR and the largest FPR that these counts leave, at 10^-7 each: 8 statements
        low = rates[binom.sf(tpr - 1, len(present), rates) > 1e-7].min()
        high = rates[binom.cdf(fpr, len(absent), rates) > 1e-7].max()
        refuted |= bool(low - delta > math.exp(stated) * high)
    assert refuted == caught
