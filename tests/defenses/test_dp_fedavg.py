"""DP-FedAvg: clipped updates, noise of the server, a fixed denominator, and whom it promises what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import kstest

from bench.conformance.fixtures import LAYOUT as WIDE
from bench.conformance.fixtures import transform_context
from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams
from bench.core.update import Update
from bench.defense.compose import fill
from bench.defense.contexts import OpenContext
from bench.defense.defaults.mean import Mean
from bench.defense.parts import Transform
from bench.privacy import calibrate, epsilon
from bench.spec.run import Dropout
from bench.transcript.notes import opened_sums
from defenses import dp_fedavg
from defenses.steps.noise import SumNoise
from defenses.transforms.budget import Budget, most_rounds
from defenses.transforms.clip import Clip, clipped, stated_bound
from defenses.transforms.prune import MagnitudePruning
from tests.defenses.silo_privacy import claimed, federate, named
from tests.federation.fakes import LAYOUT

# the clip


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60),
    st.sampled_from([1e-6, 0.3, 1.0, 77.7]),
)
@settings(max_examples=30)
def test_no_clipped_update_is_longer_than_the_bound(values: list[float], bound: float) -> None:
    """The norm of what is sent, in extended precision, without any tolerance."""
    given_values = np.array(values, dtype=np.float32)
    found = clipped(given_values, bound)
    assert found.dtype == np.float32
    assert np.linalg.norm(found.astype(np.longdouble)) <= bound
    if np.linalg.norm(given_values.astype(np.longdouble)) < bound * 0.999:
        np.testing.assert_array_equal(found, given_values)


def test_clipping_by_hand() -> None:
    np.testing.assert_allclose(clipped(np.array([3.0, -4.0], np.float32), 1.0), [0.6, -0.8], rtol=1e-6)
    np.testing.assert_array_equal(clipped(np.array([0.3, -0.4], np.float32), 1.0), np.array([0.3, -0.4], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_counts_as_zero(bad: float) -> None:
    np.testing.assert_array_equal(clipped(np.array([1.0, bad], np.float32), 1.0), [0, 0])


def test_a_bound_that_does_not_hold_is_not_believed() -> None:
    long = Update(np.full(WIDE.size, 1.0, np.float32), WIDE)
    with pytest.raises(SiloBenchError, match="put a clip before it"):
        stated_bound(long)
    with pytest.raises(SiloBenchError, match="states the bound"):
        stated_bound(replace(long, norm_bound=2.0))


# the noise


def opening(round: int = 0, support: Any = None, layout: Any = WIDE, seed: int | None = None) -> OpenContext:
    known = transform_context(np.zeros(layout.size, np.float32), round, layout=layout)
    public = {name: getattr(known, name) for name in ("public", "round", "global_adapter", "lr", "steps", "reach")}
    return OpenContext(**public, secret=SecretStreams("server", seed), support=lambda: support)


def server(sigma: float = 2.0, clip: float = 3.0) -> SumNoise:
    return SumNoise(clip, Budget("dp-fedavg", sigma=sigma))


def test_the_sum_gets_normal_noise_of_sigma_clips() -> None:
    """Kolmogorov-Smirnov over 5,152 values, and a tenth more or less is caught."""
    total = np.linspace(-5, 5, WIDE.size)
    noisy, logged = server().randomise(total, opening())
    assert logged is not None
    assert (logged.kind, dict(logged.params)) == ("opener-gaussian", {"deviation": 6.0})
    assert kstest((noisy - total) / 6.0, "norm").pvalue > 1e-6
    assert abs((noisy - total).std() / 6.0 - 1) < 4.9 / math.sqrt(2 * WIDE.size)
    assert kstest((noisy - total) / 3.0, "norm").pvalue < 1e-6


def test_noise_is_secret_fresh_and_on_what_travelled_only() -> None:
    total = np.zeros(WIDE.size)
    one, other = (server().randomise(total, opening())[0] for _ in range(2))
    assert (one != other).all()
    support = np.arange(0, WIDE.size, 3)
    sparse, _ = server().randomise(total, opening(support=support))
    assert set(np.flatnonzero(sparse)) == set(support)
    rounds = [server().randomise(total, opening(round, seed=4))[0] for round in (0, 1, 0)]
    assert (rounds[0] != rounds[1]).all()
    np.testing.assert_array_equal(rounds[0], rounds[2])
    np.testing.assert_array_equal(total, 0)


def test_noise_for_an_epsilon_is_calibrated_to_the_silo_that_is_called_most() -> None:
    context = transform_context(np.zeros(WIDE.size, np.float32), rounds=4)
    public = replace(context.public, participants=(("silo-0",), ("silo-0", "silo-1"), ("silo-1",), ("silo-0",)))
    assert most_rounds(public) == 3
    assert Budget("x", 8.0, None).multiplier(public) == calibrate(8.0, 0.03, 1.0, 3)
    assert Budget("x", 8.0, None, 1e-3).multiplier(public) == calibrate(8.0, 1e-3, 1.0, 3)
    with pytest.raises(UsageError, match="among 3 silos"):
        Budget("x", 8.0, None, 0.2).multiplier(public)


# in federations

QUIET = {"dp_fedavg": {"sigma": 1e-7, "clip": 2.0}}


def step(transcript: Any, round: int = 0) -> np.ndarray:
    before = transcript.initial_adapter() if round == 0 else transcript.truth(round - 1, "adapter")
    return np.asarray(transcript.truth(round, "adapter").astype(np.float64) - before)


def test_the_denominator_is_who_was_called_not_who_turned_up(tmp_path) -> None:
    away = (Dropout(round=0, silo=3, stage="upload"),)
    _, transcript = federate(tmp_path / "ours", named("dp-fedavg", **QUIET), dropouts=away)
    silos = [transcript.truth(0, f"silo-{i}") for i in range(3)]
    for summand in silos:
        assert np.linalg.norm(summand) == pytest.approx(2.0, rel=1e-5)
    np.testing.assert_allclose(step(transcript), sum(silos) / 4, atol=2e-6)

    class TrueCount(SumNoise):
        counts_called = False

    equal = Mean(weighted=False)
    broken = replace(named("dp-fedavg", **QUIET), aggregator=equal, steps=(TrueCount(2.0, Budget("x", sigma=1e-7)),))
    _, transcript = federate(tmp_path / "broken", broken, dropouts=away)
    assert np.abs(step(transcript) - sum(silos) / 4).max() > 1e-2


def test_every_silo_counts_as_one_whatever_its_size(tmp_path) -> None:
    setup, transcript = federate(tmp_path, named("dp-fedavg", **QUIET))
    assert set(setup.nominal_sizes.values()) == {10, 20, 30, 40}
    assert set(setup.public.weights.values()) == {1}
    assert {dict(s.bounds)[f"silo-{i}"] for s in opened_sums(transcript) for i in range(4)} == {2.0}


LOUD = {"dp_fedavg": {"sigma": 3.0, "clip": 2.0}}


def test_whom_it_promises_what(tmp_path) -> None:
    setup, transcript = federate(tmp_path, named("dp-fedavg", **LOUD), release="every-round")
    expected = epsilon(((1.0, 3.0, 2),), 0.02)
    for adversary in ("user", "outsider", "silo"):
        found = claimed(tmp_path, setup, transcript, adversary)
        assert (found.epsilon, found.unit, found.adjacency, found.delta) == (expected, "silo", "zero-out", 0.02)
    for adversary in ("server", "server+silo", "all-but-one"):
        found = claimed(tmp_path, setup, transcript, adversary)
        assert found.epsilon is None
        assert "nothing is promised" in found.note


def test_only_rounds_whose_sum_a_silo_is_in_are_counted(tmp_path) -> None:
    """4 silos, half of them called: who is called most decides; who is never called spends nothing."""
    setup, transcript = federate(tmp_path, named("dp-fedavg", **LOUD), client_fraction=0.5, rounds=3)
    most = most_rounds(setup.public)
    assert most < 3
    assert claimed(tmp_path, setup, transcript, "outsider").epsilon == epsilon(((1.0, 3.0, most),), 0.02)


class FixedNoise(SumNoise):
    """A broken copy: noise of a size that has nothing to do with the clip."""

    def randomise(self, total, context):  # type: ignore[no-untyped-def]
        noisy, logged = SumNoise(1.0, self.budget).randomise(total, context)
        return noisy, logged


class WeightedAfterClip(SumNoise):
    """A broken copy: multiplies by the silo's size what was clipped."""

    counts_called = False


