"""Coverage of the approximate 95% intervals: at least 92%, with a margin that fails once in 10^6."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from tests.stats import coverage

#: repetitions of a quick check; the slow ones are tabulated in docs/metrics.md
FEW, MANY = 400, 4000
LEAST = 0.92


def enough(found: float, repetitions: int) -> bool:
    """Whether ``found`` is no less than 10^-6 chance allows at a true coverage of ``LEAST``."""
    return round(found * repetitions) >= binom.ppf(1e-6, repetitions, LEAST)


@pytest.mark.parametrize("name", coverage.SAMPLERS)
def test_auc_near_one_and_at_small_counts(name: str) -> None:
    for auc, m, n in ((0.6, 10, 10), (0.97, 90, 90), (0.99, 10, 30)):
        auc = 0.5 + 0.04 * auc if name == "mostly tied" else auc
        assert enough(coverage.auc_coverage(coverage.SAMPLERS[name], auc, m, n, FEW), FEW)


def test_clusters_are_heeded_and_heedlessness_is_caught() -> None:
    assert enough(coverage.clustered_coverage(0.8, 30, 30, FEW), FEW)
    assert not enough(coverage.clustered_coverage(0.8, 30, 30, FEW, heed=False), FEW)


def test_paired() -> None:
    assert enough(coverage.paired_coverage(0.9, 0.7, 40, 40, FEW), FEW)


def test_crossfit_chance_and_opposites() -> None:
    for name in ("2 opposite scores, chance", "8 independent scores, chance"):
        aucs, alike, m, n, opposite = coverage.CROSSFIT[name]
        for value in coverage.crossfit_coverage(np.array(aucs), alike, m, n, FEW, opposite).values():
            assert enough(value, FEW)


def test_means() -> None:
    assert enough(coverage.mean_coverage(0.95, 4.0, 10, 10, FEW), FEW)


def test_over_seeds_near_one_and_at_small_counts() -> None:
    """With the runs' own intervals; without them agreeing runs feign certainty, which this catches."""
    for name, size in (("rare failures", 10), ("normal", 30)):
        sampler = coverage.SAMPLERS[name]
        both, one, without = coverage.seeds_coverage(sampler, 0.998, 0.99, size, 5, 150)
        assert enough(both, 150)
        assert enough(one, 150)
        assert not enough(without, 150) or name == "normal"


def test_bootstrap_of_metrics_over_labels() -> None:
    assert enough(coverage.bootstrap_coverage("macro F1", 50, 0.2, 0.9, 100)[0], 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", coverage.SAMPLERS)
def test_auc_everywhere(name: str) -> None:
    for auc in (0.51, 0.52, 0.55) if name == "mostly tied" else coverage.AUCS:
        for m, n in coverage.SIZES:
            assert enough(coverage.auc_coverage(coverage.SAMPLERS[name], auc, m, n, MANY), MANY), (auc, m, n)


@pytest.mark.slow
def test_crossfit_everywhere() -> None:
    for name, (aucs, alike, m, n, opposite) in coverage.CROSSFIT.items():
        found = coverage.crossfit_coverage(np.array(aucs), alike, m, n, MANY, opposite)
        assert all(enough(value, MANY) for value in found.values()), (name, found)


@pytest.mark.slow
def test_paired_and_clustered_everywhere() -> None:
    for m, n in coverage.SIZES:
        for a, b in coverage.PAIRED:
            assert enough(coverage.paired_coverage(a, b, m, n, MANY), MANY), (a, b, m, n)
        for auc in coverage.AUCS:
            assert enough(coverage.clustered_coverage(auc, m, n, MANY), MANY), (auc, m, n)


@pytest.mark.slow
@pytest.mark.parametrize("size", coverage.SEED_SIZES)
def test_over_seeds_everywhere(size: int) -> None:
    for name in ("normal", "rare failures"):
        for seeds in (2, 3, 5):
            for a, b in coverage.SEED_AUCS:
                both, one, _ = coverage.seeds_coverage(coverage.SAMPLERS[name], a, b, size, seeds, FEW)
                assert enough(one, FEW), (name, seeds, a)
                assert seeds < 5 or enough(both, FEW), (name, a, b)


@pytest.mark.slow
@pytest.mark.parametrize("metric", coverage.LABEL_METRICS)
def test_bootstrap_everywhere(metric: str) -> None:
    for size in (50, 90):
        for rare, right in coverage.LABELS:
            found, refused = coverage.bootstrap_coverage(metric, size, rare, right, FEW)
            # among those that were given limits
            given = round(FEW * (1 - refused))
            assert enough(found, given), (metric, size, rare, right)
