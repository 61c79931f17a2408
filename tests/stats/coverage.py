"""How often the 95% intervals hold the truth, by simulation: ``python -m tests.stats.coverage [repetitions]``.

Prints the table of docs/metrics.md. The tests run parts of it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from bench import stats
from bench.stats import rates
from bench.stats.intervals import Interval

Floats = NDArray[np.float64]
#: draws (members' scores (m,), non-members' scores (n,)) at a true AUC
Sampler = Callable[[np.random.Generator, float, int, int], tuple[Floats, Floats]]


def normals(sd: float) -> Sampler:
    """Non-members standard normal, members normal with deviation ``sd``."""

    def draw(rng: np.random.Generator, auc: float, m: int, n: int) -> tuple[Floats, Floats]:
        return rng.normal(math.hypot(1, sd) * norm.ppf(auc), sd, m), rng.normal(0, 1, n)

    return draw


def exponentials(rng: np.random.Generator, auc: float, m: int, n: int) -> tuple[Floats, Floats]:
    """Exponential scores: P(X > Y) = r / (1 + r) for means r and 1."""
    return rng.exponential(auc / (1 - auc), m), rng.exponential(1, n)


def rare_failures(rng: np.random.Generator, auc: float, m: int, n: int) -> tuple[Floats, Floats]:
    """0.9 (1 - AUC) of the members score below everything; the others make up for it."""
    failing = 0.9 * (1 - auc)
    x, y = normals(1.0)(rng, auc / (1 - failing), m, n)
    x[rng.random(m) < failing] = -99.0
    return x, y


def two_points(rng: np.random.Generator, auc: float, m: int, n: int) -> tuple[Floats, Floats]:
    """A member is above or below all non-members, which tie: the widest spread that an AUC permits."""
    return np.where(rng.random(m) < auc, 1.0, -1.0), np.zeros(n)


def mostly_tied(rng: np.random.Generator, auc: float, m: int, n: int) -> tuple[Floats, Floats]:
    """Everything ties but for a few members."""
    return (rng.random(m) < 2 * auc - 1).astype(float), np.zeros(n)


SAMPLERS: dict[str, Sampler] = {
    "normal": normals(1.0),
    "normal, members 3 times wider": normals(3.0),
    "exponential": exponentials,
    "rare failures": rare_failures,
    "two points": two_points,
    "mostly tied": mostly_tied,
}
SIZES = ((5, 5), (10, 10), (5, 40), (30, 30), (90, 90))
AUCS = (0.5, 0.7, 0.9, 0.97, 0.99, 0.998)


def holds(interval: Interval, truth: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


def auc_coverage(sampler: Sampler, auc: float, m: int, n: int, repetitions: int, seed: int = 0) -> float:
    """Coverage of ``stats.auc`` without clusters."""
    rng = np.random.default_rng([seed, m, n, round(auc * 1000)])
    member = np.arange(m + n) < m
    drawn = (np.concatenate(sampler(rng, auc, m, n)) for _ in range(repetitions))
    return float(np.mean([holds(stats.auc(scores, member), auc) for scores in drawn]))


def clustered(
    rng: np.random.Generator, means: Floats, m: int, n: int, size: int, within: float
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Normal scores (S, N) of N = (m + n) x size records in m + n clusters, of correlation ``within`` in a cluster and
    shifted by ``means`` (S,) for members; then member and cluster, each (N,)."""
    cluster = np.repeat(np.arange(m + n), size)
    member = cluster < m
    common = rng.normal(0, 1, (len(means), m + n))[:, cluster]
    own = rng.normal(0, 1, (len(means), len(cluster)))
    return math.sqrt(within) * common + math.sqrt(1 - within) * own + means[:, None] * member, member, cluster


def clustered_coverage(auc: float, m: int, n: int, repetitions: int, heed: bool = True, seed: int = 1) -> float:
    """Coverage of ``stats.auc`` for clusters of 3 that agree at 0.8; ``heed`` False: as if records were independent."""
    rng = np.random.default_rng([seed, m, n, round(auc * 1000)])
    shift = np.array([math.sqrt(2) * norm.ppf(auc)])
    found = 0
    for _ in range(repetitions):
        scores, member, cluster = clustered(rng, shift, m, n, 3, 0.8)
        found += holds(stats.auc(scores[0], member, cluster if heed else None), auc)
    return found / repetitions


