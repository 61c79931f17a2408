"""Readings of some coordinates only: kept where those are true, whatever the rest, and marked as what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.defense.channel import Candidate, Knowledge
from bench.view.openers.base import Hints
from bench.view.view import Reading, View
from defenses.channels.flat_ckks import FlatCKKS
from defenses.channels.selective import SelectiveCKKS
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]
SIZE = 400


def told(values: NDArray[np.floating], support: NDArray[np.int64], silo: str = "silo-0", round: int = 0):  # type: ignore[no-untyped-def]
    """An opener that claims ``values`` at ``support``."""

    def opener(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        yield Candidate(round, frozenset({silo}), values, "told", support)

    return opener


def partial(view: View) -> list[Reading]:
    return [r for r in view.readings if r.kind == "partial"]


@pytest.fixture
def sealed(federate: Federate) -> Synthetic:
    return federate(FlatCKKS(), size=SIZE, release="none", rounds=1)


def test_true_coordinates_are_kept_and_the_rest_is_zero(sealed: Synthetic, tmp_path: Path) -> None:
    support = np.arange(0, SIZE, 3)
    truth = sealed.summand(0, "silo-0")
    claimed = np.full(SIZE, 7.0)
    claimed[support] = truth[support]
    view = sealed.view(tmp_path / "view", "server", "server", openers=[told(claimed, support)])
    (reading,) = partial(View.load(tmp_path / "view"))
    np.testing.assert_array_equal(reading.support, support)
    np.testing.assert_allclose(reading.values[support], truth[support], rtol=1e-6)
    assert not np.delete(reading.values, support).any()
    assert (reading.round, reading.silos, reading.adapter) == (0, {"silo-0"}, None)
    assert view.uploads() == ()


@pytest.mark.parametrize("wrong", ["values", "silo", "few", "unsorted", "twice", "outside", "negative", "nan"])
def test_what_is_not_true_or_no_support_is_not_kept(sealed: Synthetic, tmp_path: Path, wrong: str) -> None:
    support = np.arange(0, SIZE, 3)
    values = sealed.summand(0, "silo-0").astype(np.float64)
    silo = "silo-1" if wrong == "silo" else "silo-0"
    if wrong == "values":
        values = np.random.default_rng(0).normal(0, 1e-2, SIZE)
    if wrong == "nan":
        values[3] = np.nan
    support = {
        "few": support[:63],
        "unsorted": support[::-1],
        "twice": np.sort(np.concatenate([support, support])),
        "outside": np.append(support, SIZE),
        "negative": np.append(-1, support),
    }.get(wrong, support)
    view = sealed.view(tmp_path / "view", "server", "server", openers=[told(values, support, silo)])
    assert partial(view) == []


def test_a_whole_reading_takes_the_place_of_a_part_of_it(sealed: Synthetic, tmp_path: Path) -> None:
    support = np.arange(0, SIZE, 3)
    truth = sealed.summand(0, "silo-0").astype(np.float64)

    def both(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        yield from told(truth, support)(knowledge, hints)
        yield Candidate(0, frozenset({"silo-0"}), truth, "told")

    view = sealed.view(tmp_path / "view", "server", "server", openers=[both])
    assert partial(view) == []
    assert len(view.uploads("silo-0")) == 1


def test_a_coalition_is_told_nothing_of_its_own_silos(sealed: Synthetic, tmp_path: Path) -> None:
    truth = sealed.summand(0, "silo-0").astype(np.float64)
    view = sealed.view(tmp_path / "v", "silo", "silo-0", openers=[told(truth, np.arange(0, SIZE, 3))])
    assert partial(view) == []


def test_selective_encryption_shows_the_server_the_clear_part_of_every_upload(
    federate: Federate, tmp_path: Path
) -> None:
    run = federate(SelectiveCKKS(0.25), size=SIZE, rounds=3, release="none")
    view = run.view(tmp_path / "server", "server", "server")
    found = {(r.round, tuple(sorted(r.silos))): r for r in partial(view)}
    single = {(round, (f"silo-{i}",)) for round in (1, 2) for i in range(3)}
    sums = {(round, ("silo-0", "silo-1", "silo-2")) for round in (1, 2)}
    assert set(found) == single | sums
    assert {r.kind for r in view.readings} <= {"partial", "metadata"}
    for round, silos in single:
        reading = found[round, silos]
        assert reading.support is not None
        assert len(reading.support) == 300
        np.testing.assert_allclose(
            reading.values[reading.support], run.summand(round, silos[0])[reading.support], rtol=1e-6
        )


def test_selective_encryption_hides_nothing_from_the_server_with_a_silo(federate: Federate, tmp_path: Path) -> None:
    run = federate(SelectiveCKKS(0.25), size=SIZE, rounds=2, release="none")
    view = run.view(tmp_path / "both", "server+silo", "server", "silo-0")
    assert {(r.round, min(r.silos)) for r in view.uploads()} == {(r, f"silo-{i}") for r in (0, 1) for i in (1, 2)}
    assert partial(view) == []


def test_selective_encryption_shows_an_outsider_the_released_model_only(federate: Federate, tmp_path: Path) -> None:
    run = federate(SelectiveCKKS(0.25), size=SIZE, rounds=2, release="final")
    view = run.view(tmp_path / "out", "outsider")
    assert {r.kind for r in view.readings} == {"adapter", "query"}
