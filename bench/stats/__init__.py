"""Every statistic that SiloBench prints, each with its formula's source (docs/metrics.md). No torch; SciPy when called.

Conventions: ``scores`` (n,), higher = more likely a member; ``member`` (n,) bool; ``cluster``: n labels, records with
equal labels are resampled together (None: each record alone); ``folds`` (n,) 0 or 1, from ``split``.
"""

from bench.stats.auc import Difference, Placements, auc, difference, midranks, paired_auc, placements
from bench.stats.crossfit import Choice, Folds, TooFewClusters, crossfit_auc, crossfit_paired, folded_auc, split
from bench.stats.intervals import (
    Interval,
    bootstrap,
    clopper_pearson,
    combine,
    kish,
    mean_interval,
    spread_floor,
    unit_interval,
    unseen,
)
from bench.stats.null import NullTest, normal_tail, null_margin, null_test
from bench.stats.rates import (
    Rates,
    advantage,
    best_threshold,
    crossfit_advantage,
    crossfit_tpr,
    newcombe,
    refusal,
    threshold,
    tpr_at_fpr,
)

__all__ = [
    "Choice",
    "Difference",
    "Folds",
    "Interval",
    "NullTest",
    "Placements",
    "Rates",
    "TooFewClusters",
    "advantage",
    "auc",
    "best_threshold",
    "bootstrap",
    "clopper_pearson",
    "combine",
    "crossfit_advantage",
    "crossfit_auc",
    "crossfit_paired",
    "crossfit_tpr",
    "difference",
    "folded_auc",
    "kish",
    "mean_interval",
    "midranks",
    "newcombe",
    "normal_tail",
    "null_margin",
    "null_test",
    "paired_auc",
    "placements",
    "refusal",
    "split",
    "spread_floor",
    "threshold",
    "tpr_at_fpr",
    "unit_interval",
    "unseen",
]
