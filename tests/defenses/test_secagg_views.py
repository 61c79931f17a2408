"""What each coalition reads of secure aggregation, by the channel's own ``read`` and in the harness's views."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.adversaries import assignments
from bench.core.parties import SERVER
from bench.core.update import Grid, Update
from bench.defense.defaults.mean import Mean
from bench.defense.public import Public
from bench.view.openers.distinguish import traits
from defenses.channels.secagg.channel import SecureAggregation
from defenses.channels.secagg.policy import Policy
from tests.defenses.secagg_play import Play, drawn, names
from tests.view.synthetic import Synthetic

CURIOUS, ACTIVE = SecureAggregation(), SecureAggregation(Policy("active"))
BOTH = pytest.mark.parametrize("channel", [CURIOUS, ACTIVE], ids=["curious", "active"])


def expected_reading(coalition: Iterable[str], shared: Iterable[str], uploaded: Iterable[str], threshold: int) -> set:
    """From the paper's argument alone: with the threshold of colluders every upload, else the sum of the others'."""
    inside = set(coalition) & set(shared)
    others = frozenset(uploaded) - inside
    if SERVER not in coalition or not others:
        return set()
    if len(inside) >= threshold:
        return {(0, frozenset({silo})) for silo in others}
    return {(0, others)}


@BOTH
@pytest.mark.parametrize("silos", [3, 4])
@pytest.mark.parametrize("stage", [None, "share", "upload", "unmask"])
def test_every_coalition_reads_what_it_must_and_nothing_else(channel, silos, stage) -> None:
    everybody = names(silos)
    play = Play(channel, drawn(silos), {} if stage is None else {(0, "silo-1"): stage}).run()
    rest = tuple(s for s in everybody if s != "silo-1")
    shared = rest if stage == "share" else everybody
    uploaded = rest if stage in ("share", "upload") else everybody
    threshold = channel.policy.limits(silos).threshold
    for size in range(silos + 2):
        for coalition in combinations((SERVER, *everybody), size):
            assert play.reads(coalition) == expected_reading(coalition, shared, uploaded, threshold), coalition


def test_colluders_at_the_threshold_read_single_uploads_of_five() -> None:
    play = Play(SecureAggregation(Policy(threshold=2)), drawn(5, 2)).run()
    assert play.reads([SERVER, "silo-0"]) == {(r, frozenset(names(5)[1:])) for r in range(2)}
    both = {(r, frozenset({s})) for r in range(2) for s in names(5)[2:]}
    assert play.reads([SERVER, "silo-0", "silo-1"]) == both
    assert play.reads(names(5)) == set()  # silos alone see no uploads


def test_a_run_that_stopped_before_unmasking_shows_nothing_below_the_threshold_of_colluders() -> None:
    away = dict.fromkeys([(0, "silo-2"), (0, "silo-3")], "unmask")
    play = Play(CURIOUS, drawn(4), away)
    assert "only 2 of 4" in play.refused()
    assert play.reads([SERVER]) == set()
    # the two revealed shares of silos 0 and 1, and a colluder's own: three make the threshold, and the sum opens
    assert play.reads([SERVER, "silo-3"]) == {(0, frozenset(names(4)[:3]))}


# through the harness


@dataclass
class GridMean(Mean):
    """The mean of values on a grid of 8 bits, rounded to the nearest."""

    def __init__(self) -> None:
        super().__init__(weighted=False)

    def summand(self, update: Update, global_adapter: NDArray[np.float32], public: Public) -> Update:
        real = super().summand(update, global_adapter, public)
        grid = Grid(8, 0.05)
        steps = np.clip(np.rint(real.values / grid.step), -grid.levels, grid.levels).astype(np.int64)
        return replace(real, values=steps, grid=grid, norm_bound=None)


@pytest.mark.parametrize("silos", [3, 4])
def test_views_of_the_standard_adversaries(silos: int, tmp_path: Path) -> None:
    run = Synthetic(tmp_path / "run", CURIOUS, silos=silos, aggregator=GridMean(), release="every-round")
    known = traits(CURIOUS, run.public)
    assert not known.deterministic | known.lengths
    assert not known.headers
    for adversary in ("outsider", "silo", "server", "server+silo", "all-but-one"):
        for number, assignment in enumerate(assignments(adversary, run.public.silos)[: 5 - silos]):
            view = run.view(tmp_path / f"{adversary}-{number}", adversary, *assignment.coalition, traits=known)
            others = frozenset(run.public.silos) - assignment.coalition
            readings = {(r.kind, r.round, r.silos) for r in view.readings if r.kind not in ("adapter", "query")}
            kind = "upload" if len(others) == 1 else "sum"
            # an outsider does not know what round 0 started from
            rounds = {1} if adversary == "outsider" else {0, 1}
            assert readings == {(kind, round, others) for round in rounds}
            for reading in (r for r in view.readings if r.kind == kind):
                truth = sum(run.summand(reading.round, silo) for silo in others)
                np.testing.assert_allclose(reading.values, truth, atol=1e-6)


@pytest.mark.parametrize(("colluders", "opened"), [(1, False), (2, True)])
def test_views_show_single_uploads_exactly_from_the_threshold_of_colluders_on(
    colluders: int, opened: bool, tmp_path: Path
) -> None:
    channel = SecureAggregation(Policy(threshold=2))
    run = Synthetic(tmp_path / "run", channel, silos=4, aggregator=GridMean(), release="none")
    view = run.view(tmp_path / "view", "server+silo", SERVER, *names(4)[:colluders])
    uploads = {(r.round, *r.silos) for r in view.uploads()}
    assert uploads == ({(r, s) for r in range(2) for s in names(4)[colluders:]} if opened else set())
    assert not opened or all("unmasked upload" in r.how for r in view.uploads())
    assert opened or {r.silos for r in view.readings if r.kind == "sum"} == {frozenset(names(4)[1:])}


@pytest.mark.parametrize("policy", [Policy(colluders=3), Policy("active", colluders=2, threshold=5)])
def test_telling_updates_apart_is_tried_with_as_many_silos_as_the_settings_need(policy: Policy) -> None:
    channel = SecureAggregation(policy)
    known = traits(channel, Play(channel, drawn(6)).public)
    assert not known.deterministic | known.lengths
    assert not known.headers