def paired_coverage(auc_a: float, auc_b: float, m: int, n: int, repetitions: int, seed: int = 2) -> float:
    """Coverage of ``stats.paired_auc``: two scores of correlation 0.7."""
    rng = np.random.default_rng([seed, m, n])
    shifts = math.sqrt(2) * norm.ppf([auc_a, auc_b])
    member = np.arange(m + n) < m
    found = 0
    for _ in range(repetitions):
        common, own = rng.normal(0, 1, m + n), rng.normal(0, 1, (2, m + n))
        scores = math.sqrt(0.7) * common + math.sqrt(0.3) * own + shifts[:, None] * member
        found += holds(stats.paired_auc(scores[0], scores[1], member).interval, auc_a - auc_b)
    return found / repetitions


def crossfit_coverage(
    aucs: Floats, alike: float, m: int, n: int, repetitions: int, opposite: bool = False, seed: int = 3
) -> dict[str, float]:
    """Coverage of the cross-fitted AUC, TPR at 10% and advantage for len(aucs) scores, each of standard normal noise of
    correlation ``alike`` between scores, shifted for members. The truth is that of the rules that were chosen.

    ``opposite``: two scores, one minus the other, neither of which knows anything.
    """
    rng = np.random.default_rng([seed, m, n, len(aucs), round(alike * 100)])
    means = math.sqrt(2) * norm.ppf(aucs)
    member, cluster = np.arange(m + n) < m, np.arange(m + n)
    folds = stats.split(cluster, member)
    found = {"auc": 0, "tpr@10%": 0, "advantage": 0}
    for _ in range(repetitions):
        noise = math.sqrt(alike) * rng.normal(0, 1, m + n) + math.sqrt(1 - alike) * rng.normal(0, 1, (len(aucs), m + n))
        values = np.stack([noise[0], -noise[0]]) if opposite else noise + means[:, None] * member
        scores = {f"{i:03d}": row for i, row in enumerate(values)}
        choice = stats.crossfit_auc(scores, member, cluster, folds)
        found["auc"] += holds(choice.interval, float(np.mean([aucs[int(name)] for name in choice.chosen])))
        for name, rule in (("tpr@10%", _at_ten_percent), ("advantage", stats.best_threshold)):
            truth = _true_rates(values, member, folds, rule, means)
            if name == "advantage":
                result = stats.crossfit_advantage(scores, member, cluster, folds).advantage
                found[name] += holds(result, truth[0] - truth[1])
            else:
                found[name] += holds(stats.crossfit_tpr(scores, member, cluster, 0.1, folds).tpr, truth[0])
    return {name: count / repetitions for name, count in found.items()}


def _at_ten_percent(members: Floats, nonmembers: Floats) -> tuple[float, float]:
    cut = stats.threshold(nonmembers, 0.1)
    return float((members > cut).mean()), cut


def _true_rates(
    values: Floats,
    member: NDArray[np.bool_],
    folds: stats.Folds,
    rule: Callable[[Floats, Floats], tuple[float, float]],
    means: Floats,
) -> tuple[float, float]:
    """True TPR and FPR, averaged over the records that each fold's rule was reported on."""
    hits, alarms = np.zeros(len(member)), np.zeros(len(member))
    for f in (0, 1):
        row, cut = rates._choose(values[:, folds != f], member[folds != f], rule)
        hits[folds == f], alarms[folds == f] = norm.sf(cut - means[row]), norm.sf(cut)
    return float(hits[member].mean()), float(alarms[~member].mean())


def mean_coverage(truth: float, spread: float, groups: int, size: int, repetitions: int, seed: int = 4) -> float:
    """Coverage of ``stats.mean_interval`` for beta-distributed values, equal within a group up to beta noise."""
    rng = np.random.default_rng([seed, groups, size, round(truth * 1000)])
    owner = np.repeat(np.arange(groups), size)
    found = 0
    for _ in range(repetitions):
        centre = rng.beta(truth * spread, (1 - truth) * spread, groups)[owner].clip(1e-9, 1 - 1e-9)
        values = rng.beta(centre * 10, (1 - centre) * 10)
        found += holds(stats.mean_interval(values, owner), truth)
    return found / repetitions


