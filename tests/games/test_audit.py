"""The audit game: coins and scores to bounds on epsilon, by hand and by simulation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.special import expit

from bench import stats
from bench.core.errors import SiloBenchError, UsageError
from bench.games import leakage, load
from bench.games.audit import TAIL, comparable, counts, refutes, summary
from bench.games.audit_sheet import COUNTED, SHARES, AuditSheet, make_sheet
from bench.spec.result import Claim, Leakage

CLAIM = Claim(epsilon=1.0, delta=1e-5, unit="record", adjacency="add-remove")


def sheet(member: ArrayLike, scores: ArrayLike, coalitions: Any = None, **more: Any) -> AuditSheet:
    coins = np.asarray(member, dtype=bool)
    ids = [f"canary-{k}" for k in range(len(coins))]
    where = [0] * len(ids) if coalitions is None else coalitions
    table = {COUNTED: np.asarray(scores, float)}
    return make_sheet(ids, where, coins, table, **{"delta": 1e-5, **more})


def figures(one: AuditSheet) -> dict[str, Leakage]:
    return {row.name: row for row in leakage(one).leakage}


def coins(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, n).astype(bool)


def test_perfect_guesses_of_one_coalition_by_hand() -> None:
    """100 canaries all guessed right, delta 0: the three shares are tested at .05/3 each, and all 100 say most."""
    member = np.arange(100) < 50
    found = figures(sheet(member, member, delta=0.0, baseline={}))
    s = (0.05 / 3) ** (1 / 100)
    assert found["epsilon_one_run"].value == pytest.approx(np.log(s / (1 - s)), abs=1e-6)
    assert found["epsilon"].value == pytest.approx(np.log(s / (1 - s)), abs=2e-2)
    assert found["epsilon"].value == found["epsilon_limit"].value
    assert found["canary_auc"].value == 1.0
    assert found["epsilon"].n == {"canaries": 100, "in": 50, "guesses": 100, "correct": 100, "coalitions": 1}
    assert found["epsilon_gdp"].value is None
    assert found["epsilon_gaussian"].value is None


def test_every_figure_says_whether_it_is_proven() -> None:
    member = coins(200)
    found = figures(sheet(member, member + np.random.default_rng(1).normal(0, 1, 200)))
    for name in ("epsilon", "epsilon_one_run"):
        assert found[name].note.startswith("proven")
    assert "assumption" in found["epsilon_gdp"].note
    assert "estimate" in found["epsilon_gaussian"].note
    for name, row in found.items():
        assert "proven" not in row.note or name in ("epsilon", "epsilon_one_run")
        assert row.over == "coins of this run's canaries"


def test_coalitions_are_bounded_one_by_one_and_corrected_for() -> None:
    """The harder coalition decides nothing, the easier is tested at half the significance."""
    rng = np.random.default_rng(2)
    member = coins(200, 3)
    where = np.arange(200) % 2
    scores = np.where(where == 0, member, rng.normal(size=200))
    both = sheet(member, scores, where)
    first, second = counts(both, both.scores[COUNTED])
    alone = stats.one_run_epsilon_chosen(
        100, first.outcomes, 1e-5, 0.025, lambda *a: stats.one_run_epsilon_fdp(*a, family="approximate")
    )
    assert figures(both)["epsilon"].value == pytest.approx(alone)
    assert first.outcomes[-1][1] > 90 > 70 > second.outcomes[-1][1]


def test_coalitions_that_guess_from_their_own_coins_prove_nothing() -> None:
    """Two silos whose every coin is the same: each guesses the other's from its own and is always right together, or
    always wrong together. Added up that is 100 of 100 with a chance of a half; by coalition it is one coin's luck."""
    member = coins(40, 5)
    # silo 0 says of silo 1's canaries what its own first coin is, and the other way round: nothing is leaked
    half = member[:20]
    scores = np.concatenate([np.full(20, half[0]), np.full(20, member[20])])
    found = figures(sheet(member, scores, [0] * 20 + [1] * 20))
    assert found["epsilon"].value == 0.0


def test_fair_noise_hardly_ever_proves_anything() -> None:
    """At 5%: of 300 audits that saw nothing at most a number that happens once in a million."""
    proven = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        one = sheet(rng.integers(0, 2, 60), rng.normal(size=60), rng.integers(0, 3, 60), delta=1e-3)
        proven += refutes(one, 0.0, 1e-3, 0.05)
    from scipy.stats import binom

    assert proven <= binom.ppf(1 - 1e-6, 300, 0.05)


