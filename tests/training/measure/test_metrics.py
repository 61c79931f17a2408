"""Utility: values by hand, intervals by independent formulas, and what is refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.tokens import Tokens, TokenStats
from bench.spec.result import Utility
from bench.stats import bootstrap
from bench.training.measure import metrics
from bench.training.measure.metrics import LARGEST, MetricValue, bounded_exp, compute, known
from bench.training.measure.utility import learned

Floats = NDArray[np.float64]


def measure(
    names: Sequence[str],
    logp: Sequence[Sequence[float]],
    choices: Sequence[Sequence[float]] | None = None,
    gold: Sequence[int] | None = None,
    clusters: Sequence[int] | None = None,
    seed: int = 0,
    ends: Sequence[int] | None = None,
) -> list[MetricValue]:
    """Record i has the log-probabilities ``logp[i]`` at positions 1, 2, ...; its answer begins at ``ends[i]``."""
    n, width = len(logp), max(map(len, logp)) + 1
    values, predicted = np.full((n, width), 7.0, np.float32), np.zeros((n, width), bool)  # 7: must never be read
    for i, row in enumerate(logp):
        values[i, 1 : len(row) + 1] = row
        predicted[i, 1 : len(row) + 1] = True
    lengths = predicted.sum(1).astype(np.int32) + 1
    tokens = Tokens(np.zeros((n, width), np.int32), lengths, predicted, np.full(n, -1, np.int32), ends=_array(ends))
    stats = TokenStats(values, predicted, choices=None if choices is None else np.array(choices, np.float32))
    labels = np.array(gold if gold is not None else [-1] * n, np.int64)
    groups = np.array(clusters if clusters is not None else range(n), np.int64)
    return compute(names, stats, tokens, labels, groups, np.random.default_rng(seed))


def _array(ends: Sequence[int] | None) -> NDArray[np.int32] | None:
    return None if ends is None else np.array(ends, np.int32)


def test_text_and_answer_are_measured_apart() -> None:
    """A template that is all but learnt hides what the text costs: 5 nats a token of the text, .1 of the answer."""
    rows, ends = [[-4.0, -6.0, -0.1, -0.1], [-5.0, -0.1]], [3, 2]
    text, answer, both = measure(["text-perplexity", "answer-perplexity", "perplexity"], rows, ends=ends)
    assert text.value == pytest.approx(math.exp(15 / 3))
    assert answer.value == pytest.approx(math.exp(0.3 / 3), rel=1e-6)
    assert both.value == pytest.approx(math.exp(15.3 / 6), rel=1e-6)
    with pytest.raises(UsageError, match="'answer-perplexity' needs records with an answer"):
        measure(["answer-perplexity"], rows)


def gain(after: Floats, before: Floats, ends: Sequence[int], clusters: Sequence[int] | None = None) -> MetricValue:
    n, width = after.shape
    predicted = np.broadcast_to(np.arange(width) > 0, after.shape).copy()
    lengths, none = np.full(n, width, np.int32), np.full(n, -1, np.int32)
    tokens = Tokens(np.zeros((n, width), np.int32), lengths, predicted, none, ends=np.array(ends, np.int32))
    stats = [TokenStats(values.astype(np.float32), predicted) for values in (after, before)]
    return metrics.text_gain(*stats, tokens, np.array(range(n) if clusters is None else clusters))


def test_the_gain_is_of_the_text_alone_and_paired() -> None:
    """By hand: nats saved 1 + 0 + 3 over 2 + 1 + 2 tokens of text, whatever the answers gain."""
    before = np.array([[0, -3, -3, -9], [0, -2, -9, -9], [0, -4, -4, -9]], float)
    after = np.array([[0, -2, -3, 0], [0, -2, 0, 0], [0, -2, -3, 0]], float)
    found = gain(after, before, [3, 2, 3])
    assert (found.name, found.value, found.n, found.better) == ("text-gain", pytest.approx(4 / 5), 3, "higher")
    y, m = np.array([1.0, 0.0, 3.0]), np.array([2.0, 1.0, 2.0])
    error = np.sqrt(3 / 2 * ((y - 0.8 * m) ** 2).sum()) / 5
    assert found.low == pytest.approx(0.8 - 4.302653 * error, rel=1e-5)  # t of 2 degrees of freedom, from a table
    assert found.high == pytest.approx(0.8 + 4.302653 * error, rel=1e-5)


def test_a_gain_on_the_template_alone_is_no_learning() -> None:
    """The answers gain 9 nats each and the text nothing but noise about zero: the former rule said that it learned."""
    rng = np.random.default_rng(0)
    before = -rng.exponential(4, (60, 9))
    after = before + np.where(np.arange(9) < 6, rng.normal(0, 0.5, before.shape), 9.0)
    found = gain(after, before, [6] * 60)
    assert found.low is not None
    assert found.low < 0 < float(np.sum(after - before))
    assert not learned((as_utility(found),))
    assert learned((as_utility(gain(after + 1, before, [6] * 60)),))


def as_utility(found: MetricValue) -> Utility:
    return Utility(**vars(found), base=0.0)


def test_what_has_no_gain_with_an_interval_has_not_learned() -> None:
    assert not learned(())
    assert not learned((Utility(name="text-perplexity", value=2.0, base=9.0),))
    assert not learned((as_utility(gain(np.zeros((1, 3)), np.full((1, 3), -4.0), [3])),))  # one cluster: no interval


def test_a_model_that_diverged_gains_the_least_that_can_be_said() -> None:
    found = gain(np.full((3, 3), -np.inf), np.full((3, 3), -4.0), [3] * 3)
    assert (found.value, found.low, found.high) == (-LARGEST, None, None)
    (mean,) = metrics.mean_of([[found], [found]])
    assert math.isfinite(mean.value)


def test_perplexity_is_over_tokens_not_records() -> None:
    """Log-probabilities -1, -2, -3 | -6: exp(12 / 4), not exp((2 + 6) / 2)."""
    (found,) = measure(["perplexity"], [[-1, -2, -3], [-6]])
    assert found.value == pytest.approx(math.exp(3))
    assert (found.name, found.n, found.better) == ("perplexity", 2, "lower")


def test_the_interval_of_perplexity_is_the_ratio_estimator_s() -> None:
    """Against the textbook formula, with the t quantile of 3 degrees of freedom from a table (3.182446)."""
    rows = [[-1.0, -2.0], [-0.5], [-3.0, -1.0, -2.0], [-2.5, -0.25]]
    (found,) = measure(["perplexity"], rows)
    y, m = np.array([3.0, 0.5, 6.0, 2.75]), np.array([2.0, 1.0, 3.0, 2.0])
    ratio = y.sum() / m.sum()
    error = np.sqrt(4 / 3 * ((y - ratio * m) ** 2).sum()) / m.sum()
    assert found.value == pytest.approx(np.exp(ratio), rel=1e-6)
    assert found.low == pytest.approx(np.exp(ratio - 3.182446 * error), rel=1e-5)
    assert found.high == pytest.approx(np.exp(ratio + 3.182446 * error), rel=1e-5)


def test_copies_in_one_cluster_are_no_evidence() -> None:
    rows = [[-1.0, -2.0], [-0.5, -1.0], [-3.0, -1.0]]
    once = measure(["perplexity"], rows)[0]
    copied = measure(["perplexity"], rows * 5, clusters=[0, 1, 2] * 5)[0]
    assert (copied.value, copied.low, copied.high) == pytest.approx((once.value, once.low, once.high))
    assert copied.n == 15


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """200 draws of 40 records whose mean loss depends on their length; 5 standard errors about 95%."""
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(200):
        lengths = rng.integers(1, 6, 40)
        rows = [list(-rng.exponential(1 + length / 2, length)) for length in lengths]
        (found,) = measure(["perplexity"], rows)
        truth = math.exp(np.mean([m * (1 + m / 2) for m in range(1, 6)]) / 3)
        hits.append(found.low is not None and found.high is not None and found.low <= truth <= found.high)
    assert abs(np.mean(hits) - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 200)


def test_one_record_has_no_interval() -> None:
    (found,) = measure(["perplexity"], [[-1.0, -2.0]])
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("loss", [-1e30, -math.inf, math.nan])
def test_a_diverged_model_has_the_largest_perplexity(loss: float) -> None:
    (found,) = measure(["perplexity"], [[loss, -1.0], [-1.0]])
    assert found.value == LARGEST == sys.float_info.max
    assert (found.low, found.high) == (None, None)
    assert bounded_exp(709.0) == pytest.approx(math.exp(709))


CHOICES = [[-1, -2, -3], [-5, -1, -2], [-3, -2, -1], [-1, -9, -9], [-2, -1, -3]]
GOLD = [0, 1, 0, -1, 1]


def test_accuracy_counts_the_labelled_and_has_the_exact_interval() -> None:
    """3 of 4; the limits are those that the beta distribution's quantiles give, from a table: .1941 and .9937."""
    (found,) = measure(["accuracy"], [[-1.0]] * 5, CHOICES, GOLD)
    assert (found.value, found.n, found.better) == (0.75, 4, "higher")
    assert found.low == pytest.approx(0.1941, abs=5e-5)
    assert found.high == pytest.approx(0.9937, abs=5e-5)