def seeds_coverage(
    sampler: Sampler, auc_a: float, auc_b: float, size: int, seeds: int, repetitions: int, seed: int = 5
) -> tuple[float, float, float]:
    """Coverage of ``stats.across_seeds`` for two defenses, of ``stats.combine`` for the first with its runs' intervals,
    and of ``stats.combine`` without them. Every run has ``size`` members and non-members, and a true AUC of its own, of
    deviation 0.2 on the logit scale around a common one; the truth is the mean AUC over runs."""
    rng = np.random.default_rng([seed, size, seeds, round(auc_a * 1000), round(auc_b * 1000)])
    member = np.arange(2 * size) < size
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def run(auc: float) -> Interval:
        own = 1 / (1 + math.exp(-(math.log(auc / (1 - auc)) + 0.2 * rng.normal())))
        return stats.auc(np.concatenate(sampler(rng, own, size, size)), member)

    def mean(auc: float) -> float:
        own = 1 / (1 + np.exp(-(math.log(auc / (1 - auc)) + 0.2 * nodes)))
        return float(weights @ own / weights.sum())

    found = np.zeros(3)
    for _ in range(repetitions):
        first, second = ([run(auc) for _ in range(seeds)] for auc in (auc_a, auc_b))
        plain = [one.value for one in first if one.value is not None]
        both = stats.across_seeds(first, second).interval if seeds >= 5 else None
        found[0] += both is not None and holds(both, mean(auc_a) - mean(auc_b))
        found[1] += holds(stats.combine(first, minimum=0, maximum=1), mean(auc_a))
        found[2] += holds(stats.combine(plain, minimum=0, maximum=1), mean(auc_a))
    return tuple((found / repetitions).tolist())


def bootstrap_coverage(
    metric: str, size: int, rare: float, right: float, repetitions: int, seed: int = 6
) -> tuple[float, float]:
    """Coverage of ``stats.bootstrap`` for a metric over two labels, where limits are given, and how often they are not.

    ``rare``: the share of the first label; ``right``: the chance that a record is guessed right, whatever its label.
    """
    rng = np.random.default_rng([seed, size, round(rare * 100), round(right * 100)])
    score = LABEL_METRICS[metric]
    gold_share = np.array([rare * right, rare * (1 - right), (1 - rare) * (1 - right), (1 - rare) * right])
    truth, found, refused = score(*gold_share), 0, 0
    for _ in range(repetitions):
        cells = rng.choice(4, size, p=gold_share)
        interval = stats.bootstrap(
            lambda rows, cells=cells: score(*np.bincount(cells[rows], minlength=4)), np.arange(size), rng, samples=400
        )
        refused += interval.low is None
        found += interval.low is not None and holds(interval, truth)
    return found / max(1, repetitions - refused), refused / repetitions


def _f1(tp: float, fn: float, fp: float, tn: float) -> float:
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan


def _macro_f1(tp: float, fn: float, fp: float, tn: float) -> float:
    return (np.nan_to_num(_f1(tp, fn, fp, tn)) + np.nan_to_num(_f1(tn, fp, fn, tp))) / 2


def _matthews(tp: float, fn: float, fp: float, tn: float) -> float:
    scale = math.sqrt(float(tp + fp) * float(tp + fn) * float(tn + fp) * float(tn + fn))
    return float(tp * tn - fp * fn) / scale if scale else 0.0