class Silent(SumNoise):
    """A broken copy: adds nothing, and says so."""

    def randomise(self, total, context):  # type: ignore[no-untyped-def]
        return total, None


@pytest.mark.parametrize(("broken", "sigma"), [(FixedNoise, 1.5), (WeightedAfterClip, 3.0 / 40), (Silent, None)])
def test_broken_servers_get_the_epsilon_that_they_deserve(tmp_path, broken, sigma) -> None:
    """Sigma 3 at clip 2 is stated; the claim follows from the noise that was added and the norms that were sent."""
    defense = replace(named("dp-fedavg", **LOUD), steps=(broken(2.0, Budget("x", sigma=3.0)),))
    setup, transcript = federate(tmp_path, defense, rounds=1)
    found = claimed(tmp_path, setup, transcript, "outsider")
    stated = epsilon(((1.0, 3.0, 1),), 0.02)
    assert found.epsilon == (None if sigma is None else epsilon(((1.0, sigma, 1),), 0.02))
    assert found.epsilon is None or found.epsilon > 1.5 * stated


class Unclipped(Transform):
    """A broken copy: states a bound and clips nothing."""

    def follow(self, flow):  # type: ignore[no-untyped-def]
        return flow.bounded()

    def apply(self, update, context):  # type: ignore[no-untyped-def]
        return replace(update, norm_bound=2.0)


