"""RMIA: the definition on arrays, its fallbacks, and the attack on a game with shadow federations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from attacks import rmia, shadowing
from bench.attack.attack import Shadow
from bench.core.errors import SiloBenchError
from tests.attacks import shadows as fake
from tests.attacks.shadows import MODELS, SILOS, FakeView, N, auc, game, infer, reading

NAMES = ("rmia-online", "rmia-offline", "rmia-base")


def attack(**config: Any) -> Any:
    return rmia.build(rmia.Config(**config))


# -- the pure function -------------------------------------------------------------------------------------------------


def test_offline_by_hand() -> None:
    """a = 1/2: Pr(x) = (1.5 Pr_out + .5) / 2. Candidate 0: Pr_out = .4 (the model with it, at .9, is left out), Pr =
    .55, ratio .8/.55 = 1.4545. Candidate 1: Pr_out = (.2 + .6)/2 = .4, Pr = .55, ratio .11/.55 = .2. Population: Pr_out
    .4, .4, .2 give Pr .55, .55, .4 and ratios .55/.55 = 1, .055/.55 = .1, .8/.4 = 2."""
    found = rmia.scores(
        np.array([0.8, 0.11]),
        np.array([[0.9, 0.4], [0.2, 0.6]]),
        np.array([[True, False], [False, False]]),
        np.array([0.55, 0.055, 0.8]),
        np.array([[0.4, 0.4], [0.3, 0.5], [0.1, 0.3]]),
        0.5,
        1.0,
    )
    assert found.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_online_by_hand() -> None:
    """Pr(x) = ((.9 + .7)/2 + .2)/2 = .5: every kind of model has the same weight, however many there are."""
    args = (np.array([0.75]), np.array([[0.9, 0.7, 0.2]]), np.array([[True, True, False]]))
    assert rmia.marginal(args[1], args[2], None).tolist() == pytest.approx([0.5])
    population, by_model = np.array([0.2, 0.3, 0.4, 0.1]), np.full((4, 3), 0.2)
    assert rmia.scores(*args, population, by_model, None, 1.0).tolist() == [
        0.75
    ]  # 1.5 against 1, 1.5, 2, .5: a tie wins
    assert rmia.scores(*args, population, by_model, None, 1.5).tolist() == [0.5]
    assert rmia.scores(*args, population, by_model, None, 10.0).tolist() == [0.0]


def naive(
    target: np.ndarray,
    refs: np.ndarray,
    member: np.ndarray,
    z: np.ndarray,
    z_refs: np.ndarray,
    a: float | None,
    gamma: float,
) -> list[float]:
    """The definition, one candidate and one population record at a time."""
    found = []
    for i in range(len(target)):
        inside = [p for p, m in zip(refs[i], member[i], strict=True) if m]
        outside = [p for p, m in zip(refs[i], member[i], strict=True) if not m]
        if a is None:
            means = [sum(side) / len(side) for side in (inside, outside) if side]
            expected = sum(means) / len(means)
        elif outside:
            expected = 0.5 * ((1 + a) * sum(outside) / len(outside) + 1 - a)
        else:
            p_in = sum(inside) / len(inside)
            expected = 0.5 * (p_in + (max(0.0, (p_in + a - 1) / a) if a else 0.0))
        wins = 0
        for j in range(len(z)):
            p_z = sum(z_refs[j]) / len(z_refs[j])
            p_z = p_z if a is None else 0.5 * ((1 + a) * p_z + 1 - a)
            wins += (target[i] / expected) / (z[j] / p_z) >= gamma
        found.append(wins / len(z))
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0.0, 0.3, 0.77, 1.0]), st.sampled_from([0.5, 1.0, 2.0]))
def test_it_is_the_definition_on_random_arrays(seed: int, a: float | None, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    n, m, k = rng.integers(1, 9), rng.integers(1, 6), rng.integers(1, 12)
    args = rng.random(n), rng.random((n, m)), rng.random((n, m)) < 0.5, rng.random(k), rng.random((k, m)), a, gamma
    assert rmia.scores(*args).tolist() == pytest.approx(naive(*args), abs=1e-12)


def test_a_candidate_in_every_reference_falls_back_on_the_line_from_out_to_in() -> None:
    """Pr_in = a Pr_out + 1 - a: .6 = .5 Pr_out + .5 gives Pr_out = .2 and Pr = .4; .3 would give a negative one: 0."""
    member = np.ones((2, 1), dtype=bool)
    found = rmia.marginal(np.array([[0.6], [0.3]]), member, 0.5)
    assert found.tolist() == pytest.approx([0.4, 0.15])
    line = rmia.marginal(np.array([[0.2]]), ~member[:1], 0.5)
    assert line.tolist() == pytest.approx([0.4]), "the same Pr(x) from either side of the line"


def test_constant_likelihoods_all_tie() -> None:
    same, table = np.full(4, 0.3), np.full((4, 3), 0.3)
    member = np.zeros((4, 3), dtype=bool)
    for a in (None, 0.0, 0.3, 1.0):
        assert rmia.scores(same, table, member, same, table, a, 1.0).tolist() == [1.0] * 4, "LR = 1 wins at gamma = 1"
        assert rmia.scores(same, table, member, same, table, a, 1.01).tolist() == [0.0] * 4


def test_zero_likelihoods_give_a_verdict() -> None:
    member, half = np.zeros((3, 1), dtype=bool), np.array([0.5])
    found = rmia.scores(
        np.array([0.0, 0.2, 0.0]), np.array([[0.5], [0.0], [0.0]]), member, half, half[:, None], 1.0, 1.0
    )
    assert found.tolist() == [0.0, 1.0, 1.0], "impossible under the target; only possible there; equal"


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0.3]))
def test_a_likelier_record_never_scores_lower_and_order_is_nothing(seed: int, a: float | None) -> None:
    rng = np.random.default_rng(seed)
    x, refs, member = rng.random(6), rng.random((6, 4)), rng.random((6, 4)) < 0.5
    z, z_refs, order = rng.random(9), rng.random((9, 4)), rng.permutation(6)
    found = rmia.scores(x, refs, member, z, z_refs, a, 1.0)
    assert (rmia.scores(np.sqrt(x), refs, member, z, z_refs, a, 1.0) >= found).all()
    assert np.array_equal(rmia.scores(x[order], refs[order], member[order], z, z_refs, a, 1.0), found[order])
    columns, swapped = rng.permutation(4), rng.permutation(9)
    other = rmia.scores(x, refs[:, columns], member[:, columns], z[swapped], z_refs[swapped][:, columns], a, 1.0)
    assert other == pytest.approx(found, abs=1 / 9 + 1e-12)  # sums in another order may break a tie


BAD: list[tuple[dict[str, Any], str]] = [
    ({"target": np.zeros((2, 1))}, "expected target"),
    ({"references": np.zeros((3, 2))}, "expected target"),
    ({"references": np.zeros((2, 0)), "is_member_of_reference": np.zeros((2, 0), bool)}, "expected target"),
    ({"is_member_of_reference": np.zeros((2, 1), bool)}, "flag of membership"),
    ({"is_member_of_reference": np.full((2, 2), 0.5)}, "flag of membership"),
    ({"reference_population": np.zeros((3, 1))}, "expected a population"),
    ({"target_population": np.zeros(0), "reference_population": np.zeros((0, 2))}, "expected a population"),
    ({"target": np.array([0.5, np.nan])}, "finite"),
    ({"target": np.array([0.5, 1.5])}, r"\[0, 1\]"),
    ({"target_population": np.array([-0.1, 0, 0])}, r"\[0, 1\]"),
    ({"offline_a": 1.5}, "a is a number"),
    ({"offline_a": float("nan")}, "a is a number"),
    ({"gamma": 0.0}, "gamma"),
    ({"gamma": float("nan")}, "gamma"),
]


@pytest.mark.parametrize(("change", "says"), BAD)
def test_malformed_input_is_refused(change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {
        "target": np.full(2, 0.5),
        "references": np.full((2, 2), 0.5),
        "is_member_of_reference": np.zeros((2, 2), dtype=bool),
        "target_population": np.full(3, 0.5),
        "reference_population": np.full((3, 2), 0.5),
        "offline_a": 0.3,
        "gamma": 1.0,
    }
    assert rmia.scores(**good).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=says):
        rmia.scores(**good | change)


# -- the attack --------------------------------------------------------------------------------------------------------


def test_a_planted_leak_is_found() -> None:
    played = game(1.0)
    guesses = infer(attack(), played)
    assert set(guesses.scores) == set(NAMES)
    assert guesses.missing == {}
    for name in NAMES:
        assert auc(guesses.scores[name], played.member) > 0.95, name
        assert ((guesses.scores[name] >= 0) & (guesses.scores[name] <= 1)).all()
    assert guesses.reads == ("adapter after round 2", "the same of 8 shadow federations")


def test_without_a_leak_it_knows_nothing() -> None:
    played = game(0.0)
    for name, values in infer(attack(), played).scores.items():
        assert abs(auc(values, played.member) - 0.5) < fake.margin(3), name


def test_order_and_ids_do_not_matter() -> None:
    played = game(0.4)
    order = np.random.default_rng(5).permutation(N)
    first, second = infer(attack(), played).scores, infer(attack(), played.shuffled(order)).scores
    for name in NAMES:
        assert np.array_equal(first[name][order], second[name]), name


def test_uploads_are_compared_with_the_shadows_uploads() -> None:
    played = game(1.0, kind="upload")
    guesses = infer(attack(), played, fake.view(0, "upload"))
    assert auc(guesses.scores["rmia-online"], played.member) > 0.95
    assert guesses.reads[:3] == tuple(f"upload of {silo}, round 2" for silo in SILOS)


def test_a_is_chosen_on_the_shadows_alone() -> None:
    """The choice is the same whatever the target is, and the best on the shadows by a count of our own."""
    rng = np.random.default_rng(0)
    x, refs = rng.random(40), rng.random((40, 5)) ** 2
    member = rng.random((40, 5)) < 0.5
    refs = np.clip(refs + 0.3 * member, 0, 1)
    z_refs = rng.random((30, 5)) ** 2
    part = rmia.Likelihoods(np.arange(40), x, refs, member, rng.random(30), z_refs)
    other = rmia.Likelihoods(np.arange(40), x[::-1], refs, member, rng.random(30), z_refs)
    chosen = rmia.choose_a([part], 1.0)
    assert rmia.choose_a([other], 1.0) == chosen

    def strength(a: float) -> float:
        total = 0.0
        for k in range(5):
            rest = [j for j in range(5) if j != k]
            found = rmia.scores(refs[:, k], refs[:, rest], member[:, rest], z_refs[:, k], z_refs[:, rest], a, 1.0)
            total += auc(found, member[:, k]) / 5
        return total

    by_hand = [strength(a) for a in rmia.GRID]
    assert strength(chosen) == pytest.approx(max(by_hand))
    assert len({round(value, 6) for value in by_hand}) > 1, "a matters here"


def test_a_given_a_is_used() -> None:
    played = game(0.4)
    chosen = {a: infer(attack(offline_a=a), played).scores["rmia-offline"] for a in (0.0, 1.0)}
    assert not np.array_equal(chosen[0.0], chosen[1.0])


def test_without_shadows_it_says_so() -> None:
    played = game(1.0)
    played.tools.shadows = ()
    with pytest.raises(SiloBenchError, match="shadow federations"):
        infer(attack(), played)


def test_the_base_model_alone_is_an_option() -> None:
    played = game(1.0)
    played.tools.shadows = ()
    built = attack(models=0)
    assert built.shadows == 0
    guesses = infer(built, played)
    assert set(guesses.scores) == {"rmia-base"}
    assert set(guesses.missing) == {"rmia-online", "rmia-offline"}
    assert guesses.reads == ("adapter after round 2",)
    assert auc(guesses.scores["rmia-base"], played.member) > 0.95


def test_a_shadow_that_opens_something_else_is_left_out() -> None:
    """Likelihoods under an upload and under a global adapter don't compare."""
    played = game(1.0)
    shadows = played.tools.shadows
    shut = Shadow(FakeView(dict.fromkeys(SILOS)), shadows[0].member)  # type: ignore[arg-type]
    uploads = Shadow(fake.view(2, "upload"), shadows[1].member)
    played.tools.shadows = (shut, uploads, *shadows[2:])
    guesses = infer(attack(), played)
    assert "the same of 6 shadow federations" in guesses.reads
    assert auc(guesses.scores["rmia-online"], played.member) > 0.95
    played.tools.shadows = (shut, uploads)
    with pytest.raises(SiloBenchError, match="none opens"):
        infer(attack(), played)


