"""The membership game: figures from sheets, the baseline, and what an attack may not do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench import games, stats
from bench.core.errors import SiloBenchError, UsageError
from bench.games import membership
from bench.games.membership import MembershipSheet, make_sheet
from bench.spec.result import Leakage

N = 180
IDS = [f"r{i:03d}" for i in range(N)]
MEMBER = np.arange(N) % 2 == 0
SILOS = [f"silo-{i % 3}" for i in range(N)]
CLUSTERS = np.arange(N)


def sheet(scores: dict[str, np.ndarray], baseline: dict[str, np.ndarray] | None = None) -> MembershipSheet:
    return make_sheet(IDS, SILOS, CLUSTERS, MEMBER, scores, baseline or {})


def figures(scored: membership.Scored) -> dict[str, Leakage]:
    return {row.name: row for row in scored.leakage}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, N)


def test_every_figure_is_there() -> None:
    scored = games.leakage(sheet({"loss": noise(0) + MEMBER, "zlib": noise(1)}, {"length": noise(2)}))
    assert [row.name for row in scored.leakage] == [
        "auc",
        "tpr@10%",
        "tpr@1%",
        "tpr@0.1%",
        "advantage",
        "auc:loss",
        "auc:zlib",
        "auc:baseline",
        "auc:baseline:length",
    ]
    for name, row in figures(scored).items():
        assert row.n["members"] == row.n["nonmembers"] == 90
        assert row.n["clusters"] == N
        assert row.over == "records of this model"
        if name not in ("tpr@1%", "tpr@0.1%"):
            assert row.low is not None
            assert row.low <= (row.value or 0) <= (row.high or 0)


def test_figures_are_those_of_stats() -> None:
    scores = {"loss": noise(0) + MEMBER, "zlib": noise(1)}
    found = figures(games.leakage(sheet(scores)))
    folds = stats.split(CLUSTERS, MEMBER)
    choice = stats.crossfit_auc(scores, MEMBER, CLUSTERS, folds)
    assert found["auc"].value == choice.interval.value
    assert (found["auc"].low, found["auc"].high) == (choice.interval.low, choice.interval.high)
    assert found["auc:zlib"].value == stats.auc(scores["zlib"], MEMBER).value
    rates = stats.crossfit_tpr(scores, MEMBER, CLUSTERS, 0.1, folds)
    assert found["tpr@10%"].value == rates.tpr.value
    assert found["tpr@10%"].n["false_positives"] == rates.false_positives
    assert found["advantage"].value == stats.crossfit_advantage(scores, MEMBER, CLUSTERS, folds).advantage.value


def test_a_planted_leak_is_found_and_the_score_named() -> None:
    scored = games.leakage(sheet({"useless": noise(1), "leaky": noise(0) + 4 * MEMBER}))
    found = figures(scored)
    assert (found["auc"].value or 0) > 0.95
    assert scored.best["auc"] == ("leaky", "leaky")
    assert found["auc"].note == "score: leaky"
    assert "realised FPR" in found["tpr@10%"].note
    assert (found["tpr@10%"].value or 0) > 0.9
    assert (found["advantage"].value or 0) > 0.85


def test_a_reversed_leak_is_not_silently_turned_round() -> None:
    found = figures(games.leakage(sheet({"loss": -(noise(0) + 4 * MEMBER)})))
    assert (found["auc"].value or 1) < 0.05


def test_low_fprs_are_refused_with_the_number_needed() -> None:
    found = figures(games.leakage(sheet({"a": noise(0)})))
    assert found["tpr@10%"].value is not None
    for name, needed in (("tpr@1%", "500"), ("tpr@0.1%", "5000")):
        assert found[name].value is None
        assert found[name].low is None
        assert needed in found[name].note


def test_against_an_independent_planting_it_is_at_chance() -> None:
    """Scores that separate one planting say nothing of another: within a margin that fails once in 10^6."""
    scores = {f"s{i}": noise(i) + 3 * MEMBER for i in range(6)}
    other = np.random.default_rng(77).permutation(N) < N // 2
    found = figures(games.leakage(make_sheet(IDS, SILOS, CLUSTERS, other, scores)))
    folds = stats.split(CLUSTERS, other)
    margin = np.mean([stats.null_margin(other[folds == f], p=5e-7) for f in (0, 1)])
    assert abs((found["auc"].value or 0) - 0.5) < margin
    for name in scores:
        assert abs((found[f"auc:{name}"].value or 0) - 0.5) < stats.null_margin(other)


@pytest.mark.parametrize("name", ["auc", "tpr@10%", "advantage"])
def test_constant_scores_find_nothing(name: str) -> None:
    found = figures(games.leakage(sheet({"a": np.zeros(N), "b": np.full(N, 3.0)})))
    assert found[name].value == (0.5 if name == "auc" else 0.0)


def test_one_class_or_too_few_clusters_is_refused_clearly() -> None:
    for member, reason in ((np.zeros(N, bool), "no member"), (np.ones(N, bool), "no non-member")):
        found = figures(games.leakage(make_sheet(IDS, SILOS, CLUSTERS, member, {"a": noise(0)}, {"b": noise(1)})))
        assert found["auc:a"].value is None
        assert reason in found["auc:a"].note
        assert found["auc"].value is None
        assert found["auc:baseline"].value is None
    few = make_sheet(["a", "b", "c"], ["s"] * 3, [0, 1, 2], [True, False, False], {"x": [3.0, 1.0, 2.0]})
    found = figures(games.leakage(few))
    assert found["auc"].value is None
    assert "two clusters" in found["auc"].note
    assert found["auc:x"].value == 1
    assert (found["auc:x"].low or 0) < 0.03


def test_order_of_candidates_does_not_matter() -> None:
    scores, base = {"x": noise(0) + MEMBER, "y": noise(1)}, {"length": noise(2)}
    order = np.random.default_rng(5).permutation(N)
    turned = make_sheet(
        [IDS[i] for i in order],
        [SILOS[i] for i in order],
        CLUSTERS[order],
        MEMBER[order],
        {name: scores[name][order] for name in ("y", "x")},
        {name: values[order] for name, values in base.items()},
    )
    assert turned.to_json() == sheet(scores, base).to_json()
    assert games.leakage(turned) == games.leakage(sheet(scores, base))


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({}, "no score"),
        ({"a": np.where(np.arange(N) == 3, math.nan, 0.0)}, "NaN or infinite for 1 of 180"),
        ({"a": np.where(np.arange(N) < 3, math.inf, 0.0)}, "NaN or infinite for 3 of 180"),
        ({"a": np.zeros(N - 1)}, "shape"),
        ({"a": np.zeros((N, 2))}, "shape"),
        ({"": np.zeros(N)}, "called"),
        ({"baseline": np.zeros(N)}, "called"),
        ({"baseline:x": np.zeros(N)}, "called"),
        ({"a\n": np.zeros(N)}, "called"),
    ],
)
def test_what_an_attack_did_wrong_is_its_failure(scores: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(SiloBenchError, match=said):
        sheet(scores)


def test_an_impossible_truth_is_refused() -> None:
    score = {"a": [0.0, 1.0]}
    with pytest.raises(SiloBenchError, match="twice"):
        make_sheet(["a", "a"], ["s", "s"], [0, 1], [True, False], score)
    with pytest.raises(SiloBenchError, match="divided"):
        make_sheet(["a", "b"], ["s", "s"], [0, 0], [True, False], score)
    with pytest.raises(SiloBenchError, match="divided"):
        make_sheet(["a", "b"], ["s", "t"], [0, 0], [True, True], score)
    with pytest.raises(ValueError, match="length"):
        make_sheet(["a", "b"], ["s"], [0, 0], [True, True], score)


def test_a_baseline_far_above_chance_voids() -> None:
    scored = games.leakage(sheet({"a": noise(0)}, {"length": noise(1), "loss": noise(2) + 2.0 * MEMBER}))
    assert scored.void
    assert "'loss'" in scored.note
    assert "split is broken" in scored.note
    found = figures(scored)
    assert found["auc:baseline"].value == pytest.approx(found["auc:baseline:loss"].value, abs=0.02)
    assert found["auc:baseline"].note.startswith("score: loss; ")


def test_the_blind_column_is_at_chance_where_there_is_nothing_to_see() -> None:
    """400 draws of five scores of noise: the largest of five turned upwards, as it was, has a mean of .578 here; that
    of one which is chosen on the other fold is .5. The mean of 400 varies by .0045, five and a half of which are .025.
    """
    rng = np.random.default_rng(0)
    values = []
    for _ in range(400):
        base = {f"s{k}": rng.normal(size=60) for k in range(5)}
        member = rng.permutation(60) < 30
        made = make_sheet(IDS[:60], SILOS[:60], CLUSTERS[:60], member, {"a": rng.normal(size=60)}, base)
        values.append(figures(games.leakage(made))["auc:baseline"].value)
    assert float(np.mean(values)) == pytest.approx(0.5, abs=0.025)


# -- parts of a coalition ------------------------------------------------------------------------------------------


def test_a_coalition_has_what_its_part_has() -> None:
    """What the coalition reads is mangled; the released model, which it holds too, tells members apart. Without the
    part's column its AUC is that of noise."""
    mangled, released = noise(0), noise(1) + 2.0 * MEMBER
    alone = figures(games.leakage(sheet({"loss": mangled})))
    both = games.leakage(sheet({"loss": mangled, "loss@outsider": released}))
    found = figures(both)
    assert (alone["auc"].value or 1) < 0.65
    assert (found["auc"].value or 0) > 0.85
    assert found["auc"].n["scores"] == 2
    assert found["auc-over:outsider"].value == pytest.approx(0)
    assert not both.fault
    assert "auc:loss@outsider" not in found


