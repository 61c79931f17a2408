"""Every statistic that SiloBench prints, each with its formula's source (docs/metrics.md). No torch; SciPy when called.

Conventions: ``scores`` (n,), higher = more likely a member; ``member`` (n,) bool; ``cluster``: n labels, records with
equal labels are resampled together (None: each record alone); ``folds`` (n,) 0 or 1, from ``split``.
"""

from bench.stats.auc import Difference, auc, midranks, paired_auc, placements
from bench.stats.crossfit import Folds, TooFewClusters, crossfit_auc, crossfit_paired, folded_auc, split
from bench.stats.curves import along_rounds, log_roc, roc
from bench.stats.epsilons import (
    clopper_pearson_epsilon,
    clopper_pearson_epsilon_limit,
    gaussian_epsilon,
    gdp_epsilon,
    gdp_mu,
    one_shot_epsilon,
)
from bench.stats.exposure import exposure, exposure_extrapolated, exposure_from_sample, exposure_rank
from bench.stats.intervals import (
    Interval,
    bootstrap,
    clopper_pearson,
    combine,
    kish,
    mean_interval,
    mover,
    unit_interval,
    unseen,
)
from bench.stats.null import normal_tail, null_margin, null_test
from bench.stats.onerun import (
    Bound,
    Family,
    one_run_epsilon,
    one_run_epsilon_chosen,
    one_run_epsilon_limit,
    one_run_guesses,
    one_run_p_value,
)
from bench.stats.onerun_fdp import approximate_tradeoff, gaussian_tradeoff, one_run_epsilon_fdp, one_run_refuted
from bench.stats.power import (
    auc_variance,
    clopper_pearson_power,
    gaussian_accuracy,
    least_auc,
    least_auc_difference,
    one_run_least_correct,
    one_run_power,
)
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
from bench.stats.seeds import across_seeds

__all__ = [
    "Bound",
    "Difference",
    "Family",
    "Folds",
    "Interval",
    "Rates",
    "TooFewClusters",
    "across_seeds",
    "advantage",
    "along_rounds",
    "approximate_tradeoff",
    "auc",
    "auc_variance",
    "best_threshold",
    "bootstrap",
    "clopper_pearson",
    "clopper_pearson_epsilon",
    "clopper_pearson_epsilon_limit",
    "clopper_pearson_power",
    "combine",
    "crossfit_advantage",
    "crossfit_auc",
    "crossfit_paired",
    "crossfit_tpr",
    "exposure",
    "exposure_extrapolated",
    "exposure_from_sample",
    "exposure_rank",
    "folded_auc",
    "gaussian_accuracy",
    "gaussian_epsilon",
    "gaussian_tradeoff",
    "gdp_epsilon",
    "gdp_mu",
    "kish",
    "least_auc",
    "least_auc_difference",
    "log_roc",
    "mean_interval",
    "midranks",
    "mover",
    "newcombe",
    "normal_tail",
    "null_margin",
    "null_test",
    "one_run_epsilon",
    "one_run_epsilon_chosen",
    "one_run_epsilon_fdp",
    "one_run_epsilon_limit",
    "one_run_guesses",
    "one_run_least_correct",
    "one_run_p_value",
    "one_run_power",
    "one_run_refuted",
    "one_shot_epsilon",
    "paired_auc",
    "placements",
    "refusal",
    "roc",
    "split",
    "threshold",
    "tpr_at_fpr",
    "unit_interval",
    "unseen",
]
