"""What follows linearly from sums and differences, and when a candidate agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.defense.channel import Candidate, Knowledge
from bench.defense.defaults.mean import Mean
from bench.view.elimination import components, eliminate
from bench.view.openers.base import Guess, Hints, terms_of
from bench.view.truth import CEILING, TOLERANCE, Truth
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]


class Tells(channels.Sealing):
    """Reads the sums of these sets of silos in round 0, with a relative error."""

    def __init__(self, sets: list[set[str]], error: float = 0.0) -> None:
        self.sets, self.blur = sets, error
        self.run: Synthetic | None = None

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        assert self.run is not None
        rng = np.random.default_rng(0)
        for silos in self.sets:
            total = np.sum([self.run.summand(0, s) for s in silos], axis=0, dtype=np.float64)
            noise = rng.normal(0, 1, total.shape)
            total += noise / np.linalg.norm(noise) * self.blur * np.linalg.norm(total)
            yield Candidate(0, frozenset(silos), total, "told")


def s(*numbers: int) -> set[str]:
    return {f"silo-{i}" for i in numbers}


def read_by(federate: Federate, path: Path, channel: Tells, *coalition: str) -> tuple[Synthetic, set[frozenset[str]]]:
    run = federate(channel, silos=5, release="none")
    channel.run = run
    view = run.view(path, "server", *coalition)
    for reading in view.readings:
        if reading.kind in ("upload", "sum"):
            truth = np.sum([run.summand(0, name) for name in reading.silos], axis=0)
            assert np.linalg.norm(reading.values - truth) <= 1e-3 * np.linalg.norm(truth)
    return run, {r.silos for r in view.readings if r.kind in ("upload", "sum")}


def test_sums_that_differ_by_one_silo_give_that_silo(federate: Federate, tmp_path: Path) -> None:
    _, found = read_by(federate, tmp_path / "v", Tells([s(0, 1, 2, 3), s(0, 1, 3)]), "server")
    assert found == {frozenset(s(0, 1, 2, 3)), frozenset(s(0, 1, 3)), frozenset(s(2))}


def test_sums_that_differ_by_two_give_the_sum_of_the_two(federate: Federate, tmp_path: Path) -> None:
    _, found = read_by(federate, tmp_path / "v", Tells([s(0, 1, 2, 3), s(0, 1)]), "server")
    assert found == {frozenset(s(0, 1, 2, 3)), frozenset(s(0, 1)), frozenset(s(2, 3))}


def test_overlapping_sums_are_solved(federate: Federate, tmp_path: Path) -> None:
    pairs = [s(0, 1), s(1, 2), s(0, 2)]
    _, found = read_by(federate, tmp_path / "v", Tells(pairs), "server")
    assert found == {*map(frozenset, pairs), frozenset(s(0)), frozenset(s(1)), frozenset(s(2))}


def test_the_coalitions_own_part_is_taken_out_first(federate: Federate, tmp_path: Path) -> None:
    # {0,1,2} and {2,3}: with silo-0's own, {1,2} and {2,3} remain, and nothing single
    _, found = read_by(federate, tmp_path / "a", Tells([s(0, 1, 2), s(2, 3)]), "silo-0")
    assert found == {frozenset(s(1, 2)), frozenset(s(2, 3))}
    # with silo-2's own, {0,1} and {3}
    _, found = read_by(federate, tmp_path / "b", Tells([s(0, 1, 2), s(2, 3)]), "silo-2")
    assert found == {frozenset(s(0, 1)), frozenset(s(3))}


def test_its_own_less_anothers_gives_the_others(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Denies(), release="none", rounds=1)

    def differs(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        values = run.summand(0, "silo-1") - run.summand(0, "silo-0")
        yield Guess(0, frozenset({"silo-1"}), values, "told", form="difference", minus=(0, "silo-0"))

    for me, other in (("silo-0", "silo-1"), ("silo-1", "silo-0")):
        view = run.view(tmp_path / me, "silo", me, openers=[differs])
        assert [r.silos for r in view.uploads()] == [frozenset({other})]
        np.testing.assert_allclose(view.uploads()[0].values, run.summand(0, other), atol=1e-7)


def test_what_does_not_follow_is_not_read(federate: Federate, tmp_path: Path) -> None:
    _, found = read_by(federate, tmp_path / "v", Tells([s(0, 1, 2), s(2, 3, 4)]), "server")
    assert found == {frozenset(s(0, 1, 2)), frozenset(s(2, 3, 4))}


SMALL = arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.sampled_from([-1.0, 0.0, 1.0, 2.0])
)


def as_rows(matrix: np.ndarray) -> dict[int, dict[tuple[int, str], float]]:
    return {n: {(k, "s"): float(c) for k, c in enumerate(row) if c} for n, row in enumerate(matrix)}


@given(SMALL)
def test_elimination_gives_the_unit_vectors_in_the_row_space(matrix: np.ndarray) -> None:
    found = eliminate(as_rows(matrix))
    units = set()
    for solved in found:
        row, weights = np.zeros(matrix.shape[1]), np.zeros(len(matrix))
        for (k, _), c in solved.terms.items():
            row[k] = c
        for n, w in solved.weights.items():
            weights[n] = w
        np.testing.assert_allclose(weights @ matrix, row, atol=1e-9)
        if len(solved.terms) == 1:
            units |= {k for k, _ in solved.terms}
    rank = np.linalg.matrix_rank(matrix)
    assert len(found) == rank
    for i in range(matrix.shape[1]):
        unit = np.eye(matrix.shape[1])[i]
        inside = np.linalg.matrix_rank(np.vstack([matrix, unit])) == rank
        assert inside == (i in units)


@given(SMALL)
def test_rows_apart_give_what_all_together_give(matrix: np.ndarray) -> None:
    """And rows that share no unknown, directly or through others, are apart."""
    rows = as_rows(matrix)
    parts = components(list(rows.values()))
    assert sorted(n for part in parts for n in part) == [n for n, row in rows.items() if row]
    held = [{key for n in part for key in rows[n]} for part in parts]
    assert sum(map(len, held)) == len(set().union(*held))
    apart = [s for part in parts for s in eliminate({n: rows[n] for n in part})]
    whole = eliminate(rows)
    assert sorted(tuple(sorted(s.terms.items())) for s in apart) == sorted(
        tuple(sorted(s.terms.items())) for s in whole
    )


@pytest.mark.parametrize("earlier", [254, 255, 400])
def test_no_number_of_earlier_sums_hides_what_a_later_one_gives(
    earlier: int, federate: Federate, tmp_path: Path
) -> None:
    """Sums that give nothing by themselves, one a round, and in the last round two that differ by one silo."""

    class Sums(channels.Sealing):
        def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
            for round, silos in [(r, s(0, 1, 2)) for r in range(earlier + 1)] + [(earlier, s(0, 1))]:
                total = np.sum([run.summand(round, name) for name in sorted(silos)], axis=0, dtype=np.float64)
                yield Candidate(round, frozenset(silos), total, "told")

    run = federate(Sums(), silos=3, rounds=earlier + 1, release="none", size=48)
    view = run.view(tmp_path / "v", "server", "server")
    assert [r.round for r in view.uploads("silo-2")] == [earlier]


def test_what_is_linked_across_rounds_is_solved_together(federate: Federate, tmp_path: Path) -> None:
    """The sum of round 0, and each silo's summand of round 1 less that of round 0: with one of round 1, one of 0."""
    run = federate(channels.Denies(), release="none", rounds=2)

    def tells(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        for name in ("silo-0", "silo-1", "silo-2"):
            values = run.summand(1, name) - run.summand(0, name)
            yield Guess(1, frozenset({name}), values, "told", form="difference", minus=(0, name))
        yield Guess(1, frozenset({"silo-0"}), run.summand(1, "silo-0"), "told")
        yield Guess(0, frozenset(s(0, 1)), run.summand(0, "silo-0") + run.summand(0, "silo-1"), "told")

    view = run.view(tmp_path / "v", "server", "server", openers=[tells])
    found = {(r.round, next(iter(r.silos))) for r in view.uploads()}
    assert found == {(1, "silo-0"), (0, "silo-0"), (0, "silo-1"), (1, "silo-1")}


# -- the agreement rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["delta", "weights"])
def test_the_error_is_measured_by_what_training_put_there(federate: Federate, of: str) -> None:
    aggregator = Mean(weighted=False, of=of)  # type: ignore[arg-type]
    run = federate(channels.Sealing(), aggregator=aggregator, release="none")
    truth = Truth(run.transcript, aggregator)
    terms = terms_of(0, ["silo-0"])
    target = run.summand(0, "silo-0").astype(np.float64)
    learnt = run.updates[0, "silo-0"].astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 1, target.shape)
    noise *= np.linalg.norm(learnt) / np.linalg.norm(noise)
    for share, agrees in ((0.9 * TOLERANCE, True), (1.1 * TOLERANCE, False)):
        assert truth.judge(terms, target + share * noise).agrees is agrees
    # a stated loss widens the limit, but never beyond the ceiling
    norm = float(np.linalg.norm(learnt))
    assert truth.judge(terms, target + 0.05 * noise, loss=0.06 * norm).agrees
    assert not truth.judge(terms, target + 0.05 * noise, loss=0.04 * norm).agrees
    assert truth.judge(terms, target + 0.9 * CEILING * noise, loss=1e9).agrees
    assert not truth.judge(terms, target + 1.1 * CEILING * noise, loss=1e9).agrees
    assert truth.judge(terms, target + 0.9 * CEILING * noise, rough=True).agrees
    assert not truth.judge(terms, target + 1.1 * CEILING * noise, rough=True).agrees


def test_a_factor_is_fitted_only_where_it_is_asked_for(federate: Federate) -> None:
    run = federate(channels.Sealing(), release="none")
    truth = Truth(run.transcript, run.aggregator)
    terms = terms_of(1, ["silo-0", "silo-2"])
    total = run.summand(1, "silo-0") + run.summand(1, "silo-2")
    assert not truth.judge(terms, total * 2).agrees
    verdict = truth.judge(terms, total * 2, factor=True)
    assert verdict.agrees
    assert verdict.factor == pytest.approx(0.5)
    assert verdict.error == pytest.approx(0, abs=1e-5)


def test_a_silo_that_took_no_part_has_no_upload(federate: Federate) -> None:
    run = federate(channels.Sealing(), rounds=1, participants=[("silo-0", "silo-1")], release="none")
    truth = Truth(run.transcript, run.aggregator)
    verdict = truth.judge(terms_of(0, ["silo-2"]), np.ones(300))
    assert not verdict.agrees
    assert not verdict.unchecked
