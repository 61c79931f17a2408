"""What the attacks on a federation's rounds are made of: curves, calibration, steps, and gradients against steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks.rounds import calibration, curves, features, others, slopes, tracks
from bench.model.gradients import Measured, measure
from tests.attacks.rounds_world import LAYOUT, ROUNDS, SILOS, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_a_curve_s_figures_by_hand() -> None:
    """Falls of 1, 3 and 6: the line through 0, 1, 3, 6 has slope (-1.5*0 - .5*1 + .5*3 + 1.5*6) / 5 = 2."""
    found = curves.figures(np.array([[1.0], [3.0], [6.0]]))
    assert {name: float(values[0]) for name, values in found.items()} == pytest.approx(
        {"drop": 6, "slope": 2, "area": 10 / 3, "late": 5, "curvature": ((6 - 3) - (1 - 0)) / 2}
    )
    one = curves.figures(np.array([[2.0, -1.0]]))
    assert {name: values.tolist() for name, values in one.items()} == {
        "drop": [2, -1],
        "slope": [2, -1],
        "area": [2, -1],
    }


def test_z_scores_are_those_of_a_regression_written_out() -> None:
    """y = 1 + 2 x with residuals of +-1 and +-3: x has no part in them, so the fit is exact, and the spread
    sqrt((8 * 1 + 8 * 9) / 14)."""
    x = np.tile([0.0, 1.0, 2.0, 3.0], 4)
    noise = np.repeat([1.0, -1.0, 3.0, -3.0], 4)
    z = calibration.z_scores(np.array([1.0, 11.0]), 1 + 2 * x + noise, np.array([0.0, 3.0]), x)
    assert z == pytest.approx([0, 4 / np.sqrt(80 / 14)])


def test_too_few_population_records_or_no_spread() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    few = calibration.z_scores(values, np.zeros(3), values, np.zeros(3))
    assert few == pytest.approx((values - 2) / (2 / 1.349))
    still = calibration.z_scores(values, np.full(20, 5.0), values, np.arange(20.0))
    assert still == pytest.approx(values - 5), "what differs from a reference that never does is not hidden"
    assert (calibration.robust(np.ones(4)) == 0).all()
    assert calibration.robust(np.zeros(0)).shape == (0,)


@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_z_scores_do_not_change_with_units(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=k) for k in (5, 20, 5, 20)]
    changed = [scale * parts[0] + shift, scale * parts[1] + shift, parts[2], parts[3]]
    np.testing.assert_allclose(calibration.z_scores(*changed), calibration.z_scores(*parts), atol=1e-6)


def test_steps_and_tracks_of_each_adversary(world: World) -> None:
    server, silo, outsider, user = (world.view(name) for name in ("server", "silo", "outsider", "user"))
    assert [r.kind for r in tracks.track(server, "silo-2")] == ["upload"] * ROUNDS
    assert [r.round for r in tracks.track(silo, "silo-1")] == list(range(ROUNDS))
    assert (
        {r.kind for r in tracks.track(silo, "silo-1")} == {r.kind for r in tracks.global_track(server)} == {"adapter"}
    )
    assert [r.kind for r in tracks.track(user, "silo-0")] == ["query"]
    starts = [world.initial, *world.globals]
    for round, step in enumerate(tracks.steps(server, "silo-2", LAYOUT)):
        assert (step.round, step.silo) == (round, "silo-2")
        assert (None if step.start is None else step.start.round, step.end.kind) == (
            round - 1 if round else None,
            "upload",
        )
        assert np.array_equal(step.reached(), starts[round + 1])
        assert np.array_equal(step.before(), starts[round])
        assert np.array_equal(step.after(), world.own_models["silo-2", round])
        np.testing.assert_allclose(step.update(LAYOUT), step.after().astype(float) - step.before())
    for round, step in enumerate(tracks.steps(silo, "silo-1", LAYOUT)):
        assert (step.round, step.silo) == (round, None)
        assert np.array_equal(step.before(), starts[round])
        assert np.array_equal(step.after(), starts[round + 1])
    (only,) = tracks.steps(outsider, "silo-0", LAYOUT)
    for name, start, end in (
        (n, a, b) for (n, a), (_, b) in zip(*map(LAYOUT.tensors, (only.before(), only.after())), strict=True)
    ):
        assert (start == 0).all() if "lora_B" in name else np.array_equal(start, end)
    assert tracks.steps(user, "silo-0", LAYOUT) == ()


def test_which_steps_are_chosen(world: World) -> None:
    known = tracks.global_steps(world.view("silo"), LAYOUT)
    rounds = {which: [s.round for s in tracks.chosen(known, which)] for which in ("first", "last", "ends", "all")}  # type: ignore[arg-type]
    assert rounds == {"first": [0], "last": [2], "ends": [0, 2], "all": [0, 1, 2]}
    assert tracks.chosen(known[:1], "ends") == known[:1]
    assert tracks.chosen((), "all") == ()


def test_gradient_figures_by_their_formulas() -> None:
    rng = np.random.default_rng(0)
    g, u = rng.normal(size=(3, LAYOUT.size)), rng.normal(size=LAYOUT.size)
    found = slopes.figures(measure(g, LAYOUT, [u]), 0, 2.5, np.arange(3.0))
    length = np.linalg.norm(u)
    big = 2.5 * u / length
    for i in range(3):
        norm = np.linalg.norm(g[i])
        assert found["cosine"][i] == pytest.approx(g[i] @ u / norm / length)
        assert found["fall"][i] == i
        assert found["projection"][i] == pytest.approx(g[i] @ u / length)
        assert found["difference"][i] == pytest.approx(big @ big - (big - g[i]) @ (big - g[i]))
        parts = zip(LAYOUT.tensors(g[i]), LAYOUT.tensors(u), strict=True)
        cosines = [(a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b) for (_, a), (_, b) in parts]
        assert found["layers"][i] == pytest.approx(np.mean(cosines))
        assert slopes.small(measure(g, LAYOUT, []))[i] == pytest.approx(-np.log(norm))
    assert set(found) == set(slopes.ALONG)


def test_tensors_without_a_gradient_or_a_step_do_not_dilute_the_layers() -> None:
    zeros = np.zeros((1, 1, 3))
    dots = np.array([[[2.0, 0.0, 0.0]]])
    found = Measured(dots, np.array([[4.0, 0.0, 9.0]]), zeros, np.array([[1.0, 1.0, 0.0]]))
    assert slopes.figures(found, 0, 1.0, np.zeros(1))["layers"] == pytest.approx([1.0])
    none = slopes.figures(Measured(0 * dots, np.zeros((1, 3)), zeros, np.zeros((1, 3))), 0, 1.0, np.zeros(1))
    assert all(np.isfinite(values).all() for values in none.values())


def test_the_rest_of_the_sum_is_the_others_mean(world: World) -> None:
    view = world.view("all-but-one")
    step = tracks.own_steps(view, "silo-1")[1]
    rest = others.rest_of_the_sum(view, step, LAYOUT)
    expected = np.mean([world.own_models[s, 1] for s in SILOS if s != "silo-1"], axis=0) - world.globals[0]
    np.testing.assert_allclose(rest, expected, atol=1e-5)


def test_evidence_is_minus_log_p_and_never_ties() -> None:
    z = np.array([-40.0, 0.0, 1.6448536269514722, 8.0, 9.0, 40.0])
    found = others.evidence(z)
    assert found[1:3] == pytest.approx([np.log(2), -np.log(0.05)])
    assert (np.diff(found) > 0).all()
    assert np.isfinite(found).all()
    assert others.margin(np.array([3.0]), np.array([[1.0, 2.0]])) == pytest.approx([1.5])
    assert others.margin(np.array([3.0]), np.zeros((1, 0))) == pytest.approx([3.0])


def test_the_plain_mean_weighs_families_alike() -> None:
    known = {
        "likelihood/loss-base": np.array([np.e - 1]),
        "gradient/cosine": np.array([1 - np.e]),
        "gradient/small": np.array([99.0]),
    }
    assert features.mean(known) == pytest.approx([0.0])
    assert features.squash(np.array([-(np.e**2 - 1), 0, np.e - 1])) == pytest.approx([-2, 0, 1])


def test_gradient_passes_of_all_attacks_and_adversaries_are_at_the_same_adapters(world: World) -> None:
    """What a server compares with uploads and a silo with global steps is a gradient at the same place: one pass."""
    server, silo = world.view("server"), world.view("silo")
    own, whole = tracks.steps(server, "silo-1", LAYOUT), tracks.steps(silo, "silo-1", LAYOUT)
    assert [np.array_equal(a.before(), b.before()) for a, b in zip(own, whole, strict=True)] == [True] * ROUNDS