#: of the shares (or counts) of true positives, false negatives, false positives, true negatives
LABEL_METRICS: dict[str, Callable[..., float]] = {"F1": _f1, "macro F1": _macro_f1, "Matthews": _matthews}
LABELS = ((0.5, 0.6), (0.5, 0.9), (0.5, 0.97), (0.2, 0.6), (0.2, 0.9), (0.2, 0.97))
SEED_SIZES = (10, 30, 90)
SEED_AUCS = ((0.5, 0.5), (0.9, 0.7), (0.99, 0.9), (0.998, 0.99), (0.998, 0.998))
CROSSFIT: dict[str, tuple[list[float], float, int, int, bool]] = {
    "2 opposite scores, chance": ([0.5, 0.5], 0.0, 90, 90, True),
    "8 independent scores, chance": ([0.5] * 8, 0.0, 90, 90, False),
    "8 independent scores, AUC 0.75": ([0.75] * 8, 0.0, 90, 90, False),
    "8 like scores (0.8), AUC 0.9": ([0.9] * 8, 0.8, 90, 90, False),
    "8 scores of AUC 0.5 to 0.97": (np.linspace(0.5, 0.97, 8).tolist(), 0.5, 90, 90, False),
    "8 independent scores, AUC 0.99": ([0.99] * 8, 0.0, 90, 90, False),
    "4 like scores (0.5), AUC 0.8, 15 and 55": ([0.8] * 4, 0.5, 15, 55, False),
}
PAIRED = ((0.9, 0.9), (0.9, 0.7), (0.99, 0.6), (0.6, 0.55))
MEANS = ((0.1, 2.0), (0.5, 4.0), (0.95, 4.0))


def main(repetitions: int) -> None:
    print("| AUC of scores | " + " | ".join(f"{m}, {n}" for m, n in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    for name, sampler in SAMPLERS.items():
        aucs = (0.51, 0.52, 0.55) if name == "mostly tied" else AUCS
        worst = [min(auc_coverage(sampler, auc, m, n, repetitions) for auc in aucs) for m, n in SIZES]
        print(f"| {name} | " + " | ".join(f"{w:.3f}" for w in worst) + " |", flush=True)
    worst = [min(clustered_coverage(auc, m, n, repetitions) for auc in AUCS) for m, n in SIZES]
    print("| normal, clusters of 3 | " + " | ".join(f"{w:.3f}" for w in worst) + " |", flush=True)
    worst = [min(paired_coverage(a, b, m, n, repetitions) for a, b in PAIRED) for m, n in SIZES]
    print("| paired difference | " + " | ".join(f"{w:.3f}" for w in worst) + " |", flush=True)
    print("\n| cross-fitted | AUC | TPR at 10% | advantage |\n|---|---|---|---|")
    for name, (aucs_, alike, m, n, opposite) in CROSSFIT.items():
        got = crossfit_coverage(np.array(aucs_), alike, m, n, repetitions, opposite)
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in got.values()) + " |", flush=True)
    print("\n| mean of values in [0, 1] | 3 groups of 10 | 10 of 10 | 30 of 1 |\n|---|---|---|---|")
    for truth, spread in MEANS:
        got_ = [mean_coverage(truth, spread, g, s, repetitions) for g, s in ((3, 10), (10, 10), (30, 1))]
        print(f"| {truth} | " + " | ".join(f"{value:.3f}" for value in got_) + " |", flush=True)
    print(
        "\n| over runs, records a class | " + " | ".join(map(str, SEED_SIZES)) + " |\n|---|" + "---|" * len(SEED_SIZES)
    )
    for name in ("normal", "rare failures"):
        for seeds in (2, 3, 5):
            got__ = [
                np.min(
                    [seeds_coverage(SAMPLERS[name], a, b, n, seeds, repetitions // 10) for a, b in SEED_AUCS], axis=0
                )
                for n in SEED_SIZES
            ]
            for kind, which in (("two defenses", 0), ("one, with the runs' intervals", 1), ("one, without", 2)):
                if seeds >= 5 or which:
                    row = " | ".join(f"{worst_[which]:.3f}" for worst_ in got__)
                    print(f"| {kind}, {name}, {seeds} runs | {row} |", flush=True)
    print("\n| bootstrap of a metric over labels | 50 | 90 |\n|---|---|---|")
    for metric in LABEL_METRICS:
        worst = [min(bootstrap_coverage(metric, n, *case, repetitions // 10)[0] for case in LABELS) for n in (50, 90)]
        print(f"| {metric} | " + " | ".join(f"{w:.3f}" for w in worst) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