def test_randomised_response_is_not_refuted_and_half_its_epsilon_is() -> None:
    """Each canary's coin is told truly with chance e/(1+e): that is epsilon 1 exactly. 4,000 canaries see half of it.

    Truly told coins are Binomial(4000, .731); 0.5 needs accuracy .622 + 5 deviations = .661, which 2,644 right give;
    fewer are right with a chance below 1e-20."""
    rng = np.random.default_rng(11)
    member = coins(4000, 12)
    told = np.where(rng.random(4000) < expit(1.0), member, ~member)
    one = sheet(member, told + rng.normal(0, 1e-3, 4000), delta=1e-9)
    assert not refutes(one, 1.0, 1e-9, 1e-6)
    assert refutes(one, 0.5, 1e-9, 1e-6)
    found = figures(one)
    assert 0.5 < found["epsilon"].value <= 1.0  # type: ignore[operator]
    assert found["epsilon_limit"].value > 5  # type: ignore[operator]


def test_a_gaussian_leak_is_estimated_and_the_bound_stays_below() -> None:
    """Scores N(0, 1) and N(2, 1): 2-GDP, epsilon 6.16 at delta 1e-3 (estimate within its sampling error)."""
    rng = np.random.default_rng(4)
    member = coins(3000, 5)
    one = sheet(member, rng.normal(2.0 * member, 1.0), delta=1e-3)
    truth = stats.gdp_epsilon(2.0, 1e-3)
    found = figures(one)
    assert found["epsilon_gaussian"].value == pytest.approx(truth, rel=0.08)
    for name in ("epsilon", "epsilon_one_run", "epsilon_gdp"):
        assert 0 < found[name].value <= truth  # type: ignore[operator]
    assert found["epsilon_gdp"].value > found["epsilon"].value  # type: ignore[operator]


def test_no_significance_below_delta_refutes_anything() -> None:
    """A mechanism that gives all away with a chance of delta keeps (0, delta): all right happens that often."""
    member = coins(2000)
    one = sheet(member, member)
    assert not refutes(one, 0.0, 1e-3, 1e-4)
    assert refutes(one, 1.0, 1e-3, 1e-2)
    assert refutes(one, 1.0, TAIL, 1e-6)


def test_the_bound_uses_the_delta_that_it_is_asked_about() -> None:
    member = coins(300, 1)
    one = sheet(member, member, delta=0.1)
    assert figures(one)["epsilon"].value < 3  # type: ignore[operator]
    assert refutes(one, 3.0, 1e-9, 0.05)
    assert not refutes(one, 3.0, 0.1, 0.05)


def test_guesses_are_half_in_half_out_and_ties_follow_ids() -> None:
    member = np.arange(20) < 10
    one = sheet(member, np.zeros(20))
    (only,) = counts(one, one.scores[COUNTED])
    assert [guesses for guesses, _ in only.outcomes] == [2, 6, 20]
    # ids sort as text: canary-0, -1, -10, ... -19, -2, ..., -9
    order = np.argsort([f"canary-{k}" for k in range(20)])
    right = [int(member[order[:k]].sum() + (~member[order[20 - k :]]).sum()) for k in (1, 3, 10)]
    assert [correct for _, correct in only.outcomes] == right


def test_the_text_is_the_same_in_any_order_and_reads_back() -> None:
    rng = np.random.default_rng(0)
    member, where = coins(12), np.arange(12) % 3
    ids = [f"canary-{k}" for k in range(12)]
    scores = {COUNTED: rng.normal(size=12), "drop": rng.normal(size=12)}
    blind = {"loss": rng.normal(size=12)}
    one = make_sheet(ids, where, member, scores, blind, delta=1e-3, repeat=2)
    order = rng.permutation(12)
    other = make_sheet(
        [ids[k] for k in order],
        where[order],
        member[order],
        {n: v[order] for n, v in scores.items()},
        {n: v[order] for n, v in blind.items()},
        delta=1e-3,
        repeat=2,
    )
    assert one.to_json() == other.to_json()
    read = load(one.to_json())
    assert isinstance(read, AuditSheet)
    assert read.sha256 == one.sha256
    assert leakage(read) == leakage(one)
    assert read.shares == SHARES


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda v: v["canaries"].append(v["canaries"][0]), "a canary stands twice"),
        (lambda v: v["canaries"].__setitem__(0, ["canary-0", 0, 2]), "'canaries.0.2' should be 0 or 1, not 2"),
        (lambda v: v["scores"].pop("audit"), "no score called 'audit'"),
        (lambda v: v.update(delta=1.5), "out of range"),
        (lambda v: v.update(significance=0.0), "out of range"),
        (lambda v: v.update(shares=[0.5, 0.5]), "distinct"),
        (lambda v: v.update(shares=[]), "shares"),
        (lambda v: v.update(shares=["x"]), r"'shares\.0' should be a valid number, not \"x\""),
        (lambda v: v.update(repeat=0), "can't stand 0 times"),
        (lambda v: v.update(more=1), "'more' is no field"),
        (lambda v: v.pop("delta"), "missing"),
        (lambda v: v["scores"].update({"a:b": [0.0] * 8}), "can't be called"),
    ],
)
def test_text_that_no_sheet_writes_is_refused(change: Any, word: str) -> None:
    value = json.loads(sheet(coins(8), np.arange(8.0)).to_json())
    change(value)
    with pytest.raises(UsageError, match=word):
        load(json.dumps(value, separators=(",", ":"), sort_keys=True))


