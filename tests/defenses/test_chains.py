"""Defenses composed with server steps: what moves, what a view undoes, and what is still promised."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from bench.core.adversaries import assignments
from bench.core.errors import UsageError
from bench.defense.compose import fill
from bench.spec.run import Dropout
from bench.view.build import build
from tests.defenses.silo_privacy import claimed, federate, named
from tests.federation.fakes import LAYOUT

CHAINS = (
    "dp-fedavg+fedadam",
    "dp-fedavg+fedavgm",
    "dp-fedavg+fedsa-lora",
    "fedsa-lora+fedadam",
    "fedshield+fedavgm",
    "fedshield-exact+fedadam",
    "ffa-lora+fedadam",
)
LOUD = {"dp_fedavg": {"sigma": 3.0, "clip": 2.0}}
QUIET = {"dp_fedavg": {"sigma": 1e-7, "clip": 2.0}}


def gaussian_epsilon(sigma: float, rounds: int, delta: float) -> float:
    """Of ``rounds`` Gaussian mechanisms of noise multiplier ``sigma``, which are one of sigma / sqrt(rounds): the
    solution of Balle and Wang 2018 ("Improving the Gaussian Mechanism for Differential Privacy"), theorem 8."""
    mu = math.sqrt(rounds) / sigma

    def spent(epsilon: float) -> float:
        first = norm.cdf(mu / 2 - epsilon / mu)
        return float(first - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta)

    return float(brentq(spent, 0.0, 50.0, xtol=1e-10))


@pytest.mark.parametrize("names", [names for names in CHAINS if names.startswith("dp-")])
def test_what_follows_the_noise_changes_no_claim(tmp_path: Path, names: str) -> None:
    """Towards those who see no sum before the noise, what the Gaussian mechanism alone gives; else nothing."""
    setup, transcript = federate(tmp_path, named(names, **LOUD), release="every-round")
    expected = gaussian_epsilon(3.0, 2, 0.02)
    for adversary in ("user", "outsider", "silo"):
        found = claimed(tmp_path, setup, transcript, adversary)
        assert found.epsilon == pytest.approx(expected, rel=1e-3)
        assert found.epsilon >= expected * (1 - 1e-9)  # type: ignore[operator]
        assert (found.unit, found.adjacency) == ("silo", "zero-out")
    for adversary in ("server", "server+silo", "all-but-one"):
        assert claimed(tmp_path, setup, transcript, adversary).epsilon is None


@pytest.mark.parametrize("names", ["dp-fedavg+fedavgm", "dp-fedavg+fedsa-lora"])
def test_every_silo_counts_as_one_and_the_denominator_is_who_was_called(tmp_path: Path, names: str) -> None:
    away = (Dropout(round=0, silo=3, stage="upload"),)
    setup, transcript = federate(tmp_path, named(names, **QUIET), dropouts=away)
    assert set(setup.public.weights.values()) == {1}
    total = sum(np.asarray(transcript.truth(0, f"silo-{i}"), np.float64) for i in range(3))
    first = np.asarray(transcript.truth(0, "adapter"), np.float64) - transcript.initial_adapter()
    np.testing.assert_allclose(first, total / 4, atol=2e-6)


def test_a_chain_by_hand(tmp_path: Path) -> None:
    """Momentum after the noise of nobody, on A alone: m <- .5 m + mean."""
    _, transcript = federate(tmp_path, named("fedsa-lora+fedavgm"), rounds=3)
    a = np.arange(LAYOUT.size) < 24
    momentum, adapter = np.zeros(LAYOUT.size), transcript.initial_adapter().astype(np.float64)
    sizes = np.array([10, 20, 30, 40])
    for round in range(3):
        summands = [np.asarray(transcript.truth(round, f"silo-{i}"), np.float64) for i in range(4)]
        assert not any(summand[~a].any() for summand in summands)
        momentum = 0.5 * momentum + np.sum(summands, axis=0) / sizes.sum()
        adapter = adapter + momentum
        np.testing.assert_allclose(transcript.truth(round, "adapter"), adapter, atol=1e-5)


@pytest.mark.parametrize("names", CHAINS)
def test_every_chain_runs_and_its_views_are_built(tmp_path: Path, names: str) -> None:
    """Of two silos one reads the other's upload from the adapters of the first round, whatever moved them, unless
    noise did; what no adapter gives away is said."""
    setup, transcript = federate(tmp_path, named(names, **LOUD), silos=2, release="every-round")
    one = assignments("silo", setup.public.silos)[0]
    view = build(transcript, setup.parts, "silo", one, tmp_path / "view")
    read = {reading.round for reading in view.uploads()}
    assert (0 in read) is not names.startswith("dp-")
    assert {round for round, _ in view.lost} <= {0, 1} - read
    for reading in view.uploads():
        truth = np.asarray(transcript.truth(reading.round, *reading.silos), np.float64)
        assert np.linalg.norm(reading.values - truth) < 2e-2 * np.linalg.norm(truth)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("fedavgm+dp-fedavg", "before Momentum makes a move of it: name the defense that brings the noise first"),
        ("dp-fedavg+fedadam+ckks", "SumNoise must be run by the server, and with this channel the silos open the sums"),
        ("dp-fedavg+fedadam+secagg", "Quantise, which comes between, may raise the norm"),
        ("fedadam+fedex-lora", "Folded makes factors and dense changes that belong together"),
        ("fedadam+pooled", "Adam works on updates, and where the server trains on all records there are none"),
        ("ffa-lora+prune", "put the pruning before it"),
    ],
)
def test_chains_that_can_not_work_say_why(names: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fill(named(names))


def test_steps_compose_with_each_other() -> None:
    parts: Any = fill(named("dp-fedavg+fedavgm+fedadam"))
    assert [type(step).__name__ for step in parts.steps] == ["SumNoise", "Momentum", "Adam"]