def test_less_than_a_part_beyond_the_margin_is_a_fault_and_is_not_clamped() -> None:
    """A column that looks best on one fold and is at chance on the other draws the choice away from the part's."""
    folds = stats.split(CLUSTERS, MEMBER)
    part = noise(1) + 1.5 * MEMBER
    lure = np.where(folds == 0, 9.0 * MEMBER, -9.0 * MEMBER) + noise(2)
    found = games.leakage(sheet({"loss": lure, "loss@server": part, "more@server": noise(3)}))
    over = figures(found)["auc-over:server"]
    assert over.value is not None
    assert over.high is not None
    assert over.value < over.high < 0
    assert found.fault == "a fault: less is reported than the coalition's part server alone gives"


def test_columns_of_parts_that_are_noise_raise_nothing() -> None:
    """200 draws: the mean of the cross-fitted AUC stays at chance with ten columns of parts beside."""
    rng = np.random.default_rng(1)
    values = []
    for _ in range(200):
        member = rng.permutation(60) < 30
        scores = {name: rng.normal(size=60) for name in ("a", *(f"a@{p}" for p in ("user", "server")), "b", "b@user")}
        made = make_sheet(IDS[:60], SILOS[:60], CLUSTERS[:60], member, scores)
        values.append(figures(games.leakage(made))["auc"].value)
    assert float(np.mean(values)) == pytest.approx(0.5, abs=0.035)


