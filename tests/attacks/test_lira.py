"""LiRA: densities by hand, its fallbacks, a Gaussian game with a known optimum, the attack on shadow federations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm

from attacks import lira
from bench.attack.attack import Shadow
from bench.core.errors import SiloBenchError
from tests.attacks import shadows as fake
from tests.attacks.shadows import MODELS, SILOS, FakeView, N, auc, game, infer, reading

NAMES = ("lira-online", "lira-offline")


def attack(**config: Any) -> Any:
    return lira.build(lira.Config(**config))


# -- the pure functions ------------------------------------------------------------------------------------------------


def test_confidence_is_the_logit() -> None:
    assert lira.confidence(np.array([0.5, 0.2, 0.9])).tolist() == pytest.approx([0, np.log(0.25), np.log(9)])
    assert lira.confidence(np.array([1e-300]))[0] == pytest.approx(-300 * np.log(10))
    sure = lira.confidence(np.array([1.0, 1 - 1e-12, 1 - 1e-6]))
    assert np.isfinite(sure).all()
    assert sure[0] == sure[1] > sure[2], "as sure as float32 can tell"


TABLE = np.array([[3.0, 1.0, 0.0, -2.0], [5.0, 5.0, 1.0, 3.0]])
WITH = np.array([[True, True, False, False], [True, True, False, False]])


def test_fixed_variance_by_hand() -> None:
    """In: means 2 and 5, squared deviations 1 + 1 + 0 + 0 over 2 degrees of freedom: sd 1. Out: means -1 and 2,
    1 + 1 + 1 + 1 over 2: sd sqrt 2."""
    phi = np.array([1.0, 2.5])
    expected = norm.logpdf(phi, [2, 5], 1) - norm.logpdf(phi, [-1, 2], np.sqrt(2))
    assert lira.compare(phi, TABLE, WITH, variance="fixed") == pytest.approx(expected)
    one_sided = -norm.logsf(phi, [-1, 2], np.sqrt(2))
    assert lira.compare(phi, TABLE, WITH, online=False, variance="fixed") == pytest.approx(one_sided)


def test_per_example_variance_by_hand() -> None:
    """Candidate 0: in 3, 1 (variance 2), out 0, -2 (2). Candidate 1: in 5, 5 (0: the floor), out 1, 3 (2)."""
    phi = np.array([1.0, 5.0])
    expected = norm.logpdf(phi, [2, 5], [np.sqrt(2), 1e-5]) - norm.logpdf(phi, [-1, 2], np.sqrt(2))
    assert lira.compare(phi, TABLE, WITH, variance="per-example") == pytest.approx(expected)


@pytest.mark.parametrize(("models", "own"), [(63, False), (64, True)])
def test_auto_takes_a_variance_of_its_own_from_64_models_on(models: int, own: bool) -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(0, rng.random((5, 1)) + 0.2, (5, models))
    member, phi = rng.random((5, models)) < 0.5, rng.normal(0, 1, 5)
    for online in (True, False):
        auto = lira.compare(phi, known, member, online)
        assert np.array_equal(auto, lira.compare(phi, known, member, online, "per-example")) == own
        assert np.array_equal(auto, lira.compare(phi, known, member, online, "fixed")) == (not own)


def test_likelihoods_go_through_the_logit() -> None:
    rng = np.random.default_rng(1)
    p, known, member = rng.random(6), rng.random((6, 5)), rng.random((6, 5)) < 0.5
    by_hand = lira.compare(np.log(p / (1 - p)), np.log(known / (1 - known)), member)
    assert lira.scores(p, known, member) == pytest.approx(by_hand)


def test_the_one_sided_score_does_not_saturate() -> None:
    known, member = np.array([[0.0, 1.0]] * 3), np.zeros((3, 2), dtype=bool)
    far = lira.compare(np.array([20.0, 30.0, 40.0]), known, member, online=False)
    assert (np.diff(far) > 1).all(), "1 - Pr[Z > phi] is 1 for all three"


def test_a_candidate_of_one_kind_takes_the_others_mean_shift() -> None:
    """Candidate 0 has both kinds: in 2.25, out -.25, so training adds 2.5. Candidate 1 is in every reference (mean 3),
    candidate 2 in none (mean -1): their missing means are .5 and 1.5."""
    known = np.array([[2.0, 2.5, 0.0, -0.5], [3.0, 3.0, 3.0, 3.0], [-1.0, -1.0, -1.0, -1.0]])
    member = np.array([[True, True, False, False], [True] * 4, [False] * 4])
    phi = np.array([0.0, 1.0, 1.0])
    shift = 2.25 - (-0.25)
    sd_in, sd_out = np.sqrt(0.125 / 4), np.sqrt(0.125 / 4)
    mu_in, mu_out = np.array([2.25, 3.0, -1.0 + shift]), np.array([-0.25, 3.0 - shift, -1.0])
    expected = norm.logpdf(phi, mu_in, sd_in) - norm.logpdf(phi, mu_out, sd_out)
    assert lira.compare(phi, known, member, variance="fixed") == pytest.approx(expected)
    assert lira.compare(phi, known, member, online=False, variance="fixed") == pytest.approx(
        -norm.logsf(phi, mu_out, sd_out)
    )


def test_references_of_one_kind_only() -> None:
    """Offline needs none that trained on a candidate; online does."""
    known, phi = np.array([[0.0, 1.0], [2.0, 4.0]]), np.array([1.0, 1.0])
    out, all_in = np.zeros((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)
    assert lira.compare(phi, known, out, online=False) == pytest.approx(-norm.logsf(phi, [0.5, 3], np.sqrt(2.5 / 2)))
    for member, online in ((out, True), (all_in, True), (all_in, False)):
        with pytest.raises(ValueError, match="with and without it"):
            lira.compare(phi, known, member, online)


def test_one_model_of_each_kind_tells_no_spread() -> None:
    with pytest.raises(ValueError, match="spread is unknown"):
        lira.compare(np.zeros(2), np.zeros((2, 2)), np.array([[True, False]] * 2))


def test_constant_confidences_tie() -> None:
    known, member = np.full((3, 4), 1.5), np.array([[True, True, False, False]] * 3)
    for variance in ("fixed", "per-example"):
        assert lira.compare(np.full(3, 1.5), known, member, True, variance).tolist() == [0.0] * 3  # type: ignore[arg-type]
        offline = lira.compare(np.full(3, 1.5), known, member, False, variance)  # type: ignore[arg-type]
        assert offline == pytest.approx(np.full(3, np.log(2)))


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["fixed", "per-example"]))
def test_order_of_candidates_and_of_models_is_nothing(seed: int, online: bool, variance: Any) -> None:
    rng = np.random.default_rng(seed)
    phi, known = rng.normal(0, 1, 7), rng.normal(0, 1, (7, 6))
    member = np.stack([rng.permutation([True] * 3 + [False] * 3) for _ in range(7)])
    found = lira.compare(phi, known, member, online, variance)
    order, columns = rng.permutation(7), rng.permutation(6)
    shuffled = lira.compare(phi[order], known[order], member[order], online, variance)
    assert shuffled == pytest.approx(found[order])
    assert lira.compare(phi, known[:, columns], member[:, columns], online, variance) == pytest.approx(found)


@given(st.integers(0, 2**32 - 1))
def test_a_likelier_record_never_scores_lower(seed: int) -> None:
    """Offline always; online where both deviations are the same, as for densities in general."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(0, 1, 5)
    member = np.array([[True, True, False, False]] * 5)
    spread = np.array([-0.5, 0.5, -0.5, 0.5])
    known = rng.normal(0, 1, (5, 1)) + spread + 1.0 * member
    for online in (True, False):
        low, high = (lira.compare(values, known, member, online, "fixed") for values in (phi, phi + 0.3))
        assert (high >= low - 1e-9).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": np.zeros((2, 1))}, "expected target"),
        ({"references": np.full((3, 4), 0.5)}, "expected target"),
        ({"is_member_of_reference": WITH[:, :2]}, "flag of membership"),
        ({"is_member_of_reference": np.full((2, 4), 2)}, "flag of membership"),
        ({"target": np.array([0.5, np.nan])}, "finite"),
        ({"target": np.array([0.5, 0.0])}, "above 0"),
        ({"references": np.full((2, 4), 1.1)}, "not above 1"),
        ({"variance": "global"}, "variance is"),
    ],
)
def test_malformed_input_is_refused(change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {
        "target": np.full(2, 0.5),
        "references": np.full((2, 4), 0.5),
        "is_member_of_reference": WITH,
    }
    assert lira.scores(**good).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=says):
        lira.scores(**good | change)