def test_noise_without_clipping_is_refused(tmp_path) -> None:
    defense = named("dp-fedavg", **LOUD)
    with pytest.raises(UsageError, match="nothing before it clips"):
        fill(replace(defense, transforms=()))
    with pytest.raises(SiloBenchError, match="above the 2 that it states"):
        federate(tmp_path, replace(defense, transforms=(Unclipped(),)))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("dp-fedavg+secagg", "Quantise, which comes between"),
        ("dp-fedavg+ckks", "must be run by the server"),
        ("dp-fedavg+fedshield", "must be run by the server"),
        ("dp-fedavg+distributed-dp", "SkellamNoise, which comes between, may raise the norm"),
        ("dp-fedavg+dp-fedavg", "SumNoise, which comes between, may raise the norm"),
        ("fedadam+dp-fedavg", "before Adam makes a move of it: name the defense that brings the noise first"),
        ("dp-fedavg+fedex-lora", "Folded makes summands of which a bound on the update says nothing"),
    ],
)
def test_unsound_combinations_are_refused_with_a_reason(names: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fill(named(names))


def test_what_comes_before_the_clip_or_keeps_norms_is_sound() -> None:
    for names in ("dp-ffa-lora+dp-fedavg", "dp-fedavg+dp-ffa-lora", "plain+dp-fedavg"):
        fill(named(names))
    defense = named("dp-fedavg")
    for before in (MagnitudePruning(of="weights"), MagnitudePruning(of="delta")):
        fill(replace(defense, transforms=(before, *defense.transforms)))
    fill(replace(defense, transforms=(*defense.transforms, MagnitudePruning(of="delta"))))
    with pytest.raises(UsageError, match="MagnitudePruning, which comes between, may raise the norm"):
        fill(replace(defense, transforms=(*defense.transforms, MagnitudePruning(of="weights"))))


def test_with_a_sparse_round_the_unsent_stays_as_it_was(tmp_path) -> None:
    class Half(Transform):
        def follow(self, flow):  # type: ignore[no-untyped-def]
            return flow

        def support(self, context):  # type: ignore[no-untyped-def]
            return np.arange(0, LAYOUT.size, 2)

        def apply(self, update, context):  # type: ignore[no-untyped-def]
            return update.restricted(np.arange(0, LAYOUT.size, 2))

    defense = named("dp-fedavg", **LOUD)
    _, transcript = federate(tmp_path, replace(defense, transforms=(*defense.transforms, Half())))
    assert not step(transcript)[1::2].any()
    assert step(transcript)[::2].all()


def test_it_is_what_it_says() -> None:
    parts = fill(dp_fedavg.build(dp_fedavg.Config(sigma=1.0)))
    assert [type(t) for t in parts.transforms] == [Clip]
    assert [type(step) for step in parts.steps] == [SumNoise]
    assert parts.steps[0].promise in parts.promises


@pytest.mark.parametrize("wrong", [{"epsilon": 1.0, "sigma": 1.0}, {"epsilon": None}, {"clip": 0}, {"delta": 1.0}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        dp_fedavg.Config(**wrong)
    assert dp_fedavg.Config(sigma=2.0).epsilon is None


def test_the_kit_finds_a_transform_that_says_it_keeps_a_bound_and_drops_it() -> None:
    from bench.conformance import transform
    from bench.conformance.checks import run_checks
    from bench.defense.compose import Defense

    class Forgets(Transform):
        def follow(self, flow):  # type: ignore[no-untyped-def]
            return flow

        def apply(self, update, context):  # type: ignore[no-untyped-def]
            return replace(update, norm_bound=None)

    found = run_checks(transform.checks(Defense(transforms=(Clip(1.0), Forgets()))))
    assert any("says that a norm bound holds and gives none" in f.says for f in found if not f.passed)
