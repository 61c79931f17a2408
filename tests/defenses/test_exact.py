"""Exact aggregation: the effective weight is the mean of the silos' own, whatever the channel, and what each party
reads of it. ``LAYOUT`` has one target of weight (5, 6) and factors of rank 4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.adversaries import Assignment
from bench.core.errors import SiloBenchError, UsageError
from bench.core.frames import decode_adapter
from bench.core.parties import PUBLIC, SERVER
from bench.core.update import Layout, Update
from bench.defense.aggregator import Aggregator, Plan
from bench.defense.compose import Defense, compose, fill
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.flow import name_of
from bench.model.products import dense, factors, pairs, with_products
from bench.plugins.find import Plugins
from bench.spec.run import Dropout, FederationSpec
from bench.transcript.transcript import Transcript
from bench.view.build import build
from bench.view.view import View
from defenses.aggregators.exact import Folded, Stacked
from defenses.transforms.bounded_rounding import BoundedRounding
from defenses.transforms.clip import Clip
from tests.federation.fakes import LAYOUT, DrawnTrainer, drawn, make_setup, run

Float = NDArray[np.float64]
WIDE = with_products(LAYOUT)
EXACT = [Folded(), Folded(weighted=False), Stacked(), Stacked(weighted=False)]
IDS = ["folded", "folded, unweighted", "stacked", "stacked, unweighted"]


def effective(state: NDArray[np.floating], delta: NDArray[np.floating] | None = None) -> Float:
    """D + B A of the one target, after ``delta`` to the factors, written out in float64."""
    values = state.astype(np.float64)
    if delta is not None:
        values[: LAYOUT.size] += delta
    a = values[:24].reshape(4, 6)
    b = values[24:44].reshape(5, 4)
    change = np.einsum("ok,ki->oi", b, a)
    return change + values[44:].reshape(5, 6) if len(values) > 44 else change


def federate(root: Path, aggregator: Aggregator, channel: Any = None, **federation: Any) -> tuple[Any, Transcript]:
    spec = FederationSpec(**{"silos": 3, "rounds": 3} | federation)
    setup = make_setup(spec, Defense(trainer=DrawnTrainer(), aggregator=aggregator, channel=channel))
    return setup, run(root, setup)


def far_from_the_mean(setup: Any, transcript: Transcript, rounds: Iterable[Iterable[int]]) -> float:
    """The largest error of the effective weight after a round against the weighted mean of what silos trained."""
    worst = 0.0
    before = transcript.initial_adapter()
    for round, silos in enumerate(rounds):
        weights = {i: setup.public.weights[f"silo-{i}"] for i in silos}
        after = np.asarray(transcript.truth(round, "adapter"))
        mean = sum(w * effective(before, drawn(0, i, round)) for i, w in weights.items()) / sum(weights.values())
        worst = max(worst, float(np.abs(effective(after) - mean).max() / np.abs(mean).max()))
        before = after
    return worst


@pytest.mark.parametrize("aggregator", EXACT, ids=IDS)
@pytest.mark.parametrize("opener", ["server", "silos"])
def test_the_effective_weight_is_the_mean_of_the_silos_own(tmp_path: Path, aggregator: Any, opener: Any) -> None:
    setup, transcript = federate(tmp_path, aggregator, PlainChannel(opener))
    assert far_from_the_mean(setup, transcript, [[0, 1, 2]] * 3) < 1e-6


def test_the_mean_of_factors_is_another(tmp_path: Path) -> None:
    setup, transcript = federate(tmp_path, Mean())
    assert far_from_the_mean(setup, transcript, [[0, 1, 2]] * 3) > 0.05


class WithoutResidual(Folded):
    """A broken copy: the mean product travels, and nobody folds it in."""

    def apply(self, total: Any, silos: Any, global_adapter: Any, public: Any) -> Any:
        after = super().apply(total, silos, global_adapter, public)
        after[LAYOUT.size :] = global_adapter[LAYOUT.size :]
        return after


def test_a_residual_that_is_not_folded_in_is_found(tmp_path: Path) -> None:
    setup, transcript = federate(tmp_path, WithoutResidual())
    assert far_from_the_mean(setup, transcript, [[0, 1, 2]] * 3) > 0.05


@pytest.mark.parametrize("aggregator", EXACT, ids=IDS)
@pytest.mark.parametrize("opener", ["server", "silos"])
def test_silos_that_are_away_are_no_part_of_the_mean(tmp_path: Path, aggregator: Any, opener: Any) -> None:
    away = (Dropout(round=1, silo=2, stage="upload"), Dropout(round=2, silo=0, stage="train"))
    setup, transcript = federate(tmp_path, aggregator, PlainChannel(opener), dropouts=away)
    assert far_from_the_mean(setup, transcript, [[0, 1, 2], [0, 1], [1, 2]]) < 1e-6


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class Dying(DrawnTrainer):
    """Dies in round 2, the first time."""

    armed = True

    def train(self, job: Any) -> Any:
        if self.armed and job.round == 2:
            self.armed = False
            raise Killed
        return super().train(job)


@pytest.mark.parametrize("aggregator", [Folded(), Stacked()], ids=["folded", "stacked"])
def test_a_killed_run_goes_on_from_the_folded_weights(tmp_path: Path, aggregator: Any) -> None:
    _, whole = federate(tmp_path / "whole", aggregator)
    setup = make_setup(FederationSpec(silos=3, rounds=3), Defense(trainer=Dying(), aggregator=aggregator))
    with pytest.raises(Killed):
        run(tmp_path / "killed", setup)
    again = run(tmp_path / "killed", setup)
    np.testing.assert_array_equal(again.final_adapter(), whole.final_adapter())
    assert again.final_adapter()[LAYOUT.size :].any()


def test_silos_go_on_from_the_mean_factors_or_from_fresh_ones(tmp_path: Path) -> None:
    setup, folded = federate(tmp_path / "folded", Folded(), rounds=1)
    weights = [setup.public.weights[f"silo-{i}"] for i in range(3)]
    mean = sum(w * drawn(0, i, 0).astype(np.float64) for i, w in enumerate(weights)) / sum(weights)
    start = folded.initial_adapter()[: LAYOUT.size]
    np.testing.assert_allclose(folded.final_adapter()[: LAYOUT.size], start + mean, atol=1e-5)

    _, stacked = federate(tmp_path / "stacked", Stacked(), rounds=2)
    drawn_a = []
    for round in range(2):
        (a, b), *_ = factors(LAYOUT, np.asarray(stacked.truth(round, "adapter")))
        assert not b.any()
        assert 0.2 < np.abs(a).max() <= 1 / np.sqrt(6)
        drawn_a.append(a)
    assert np.abs(drawn_a[0] - drawn_a[1]).max() > 0.1


def broadcast_bytes(transcript: Transcript, stage: str, round: int) -> list[int]:
    return [sum(m.lengths) for m in transcript.messages([round]) if m.stage == stage]


def test_bytes_are_those_of_what_is_summed(tmp_path: Path) -> None:
    _, folded = federate(tmp_path / "folded", Folded())
    header, frame = len(b'{"values": 74}'), 16
    assert broadcast_bytes(folded, "upload", 0) == [header + frame + 4 * 74] * 3
    # nothing is folded in before the first sum: what follows the factors is not sent
    assert broadcast_bytes(folded, "broadcast", 0) == [frame + 4 * 44]
    assert broadcast_bytes(folded, "broadcast", 1) == [frame + 4 * 74]

    _, stacked = federate(tmp_path / "stacked", Stacked())
    assert broadcast_bytes(stacked, "upload", 0) == [len(b'{"values": 132}') + frame + 4 * 3 * 44] * 3
    # the silos are sent the stack, and fold it in themselves
    assert broadcast_bytes(stacked, "broadcast", 1) == []
    names = len(b'["silo-0", "silo-1", "silo-2"]')
    assert broadcast_bytes(stacked, "sum", 1) == [names + len(b'{"values": 132}') + frame + 8 * 3 * 44]


def seen(setup: Any, transcript: Transcript, root: Path, name: str, *coalition: str) -> View:
    victims = tuple(s for s in setup.public.silos if s not in coalition)
    assignment = Assignment(frozenset(coalition), victims)
    parts = setup.parts
    return build(transcript, parts, name, assignment, root / f"view-{name}")


def check_uploads(setup: Any, transcript: Transcript, view: View, silos: Iterable[str], rounds: int) -> None:
    """Every upload of ``silos`` is read, with the adapter that the silo trained."""
    found = {(r.round, *r.silos): r for r in view.uploads()}
    assert set(found) == {(round, name) for round in range(rounds) for name in silos}
    for (round, name), reading in found.items():
        before = transcript.initial_adapter() if round == 0 else np.asarray(transcript.truth(round - 1, "adapter"))
        np.testing.assert_allclose(reading.values, transcript.truth(round, name), rtol=1e-4, atol=1e-3)
        own = before.copy()
        own[: LAYOUT.size] += drawn(0, int(name[-1]), round)
        np.testing.assert_allclose(reading.adapter, own, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(reading.before, before)


@pytest.mark.parametrize("aggregator", [Folded(), Stacked()], ids=["folded", "stacked"])
def test_a_server_opens_uploads_in_clear(tmp_path: Path, aggregator: Any) -> None:
    setup, transcript = federate(tmp_path / "run", aggregator, rounds=2)
    view = seen(setup, transcript, tmp_path, "server", SERVER)
    check_uploads(setup, transcript, view, setup.public.silos, 2)
    assert [a.round for a in view.adapters()] == [0, 1]
    for reading in view.adapters():
        np.testing.assert_allclose(reading.values, transcript.truth(reading.round, "adapter"), atol=1e-5)


def test_of_two_silos_one_reads_the_other_from_what_was_folded_in(tmp_path: Path) -> None:
    setup, transcript = federate(tmp_path / "run", Folded(), silos=2, rounds=2, release="every-round")
    check_uploads(setup, transcript, seen(setup, transcript, tmp_path, "silo", "silo-0"), ["silo-1"], 2)


def test_of_three_silos_one_reads_the_sum_of_the_others_products(tmp_path: Path) -> None:
    setup, transcript = federate(tmp_path / "run", Folded(), rounds=2, release="every-round")
    view = seen(setup, transcript, tmp_path, "silo", "silo-0")
    assert not view.uploads()
    sums = {r.round: r for r in view.readings if r.kind == "sum"}
    assert set(sums) == {0, 1}
    for round, reading in sums.items():
        others = sum(np.asarray(transcript.truth(round, f"silo-{i}"), np.float64) for i in (1, 2))
        np.testing.assert_allclose(reading.values, others, rtol=1e-3, atol=1e-2)


def test_an_outsider_reads_the_sum_from_released_adapters_where_products_are_summed(tmp_path: Path) -> None:
    for name, aggregator, sums in (("folded", Folded(), 2), ("stacked", Stacked(), 0)):
        setup, transcript = federate(tmp_path / name, aggregator, release="every-round")
        view = seen(setup, transcript, tmp_path / name, "outsider")
        assert len(view.adapters()) == 3
        assert sum(r.kind == "sum" for r in view.readings) == sums
        assert not view.uploads()


def test_a_stack_shows_every_silo_all_others_factors(tmp_path: Path) -> None:
    setup, transcript = federate(tmp_path / "run", Stacked(), silos=4, rounds=2)
    check_uploads(
        setup, transcript, seen(setup, transcript, tmp_path, "silo", "silo-1"), ["silo-0", "silo-2", "silo-3"], 2
    )


def test_a_stack_whose_slots_are_not_looked_at_hides_them_wrongly(tmp_path: Path) -> None:
    """A broken copy of the aggregator that names no slots: the view would miss what lies open in the sum."""

    class Unlabelled(Stacked):
        def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
            return replace(super().plan(adapter, silos), slots={})

    setup, transcript = federate(tmp_path / "run", Unlabelled(), silos=4, rounds=1)
    assert not seen(setup, transcript, tmp_path, "silo", "silo-1").uploads()


def test_released_adapters_hold_what_was_folded_in(tmp_path: Path) -> None:
    for name, aggregator in (("folded", Folded()), ("stacked", Stacked())):
        _, transcript = federate(tmp_path / name, aggregator)
        (message,) = (m for m in transcript.messages() if PUBLIC in m.receivers)
        np.testing.assert_array_equal(decode_adapter(message.frames(), WIDE.size), transcript.final_adapter())


def parts_of(*names: str) -> Any:
    plugins = Plugins()
    return fill(compose([(name, plugins.find("defense", name).build()) for name in names]))


REFUSED = {
    ("ffa-lora", "fedex-lora"): "where one factor is frozen, the mean of the factors is exact by itself",
    ("fedshield-exact", "fedex-lora"): "each brings its own aggregator",
    ("fedshield", "flora"): "each brings its own aggregator",
    ("fedavgm", "fedex-lora"): "Folded makes factors and dense changes that belong together",
    ("flora", "fedadam"): "Adam moves each value of the global adapter by a rule of its own",
    ("top-k", "flora"): "put its feedback off",
    ("local", "flora"): "each brings its own aggregator",
    ("pooled", "fedex-lora"): "where the server trains on all records there are none",
}


@pytest.mark.parametrize("names", sorted(REFUSED), ids="+".join)
def test_what_does_not_combine_says_why(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=REFUSED[names]):
        parts_of(*names)


@pytest.mark.parametrize(
    "names",
    [
        ("dp-sgd", "fedex-lora"),
        ("dp-sgd", "flora", "ckks"),
        ("local-dp", "fedex-lora"),
        ("top-k", "fedex-lora"),
        ("fedprox", "fedex-lora", "secagg"),
        ("flora", "plain"),
    ],
    ids="+".join,
)
def test_what_combines(names: tuple[str, ...]) -> None:
    assert isinstance(parts_of(*names).aggregator, Folded | Stacked)


@pytest.mark.parametrize("aggregator", [Folded(), Stacked()], ids=["folded", "stacked"])
def test_a_bound_on_an_update_is_none_on_its_products(aggregator: Aggregator) -> None:
    defense = Defense(transforms=(Clip(1.0), BoundedRounding(4.0)), channel=PlainChannel(), aggregator=aggregator)
    with pytest.raises(
        UsageError, match=f"BoundedRounding works on values of a bounded norm, and {name_of(aggregator)} makes summands"
    ):
        fill(defense)
    summand = aggregator.summand(
        Update(np.zeros(LAYOUT.size, np.float32), LAYOUT, norm_bound=1.0, silo="silo-0"),
        np.zeros(WIDE.size, np.float32),
        make_setup(FederationSpec(), defense=Defense(aggregator=aggregator)).public,
    )
    assert summand.norm_bound is None


def test_layouts_by_hand() -> None:
    assert WIDE.names == ("layer.lora_A", "layer.lora_B", "layer.lora_BA")
    assert WIDE.shapes == ((4, 6), (5, 4), (5, 6))
    two = Layout(
        ("x.lora_A.weight", "x.lora_B.weight", "y.lora_A.weight", "y.lora_B.weight"), ((2, 3), (4, 2), (1, 5), (6, 1))
    )
    assert [(p.prefix, p.a, p.b) for p in pairs(two)] == [("x", 0, 1), ("y", 2, 3)]
    wide = with_products(two)
    assert wide.names[4:] == ("x.lora_BA.weight", "y.lora_BA.weight")
    assert wide.shapes[4:] == ((4, 3), (6, 5))
    flat = np.arange(wide.size)
    assert [part[0, 0] for part in dense(two, flat)] == [two.size, two.size + 12]


@pytest.mark.parametrize(
    "layout",
    [
        Layout(("x.lora_A", "x.bias"), ((2, 3), (2,))),
        Layout(("x.lora_A", "x.lora_B"), ((2, 3), (4, 3))),
        Layout(("x.lora_A",), ((2, 3),)),
    ],
    ids=["a bias", "ranks that differ", "no B"],
)
def test_what_is_no_product_is_refused(layout: Layout) -> None:
    with pytest.raises(SiloBenchError, match="no factor of a product"):
        with_products(layout)