# -- a game whose optimum is known -------------------------------------------------------------------------------------


def gaussians(n: int, models: int, seed: int) -> tuple[np.ndarray, ...]:
    """Every record has a mean of its own, spread 3; training on it adds 1.5; models differ by spread 1."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, 3, n)
    coins = np.stack([rng.permutation(n) < n // 2 for _ in range(models + 1)], axis=1)
    phi = mean[:, None] + 1.5 * coins + rng.normal(0, 1, coins.shape)
    optimal = norm.logpdf(phi[:, 0], mean + 1.5) - norm.logpdf(phi[:, 0], mean)
    return phi[:, 0], phi[:, 1:], coins[:, 1:].astype(bool), coins[:, 0].astype(bool), optimal


@pytest.mark.parametrize(("models", "lost"), [(128, 0.015), (16, 0.05)])
def test_online_is_near_the_optimum_and_beats_a_global_threshold(models: int, lost: float) -> None:
    """The optimum is P(Z < 1.5/sqrt 2) = .856; a threshold for all records has P(Z < 1.5/sqrt 20) = .631. With k models
    the means are known to 2/sqrt k each: the losses allowed are twice what that costs, plus the game's own scatter."""
    phi, known, member, truth, optimal = gaussians(4000, models, 3)
    best, threshold = auc(optimal, truth), auc(phi, truth)
    assert best == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.03)
    assert threshold == pytest.approx(norm.cdf(1.5 / np.sqrt(20)), abs=0.045)
    online, offline = (auc(lira.compare(phi, known, member, how), truth) for how in (True, False))
    assert best - lost < online < best + 0.01
    assert threshold + 0.1 < offline < best + 0.01