def test_a_reversed_baseline_voids_too() -> None:
    scored = games.leakage(sheet({"a": noise(0)}, {"length": noise(1) - 2.0 * MEMBER}))
    assert scored.void
    assert (figures(scored)["auc:baseline"].value or 0) > 0.9
    assert figures(scored)["auc:baseline"].note.startswith("score: reversed length")
    assert (figures(scored)["auc:baseline:length"].value or 1) < 0.1


def test_a_leak_alone_does_not_void_and_chance_does_not() -> None:
    """200 blind draws: the smallest p, already multiplied by the scores tried, is nowhere near 10^-6."""
    base = {name: noise(i) for i, name in enumerate(("loss", "zlib", "length"))}
    rng = np.random.default_rng(8)
    smallest = 1.0
    for _ in range(200):
        member = rng.permutation(N) < N // 2
        folds = stats.split(CLUSTERS, member)
        fitted = _nearest(base["loss"], member, folds)
        made = make_sheet(IDS, SILOS, CLUSTERS, member, {"a": noise(5) + 5 * member}, base | {"fit:near": fitted})
        scored = games.leakage(made)
        assert not scored.void
        p = float(figures(scored)["auc:baseline"].note.split("p = ")[1].split(" ")[0])
        smallest = min(smallest, p)
    assert smallest > 1e-4