def test_a_model_that_gives_no_number_guesses_nothing() -> None:
    broken: list[list[float]] = [[math.nan, -1, -2], [-math.inf, -1, -2], [-1, -2, -3]]
    (found,) = measure(["accuracy"], [[-1.0]] * 3, broken, [0, 1, 0])
    assert found.value == pytest.approx(1 / 3)


def test_metrics_come_in_the_order_of_their_names() -> None:
    found = measure(["accuracy", "perplexity"], [[-1.0]] * 5, CHOICES, GOLD)
    assert [one.name for one in found] == ["accuracy", "perplexity"]


def test_what_can_not_be_measured_is_said() -> None:
    with pytest.raises(UsageError, match=r"no metric 'perplexty'\. Did you mean 'perplexity'"):
        measure(["perplexty"], [[-1.0]])
    for choices, gold in ((None, [0]), ([[-1.0, -2.0]], [-1]), ([[]], [0])):
        with pytest.raises(UsageError, match="needs records with labels"):
            measure(["accuracy"], [[-1.0]], choices, gold)
    with pytest.raises(ValueError, match="the same records"):
        measure(["perplexity"], [[-1.0]] * 2, gold=[0])
    assert known("perplexity")
    assert known("evaluate:org/name")
    assert not known("evaluate:../script.py")
    assert not known("evaluate:")