def test_where_training_changes_nothing_lira_knows_nothing() -> None:
    rng = np.random.default_rng(4)
    phi, known = rng.normal(0, 1, 600), rng.normal(0, 1, (600, 8))
    member, truth = rng.random((600, 8)) < 0.5, rng.permutation(600) < 300
    for online in (True, False):
        found = auc(lira.compare(phi, known, member, online), truth)
        assert abs(found - 0.5) < norm.isf(2.5e-7) * np.sqrt(601 / (12 * 300**2))


# -- the attack --------------------------------------------------------------------------------------------------------


def test_a_planted_leak_is_found() -> None:
    played = game(1.0)
    guesses = infer(attack(), played)
    assert set(guesses.scores) == set(NAMES)
    assert guesses.missing == {}
    for name in NAMES:
        assert auc(guesses.scores[name], played.member) > 0.95, name
    assert guesses.reads == ("adapter after round 2", "the same of 8 shadow federations")


def test_without_a_leak_it_knows_nothing() -> None:
    played = game(0.0)
    for name, values in infer(attack(), played).scores.items():
        assert abs(auc(values, played.member) - 0.5) < fake.margin(2), name


def test_it_finds_what_a_threshold_can_not() -> None:
    """Records differ by 1 nat, training moves them by 0.4, models by 0.15."""
    played = game(0.4)
    threshold = -played.tools.token_stats(reading("adapter"), played.candidates.tokens).losses()
    assert auc(threshold, played.member) < 0.7
    for name, values in infer(attack(), played).scores.items():
        assert auc(values, played.member) > 0.9, name


def test_order_and_ids_do_not_matter() -> None:
    played = game(0.4)
    order = np.random.default_rng(5).permutation(N)
    first, second = infer(attack(), played).scores, infer(attack(), played.shuffled(order)).scores
    for name in NAMES:
        assert second[name] == pytest.approx(first[name][order]), name


def test_members_of_other_shadows_would_be_noticed() -> None:
    """The shadows' truth is used: with that of another planting, online is at a loss."""
    played = game(0.6)
    told = infer(attack(), played).scores["lira-online"]
    rng = np.random.default_rng(1)
    played.tools.shadows = tuple(Shadow(s.view, rng.permutation(s.member)) for s in played.tools.shadows)
    misled = infer(attack(), played).scores["lira-online"]
    assert auc(told, played.member) > 0.95
    assert auc(misled, played.member) < auc(told, played.member) - 0.1


def test_uploads_are_compared_with_the_shadows_uploads() -> None:
    played = game(1.0, kind="upload")
    guesses = infer(attack(), played, fake.view(0, "upload"))
    assert auc(guesses.scores["lira-online"], played.member) > 0.95
    assert guesses.reads[:3] == tuple(f"upload of {silo}, round 2" for silo in SILOS)


def test_without_shadows_it_says_so() -> None:
    played = game(1.0)
    played.tools.shadows = ()
    with pytest.raises(SiloBenchError, match="shadow federations"):
        infer(attack(), played)


def test_a_silo_that_did_not_open_gets_no_verdict() -> None:
    played = game(1.0)
    seen = FakeView({"silo-0": reading("adapter"), "silo-1": None, "silo-2": reading("adapter")})
    guesses = infer(attack(), played, seen)  # type: ignore[arg-type]
    shut = np.array(played.candidates.silos) == "silo-1"
    for name in NAMES:
        assert len(set(guesses.scores[name][shut])) == 1
        assert auc(guesses.scores[name][~shut], played.member[~shut]) > 0.95, name


@pytest.mark.parametrize("config", [{"models": 1}, {"models": 257}, {"variance": "global"}, {"shadows": 3}])
def test_bad_options_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        lira.Config(**config)


def test_it_asks_for_as_many_shadows_as_its_option_says() -> None:
    assert attack().shadows == MODELS
    assert attack(models=16).shadows == 16
    assert attack().game == "membership"
    assert attack().needs == {"query", "adapter", "upload"}