def _nearest(feature: np.ndarray, member: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """A classifier trained on the other fold: which class's mean is nearer."""
    out = np.empty(len(feature))
    for f in (0, 1):
        taught = folds != f
        centres = [feature[taught & side].mean() for side in (member, ~member)]
        out[folds == f] = (np.abs(feature - centres[1]) - np.abs(feature - centres[0]))[folds == f]
    return out


def test_a_fitted_baseline_is_never_compared_across_folds() -> None:
    folds = stats.split(CLUSTERS, MEMBER)
    scored = games.leakage(sheet({"a": noise(0)}, {"fit:words": noise(1) + 50.0 * folds}))
    same = games.leakage(sheet({"a": noise(0)}, {"fit:words": noise(1)}))
    assert figures(scored)["auc:baseline:fit:words"].value == figures(same)["auc:baseline:fit:words"].value
    leaky = games.leakage(sheet({"a": noise(0)}, {"fit:words": noise(1) + 3.0 * MEMBER}))
    assert leaky.void


def test_clusters_count_once() -> None:
    """Ten copies of 18 records are 18 observations: the interval says so, and forgetting it is caught."""
    cluster = np.arange(N) // 10
    member = cluster % 2 == 0
    score = np.random.default_rng(2).normal(0, 1, 18)[cluster] + member
    found = figures(games.leakage(make_sheet(IDS, ["s"] * N, cluster, member, {"a": score})))
    once = stats.auc(score[::10], member[::10])
    assert (found["auc:a"].low, found["auc:a"].high) == pytest.approx((once.low, once.high))
    assert found["auc:a"].n["clusters"] == 18
    forgotten = figures(games.leakage(make_sheet(IDS, ["s"] * N, CLUSTERS, member, {"a": score})))["auc:a"]
    width = (found["auc:a"].high or 0) - (found["auc:a"].low or 0)
    assert (forgotten.high or 0) - (forgotten.low or 0) < 0.6 * width


def test_paired_comparison_of_two_defenses() -> None:
    leaky = sheet({"loss": noise(0) + 3 * MEMBER, "zlib": noise(3)})
    tight = sheet({"loss": noise(1) + 0.3 * MEMBER})
    found = membership.paired(leaky, tight)
    values = [figures(games.leakage(s))["auc"].value or 0 for s in (leaky, tight)]
    assert found.interval.value == pytest.approx(values[0] - values[1], abs=0.02)
    assert found.p is not None
    assert found.p < 1e-6
    assert (found.interval.low or 0) > 0.2
    back = membership.paired(tight, leaky)
    assert back.interval.value == pytest.approx(-(found.interval.value or 0))
    assert membership.paired(leaky, leaky).p == 1


def test_paired_comparison_needs_one_planting_and_shared_candidates() -> None:
    one = sheet({"loss": noise(0)})
    half = make_sheet(IDS[:90], SILOS[:90], CLUSTERS[:90], MEMBER[:90], {"loss": noise(0)[:90]})
    assert membership.paired(one, half).interval.value == 0
    other = make_sheet(IDS, SILOS, CLUSTERS, ~MEMBER, {"loss": noise(0)})
    with pytest.raises(UsageError, match="one planting"):
        membership.paired(one, other)
    stranger = make_sheet([f"x{i}" for i in range(N)], SILOS, CLUSTERS, MEMBER, {"loss": noise(0)})
    with pytest.raises(UsageError, match="too few"):
        membership.paired(one, stranger)