def foreign(result: Any) -> type[Any]:
    """A class as the hub's are: an ``evaluate.Metric`` that asks for ``average``."""
    import evaluate
    from datasets import Features, Value

    class Foreign(evaluate.Metric):  # type: ignore[misc]
        def _info(self) -> Any:
            features = Features({"predictions": Value("int64"), "references": Value("int64")})
            return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

        def _compute(self, predictions: list[int], references: list[int], average: str = "binary") -> Any:
            return result(predictions, references, average)

    return Foreign


#: resamples: each is a computation by the library, of milliseconds
FEW = 100


def hub_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, result: Any) -> list[str]:
    import evaluate

    asked: list[str] = []

    def load(name: str, **options: Any) -> Any:
        asked.append(name)
        return foreign(result)(cache_dir=str(tmp_path), **options)

    monkeypatch.setattr(evaluate, "load", load)
    monkeypatch.setattr(metrics, "RESAMPLES", FEW)
    return asked


def test_any_metric_of_evaluate_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """f1 over three labels is asked for with average=macro; its interval is drawn from the generator."""

    def f1(predictions: list[int], references: list[int], average: str) -> dict[str, float]:
        assert average == "macro"
        guess, gold = np.array(predictions), np.array(references)
        pairs = [((guess == label), (gold == label)) for label in np.union1d(guess, gold)]
        return {"f1": float(np.mean([2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in pairs]))}

    asked = hub_has(monkeypatch, tmp_path, f1)
    (found,) = measure(["evaluate:f1"], [[-1.0]] * 5, CHOICES, GOLD)
    # by hand: label 0 has recall 1/2 and precision 1; label 1 both 1; label 2 is guessed once and never true
    assert found.value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert (found.name, found.n, asked) == ("evaluate:f1", 4, ["f1"])
    assert (found.low, found.high) == (None, None)  # four records are no sample to resample
    many = ["evaluate:f1"], [[-1.0]] * 65, CHOICES * 13, GOLD * 13
    (found,) = measure(*many)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert measure(*many) == [found]