def test_a_silo_that_did_not_open_gets_no_verdict() -> None:
    played = game(1.0)
    seen = FakeView({"silo-0": reading("adapter"), "silo-1": None, "silo-2": reading("adapter")})
    guesses = infer(attack(), played, seen)  # type: ignore[arg-type]
    shut = np.array(played.candidates.silos) == "silo-1"
    for name in NAMES:
        assert (guesses.scores[name][shut] == 0.5).all()
        assert auc(guesses.scores[name][~shut], played.member[~shut]) > 0.95, name
    assert "nothing of silo-1" in guesses.reads


def test_a_shadow_that_knows_other_candidates_is_an_error() -> None:
    played = game(1.0)
    played.tools.shadows = (Shadow(fake.view(1), np.zeros(3, dtype=bool)),)
    with pytest.raises(SiloBenchError, match="candidates"):
        infer(attack(), played)


def test_without_a_population_it_says_so() -> None:
    played = game(1.0)
    played.tools.population = played.tools.population.take([])
    with pytest.raises(SiloBenchError, match="population"):
        infer(attack(), played)


def test_the_population_does_not_depend_on_its_order() -> None:
    played = game(1.0)
    first = shadowing.known_population(played.tools, 10).ids
    played.tools.population = played.tools.population.take(np.random.default_rng(2).permutation(fake.POPULATION))
    assert np.array_equal(shadowing.known_population(played.tools, 10).ids, first)
    assert len(shadowing.known_population(played.tools, 10_000)) == fake.POPULATION


def test_the_auc_that_chooses_is_the_auc() -> None:
    rng = np.random.default_rng(1)
    values, member = rng.integers(0, 9, 50).astype(float), rng.random(50) < 0.4
    assert shadowing.auc(values, member) == pytest.approx(auc(values, member))
    assert shadowing.auc(values, np.ones(50, dtype=bool)) is None


@pytest.mark.parametrize(
    "config", [{"models": -1}, {"models": 257}, {"offline_a": 1.1}, {"gamma": 0}, {"population": 0}]
)
def test_bad_options_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rmia.Config(**config)


def test_it_asks_for_as_many_shadows_as_its_option_says() -> None:
    assert attack().shadows == MODELS
    assert attack(models=16).shadows == 16
    assert attack().game == "membership"
    assert attack().needs == {"query", "adapter", "upload"}
