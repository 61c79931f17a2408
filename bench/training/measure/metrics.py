"""Utility on held-out records, from the statistics of one forward pass.

What a record says (its text) and what its template adds (the answer that names its label) are measured apart: most of a
template is learnt in a few steps, and would pass for usefulness. Perplexities, the text gain and accuracy are functions
of this module and need no network; any other metric is named ``evaluate:NAME`` and is loaded by ``evaluate`` when it is
asked for, so that importing this module is cheap.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError, unknown_name
from bench.core.tokens import Tokens, TokenStats
from bench.spec.result import GAIN

#: resamples behind the interval of a foreign metric
RESAMPLES = 500
#: the largest perplexity that is reported: what a diverged model has, too
LARGEST = sys.float_info.max
#: how a metric of another library is named
FOREIGN = re.compile(r"evaluate:(\w[\w.-]*(?:/\w[\w.-]*)?)", re.ASCII)


@dataclass(frozen=True)
class MetricValue:
    """One figure. ``low``, ``high``: interval over records of this model, None where ``n`` is too small for one.
    ``n``: records behind it."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    better: Literal["lower", "higher"]


@dataclass(frozen=True)
class _Sample:
    """What a metric is computed from. By part of a record (``text``, ``answer``, ``whole``), (n,): ``nll``, summed
    negative log-probability, and ``counts``, predicted tokens. (n,): ``clusters``. (m,), the records that have a label:
    ``guess`` and ``gold``, label indices; ``labelled``, clusters.
    """

    nll: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, NDArray[np.int64]]
    clusters: NDArray[np.int64]
    guess: NDArray[np.int64]
    gold: NDArray[np.int64]
    labelled: NDArray[np.int64]
    rng: np.random.Generator
    confidence: float


def compute(
    names: Sequence[str],
    stats: TokenStats,
    tokens: Tokens,
    gold: NDArray[np.int64],
    clusters: NDArray[np.int64],
    rng: np.random.Generator,
    confidence: float = 0.95,
) -> list[MetricValue]:
    """The named metrics of one model on ``n`` records, in the order of ``names``.

    ``stats``, ``tokens``: of the same n records. ``gold``: (n,) index of each record's label, -1 without one.
    ``clusters``: (n,) the unit of resampling. ``rng``: for bootstrap intervals only. Raises UsageError for an unknown
    name, a label metric without labels, and an ``evaluate:`` metric that can't be loaded (offline) or computed.
    """
    if not len(tokens) == len(stats.logp) == len(gold) == len(clusters):
        raise ValueError("stats, tokens, gold and clusters must be of the same records")
    sample = _sample(stats, tokens, gold, clusters, rng, confidence)
    return [_metric(name)(sample) for name in names]


def text_gain(
    stats: TokenStats, base: TokenStats, tokens: Tokens, clusters: NDArray[np.int64], confidence: float = 0.95
) -> MetricValue:
    """By how many nats per token of the text a model's loss lies below the ``base`` model's, on the same records: the
    logarithm of the ratio of their text perplexities. The interval is paired, of a ratio of sums over records as
    ``_ratio`` gives it."""
    mask = tokens.of_text()
    saved = np.where(mask, stats.logp.astype(np.float64) - base.logp, 0.0).sum(1)
    value, low, high = _ratio(saved, mask.sum(1), np.asarray(clusters), confidence)
    value = value if math.isfinite(value) else -LARGEST  # a model that has diverged
    return MetricValue(GAIN, value, low, high, len(tokens), "higher")


def mean_of(models: Sequence[Sequence[MetricValue]]) -> list[MetricValue]:
    """The mean over several models measured on the same records, metric by metric. The ends of the interval are the
    means of theirs: no narrower than an interval of the mean, since the mean of estimates varies no more than they do
    on average."""
    found = []
    for column in zip(*models, strict=True):
        ends = [(m.low, m.high) for m in column if m.low is not None and m.high is not None]
        low, high = (
            (float(np.mean(side)) for side in zip(*ends, strict=True)) if len(ends) == len(column) else (None, None)
        )
        found.append(replace(column[0], value=sum(m.value / len(column) for m in column), low=low, high=high))
    return found


def known(name: str) -> bool:
    """True where ``compute`` has such a metric (an ``evaluate:`` one: where the name is well formed)."""
    return name in OURS or FOREIGN.fullmatch(name) is not None


def _sample(
    stats: TokenStats,
    tokens: Tokens,
    gold: NDArray[np.int64],
    clusters: NDArray[np.int64],
    rng: np.random.Generator,
    confidence: float,
) -> _Sample:
    text = tokens.of_text()
    masks = {"text": text, "answer": tokens.predicted & ~text, "whole": tokens.predicted}
    scores = stats.choices if stats.choices is not None and stats.choices.shape[1] else None
    rows = np.flatnonzero(np.asarray(gold) >= 0) if scores is not None else np.zeros(0, dtype=np.int64)
    choices = np.zeros((0, 1)) if scores is None else np.asarray(scores, dtype=np.float64)[rows]
    # a model that has diverged guesses nothing: -1 is no label
    guess = np.where(np.isfinite(choices).all(1), np.argmax(np.nan_to_num(choices), 1), -1)
    return _Sample(
        nll={part: -np.where(mask, stats.logp, 0.0).sum(1, dtype=np.float64) for part, mask in masks.items()},
        counts={part: mask.sum(1, dtype=np.int64) for part, mask in masks.items()},
        clusters=np.asarray(clusters, dtype=np.int64),
        guess=guess.astype(np.int64),
        gold=np.asarray(gold, dtype=np.int64)[rows],
        labelled=np.asarray(clusters, dtype=np.int64)[rows],
        rng=rng,
        confidence=confidence,
    )