def test_a_bootstrap_interval_is_that_of_the_statistics_over_clusters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """60 clusters of two records each, wholly right or wholly wrong; a resample without any right one is undefined."""

    def share(predictions: list[int], references: list[int], average: str) -> dict[str, float]:
        return {"share": float(np.mean(np.array(predictions) == np.array(references)))}

    hub_has(monkeypatch, tmp_path, share)
    gold, clusters = [0] * 80 + [1] * 40, [k // 2 for k in range(120)]
    (found,) = measure(["evaluate:org/share"], [[-1.0]] * 120, [[0.0, -1.0]] * 120, gold, clusters)
    assert found.value == pytest.approx(2 / 3)
    right = np.array(gold) == 0
    rng = np.random.default_rng(0)
    expected = bootstrap(lambda rows: float(right[rows].mean()), clusters, rng, samples=FEW)
    assert (found.low, found.high) == (expected.low, expected.high)
    # sqrt(2/9 / 60) = .061 for clusters, not .043 for records
    assert found.high - found.low > 3.3 * 0.061  # type: ignore[operator]


def test_resamples_that_a_metric_can_not_be_computed_on_are_undefined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """More than 1% of them: no interval. The value itself stands."""
    calls = iter(range(10_000))

    def share(predictions: list[int], references: list[int], average: str) -> dict[str, float]:
        if next(calls) % 20 == 5:
            raise ValueError("one class only")
        return {"share": float(np.mean(np.array(predictions) == np.array(references)))}

    hub_has(monkeypatch, tmp_path, share)
    (found,) = measure(["evaluate:org/share"], [[-1.0]] * 60, [[0.0, -1.0]] * 60, [0] * 40 + [1] * 20, range(60))
    assert (found.value, found.low, found.high) == (pytest.approx(2 / 3), None, None)


@pytest.mark.parametrize("result", [None, {"f1": [1.0, 2.0]}, {"f1": math.nan}, {}, {"f1": True}])
def test_a_foreign_metric_without_a_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, result: Any
) -> None:
    hub_has(monkeypatch, tmp_path, lambda *_: result)
    with pytest.raises(UsageError, match="no finite number"):
        measure(["evaluate:f1"], [[-1.0]] * 5, CHOICES, GOLD)


def test_a_foreign_metric_that_breaks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def breaks(*_: Any) -> Any:
        raise ValueError("texts are expected")

    hub_has(monkeypatch, tmp_path, breaks)
    with pytest.raises(UsageError, match=r"'evaluate:bleu' can't be computed .*texts are expected"):
        measure(["evaluate:bleu"], [[-1.0]] * 5, CHOICES, GOLD)


def test_offline_the_sentence_names_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate

    def load(name: str, **_: Any) -> Any:
        raise ConnectionError(f"Couldn't reach the hub for {name}\nand more lines")

    monkeypatch.setattr(evaluate, "load", load)
    with pytest.raises(UsageError, match=r"'evaluate:f1' can't be loaded \(Couldn't reach the hub for f1\)"):
        measure(["evaluate:f1"], [[-1.0]] * 5, CHOICES, GOLD)


def test_nothing_is_left_on_disk_and_the_global_generator_is_untouched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    measure(["perplexity", "accuracy"], [[-1.0]] * 5, CHOICES, GOLD)
    assert list(tmp_path.iterdir()) == []
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002
