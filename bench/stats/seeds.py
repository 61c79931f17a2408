"""Two defenses compared over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.stats.auc import Difference
from bench.stats.intervals import Floats, Interval, as_interval, mover, normal_quantile
from bench.stats.null import normal_tail

#: runs below which two defenses are not compared, only two models
SEEDS = 5


def across_seeds(
    first: Sequence[Interval | float | None], second: Sequence[Interval | float | None], confidence: float = 0.95
) -> Difference:
    """The mean difference ``first`` - ``second`` of a figure over seeds, paired: entry i of both has the same seed, and
    so the same planting.

    It speaks of defenses, where ``paired_auc`` speaks of two models on their records, so fewer than ``SEEDS`` = 5 seeds
    are refused (value None, the note says why), and so is a figure that was refused (None) in any run.

    Limits: the hull of Student's paired t interval over the seeds, which rests on differences that are alike and
    roughly normal, and, where every figure is an ``Interval`` with limits at ``confidence``, of those limits taken
    together (``mover``, as if the runs were independent). The second keeps seeds that agree, say at an AUC of 1, from
    feigning certainty: give intervals wherever there are some. Plain numbers that all differ alike get no limits. p:
    two-sided, the larger of t's and the normal one of the limits taken together; of plain numbers t's, and where they
    all differ alike the sign test's, 2^(1 - seeds).

    Raises ValueError for unequal lengths or figures that are not finite.
    """
    if len(first) != len(second):
        raise ValueError(f"the seeds differ: {len(first)} and {len(second)} runs")
    pairs = [(as_interval(a), as_interval(b)) for a, b in zip(first, second, strict=True)]
    missing = sum(a.value is None or b.value is None for a, b in pairs)
    if missing:
        return _refused(f"the figure was refused in {missing} of {len(pairs)} runs")
    if len(pairs) < SEEDS:
        return _refused(f"to speak of defenses takes at least {SEEDS} seeds, there are {len(pairs)}")
    array = np.array([a.value - b.value for a, b in pairs if a.value is not None and b.value is not None])
    if not np.isfinite(array).all():
        raise ValueError("figures over seeds must be finite")
    mean, half, p = float(array.mean()), *_between(array, confidence)
    within = mover([a for a, _ in pairs], [b for _, b in pairs])
    if within is None and np.ptp(array) < 1e-12:
        return Difference(Interval(mean, None, None, "all seeds differ alike: no spread to make limits of"), p)
    below, above = within or (0.0, 0.0)
    if within is not None:
        toward = below if mean > 0 else above
        z = normal_quantile(1 - (1 - confidence) / 2) * abs(mean) / toward if toward > 0 else math.inf
        own = 2 * normal_tail(z) if abs(mean) > 1e-12 else 1.0
        p = own if np.ptp(array) < 1e-12 else max(p, own)
    note = f"paired over {len(array)} seeds"
    return Difference(Interval(mean, mean - max(half, below), mean + max(half, above), note), p)


def _between(array: Floats, confidence: float) -> tuple[float, float]:
    """Half the width of the t interval of ``array`` (n,), and two-sided p; for equal values 0 and the sign test's."""
    from scipy.special import stdtr, stdtrit

    n, mean = len(array), float(array.mean())
    if np.ptp(array) < 1e-12:
        return 0.0, 1.0 if abs(mean) < 1e-12 else 2.0 ** (1 - n)
    sd = float(array.std(ddof=1)) / math.sqrt(n)
    return float(stdtrit(n - 1, 1 - (1 - confidence) / 2)) * sd, float(2 * stdtr(n - 1, -abs(mean) / sd))


def _refused(reason: str) -> Difference:
    return Difference(Interval(None, None, None, reason), None)