def _metric(name: str) -> Callable[[_Sample], MetricValue]:
    if name in OURS:
        return OURS[name]
    if match := FOREIGN.fullmatch(name):
        return lambda sample: _foreign(name, match.group(1), sample)
    raise unknown_name("metric", name, [*OURS, "evaluate:NAME"])


def _perplexity(name: str, part: str) -> Callable[[_Sample], MetricValue]:
    """exp(mean negative log-likelihood per token of that part); its interval is that of the logarithm (``_ratio``)."""

    def compute(sample: _Sample) -> MetricValue:
        if not sample.counts[part].any():
            raise UsageError(f"The metric '{name}' needs records with {_PARTS[part]}, and the held-out ones have none.")
        mean, low, high = _ratio(sample.nll[part], sample.counts[part], sample.clusters, sample.confidence)
        value = bounded_exp(mean)
        if low is None or high is None or value >= LARGEST:
            return MetricValue(name, value, None, None, len(sample.clusters), "lower")
        return MetricValue(name, value, bounded_exp(low), bounded_exp(high), len(sample.clusters), "lower")

    return compute


_PARTS = {"text": "a text", "answer": "an answer", "whole": "tokens to predict"}


def _ratio(
    sums: NDArray[np.float64], counts: NDArray[np.int64], clusters: NDArray[np.int64], confidence: float
) -> tuple[float, float | None, float | None]:
    """R = sum Y / sum N over records, and its interval: normal with the linearised cluster variance
    c/(c-1) sum (Y_c - R N_c)^2 / (sum N)^2 (Cochran 1977, section 6.4), at Student's t quantile with c-1 degrees of
    freedom; None for a single cluster, and for sums that are not finite."""
    mean = float(np.sum(sums)) / max(int(np.sum(counts)), 1)
    by_cluster, totals = _per_cluster(sums, clusters), _per_cluster(counts, clusters)
    if len(by_cluster) < 2 or not math.isfinite(mean) or not totals.sum():
        return mean, None, None
    from scipy.stats import t

    c = len(by_cluster)
    variance = c / (c - 1) * np.sum((by_cluster - mean * totals) ** 2) / totals.sum() ** 2
    half = float(t.ppf((1 + confidence) / 2, c - 1) * np.sqrt(variance))
    return mean, mean - half, mean + half


def _accuracy(sample: _Sample) -> MetricValue:
    """Share of records whose label has the highest log-probability; the interval is Clopper and Pearson's (exact)."""
    from bench.stats import clopper_pearson

    _require_labels("accuracy", sample)
    right, n = sample.guess == sample.gold, len(sample.gold)
    interval = clopper_pearson(int(right.sum()), n, sample.confidence)
    return MetricValue("accuracy", float(right.mean()), interval.low, interval.high, n, "higher")


#: metrics of this module, by name
OURS: dict[str, Callable[[_Sample], MetricValue]] = {
    **{name: _perplexity(name, part) for name, part in (("text-perplexity", "text"), ("answer-perplexity", "answer"))},
    "perplexity": _perplexity("perplexity", "whole"),  # of both together
    "accuracy": _accuracy,
}


def _foreign(name: str, hub_name: str, sample: _Sample) -> MetricValue:
    """A metric of ``evaluate`` over guessed and true label indices; the interval is ``bench.stats.bootstrap``'s over
    clusters, none where it refuses. Metrics over labels are taken to be better where higher; where one asks for
    ``average``, it is ``macro``. A resample on which the metric can't be computed is undefined; all the records must
    give a number."""
    from bench.stats import bootstrap

    _require_labels(name, sample)
    metric = _load(name, hub_name)
    options = {"average": "macro"} if "average" in inspect.signature(metric._compute).parameters else {}
    value = _score(name, metric, sample.guess, sample.gold, options)

    def again(rows: NDArray[np.int64]) -> float:
        try:
            return _score(name, metric, sample.guess[rows], sample.gold[rows], options)
        except UsageError:
            return math.nan

    found = bootstrap(again, sample.labelled, sample.rng, samples=RESAMPLES, confidence=sample.confidence)
    return MetricValue(name, value, found.low, found.high, len(sample.gold), "higher")


def _load(name: str, hub_name: str) -> Any:
    import evaluate

    try:
        return evaluate.load(hub_name, keep_in_memory=True, seed=0)
    except Exception as error:  # the hub's client and the metric's own code raise what they like
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"The metric '{name}' can't be loaded ({first}); it comes from the Hugging Face hub: check its name and "
            "the network, or name another metric."
        ) from None


def _score(name: str, metric: Any, guess: NDArray[np.int64], gold: NDArray[np.int64], options: dict[str, str]) -> float:
    try:
        found = metric.compute(predictions=guess.tolist(), references=gold.tolist(), **options)
    except Exception as error:  # the metric's own code raises what it likes
        raise UsageError(f"The metric '{name}' can't be computed from predicted and true labels ({error}).") from None
    short = name.rpartition(":")[2].rpartition("/")[2]
    value = found.get(short, next(iter(found.values()), None)) if isinstance(found, dict) else found
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise UsageError(f"The metric '{name}' gives {value!r}, which is no finite number, and can't be used here.")
    return float(value)


def _require_labels(name: str, sample: _Sample) -> None:
    if not len(sample.gold):
        raise UsageError(f"The metric '{name}' needs records with labels, and the held-out ones have none.")


def _per_cluster(values: NDArray[Any], clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    _, index = np.unique(clusters, return_inverse=True)
    return np.bincount(index, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)


def bounded_exp(value: float) -> float:
    """exp(value), at most the largest finite float; that too where ``value`` is not a number (a diverged model)."""
    return float(np.exp(value)) if value < np.log(LARGEST) else LARGEST