def test_what_can_not_be_a_sheet() -> None:
    with pytest.raises(SiloBenchError, match="two coins"):
        make_sheet(["a", "a"], [0, 1], [True, False], {COUNTED: [0.0, 1.0]}, delta=0.0)
    with pytest.raises(SiloBenchError, match="stands twice"):
        make_sheet(["a", "a"], [0, 0], [True, True], {COUNTED: [0.0, 1.0]}, delta=0.0)
    with pytest.raises(SiloBenchError, match="NaN"):
        sheet([0, 1], [0.0, np.nan])
    with pytest.raises(SiloBenchError, match="shape"):
        sheet([0, 1], [0.0])
    with pytest.raises(SiloBenchError, match="no canary"):
        make_sheet([], [], [], {COUNTED: []}, delta=0.0)


def test_a_baseline_that_knows_the_coins_voids_the_audit() -> None:
    member = coins(60)
    ids = [f"canary-{k}" for k in range(60)]
    noise = np.random.default_rng(1).normal(size=60)
    broken = make_sheet(ids, [0] * 60, member, {COUNTED: member}, {"loss": member}, delta=1e-3)
    assert leakage(broken).void
    assert "differed before training" in leakage(broken).note
    whole = make_sheet(ids, [0] * 60, member, {COUNTED: member}, {"loss": noise}, delta=1e-3)
    assert not leakage(whole).void
    assert figures(whole)["epsilon:baseline"].value == 0.0


def test_groups_and_other_units_are_not_held_against_a_claim_of_records() -> None:
    assert comparable(1, CLAIM) == ""
    assert "groups of 3" in comparable(3, CLAIM)
    assert "per silo" in comparable(1, Claim(epsilon=1.0, delta=0.1, unit="silo", adjacency="zero-out"))
    assert "per record" in comparable(1, Claim(epsilon=1.0, delta=0.1, unit="record", adjacency="zero-out"))
    assert "no finite" in comparable(1, Claim())
    assert "no finite" in comparable(1, None)
    member = np.arange(50) < 25
    said = summary(sheet(member, member, repeat=3), CLAIM)
    assert (said["unit"], said["compared"], said["proven"]) == ("group of 3", False, True)
    assert "of groups of 3 records" in figures(sheet(member, member, repeat=3))["epsilon"].note
    said = summary(sheet(member, member), CLAIM)
    assert (said["unit"], said["compared"], said["canaries"]) == ("record", True, 50)
    assert said["epsilon"] == said["limit"] == figures(sheet(member, member))["epsilon"].value


def test_exposure_of_canaries_by_hand() -> None:
    """Out: 1, 2, 4. In: 5 has rank 1 of 4 (2 bits), 3 rank 2 (1 bit), 2 rank 2.5 (below 4, tied with 2)."""
    one = sheet([False, False, False, True, True, True], [1, 2, 4, 5, 3, 2])
    found = figures(one)["canary_exposure"]
    assert found.value == pytest.approx((2 + 1 + 2 - np.log2(2.5)) / 3)
    assert "at most 2.00" in found.note
    nobody = figures(sheet([True, True], [1, 2]))["canary_exposure"]
    assert (nobody.value, nobody.note) == (None, "every canary is in, or none")


def test_exposure_ranks_among_those_of_the_same_coalition() -> None:
    one = sheet([False, True, False, True], [1, 2, 10, 9], [0, 0, 1, 1])
    assert figures(one)["canary_exposure"].value == pytest.approx((1 + 0) / 2)
