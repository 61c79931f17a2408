"""A crafted start, ascent and poisoning: what is sent is what is meant, members are told, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attacks import ascent, crafted, poisoning
from attacks.deviating import amplified, sent_by_silo
from bench.assess.isolation.parent import Origin, isolated
from bench.core.tokens import Tokens
from bench.core.update import Layout
from bench.plugins.find import Plugins
from bench.spec.run import PluginSpec
from tests.attacks.active_runs import Ground, ground, spec

#: several federations of their own each; the deviations of split-view and single-out are tested in the fast suite
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("active")


def weak(defense: str, rounds: int = 2) -> Any:
    """A federation that learns little: a sum of three silos' updates tells next to nothing."""
    return spec(defense, rounds=rounds, local={"epochs": 2, "batch": 8, "lr": 2e-3})


@pytest.fixture(scope="module")
def start(folder: Path) -> Ground:
    return ground(folder, weak("secagg"), "crafted", amplify=32)


def test_a_crafted_start_makes_the_mean_of_three_silos_tell_its_members(folder: Path, start: Ground) -> None:
    passive = ground(folder, weak("secagg"), "mia")
    assert start.auc() > passive.auc() + 0.1
    assert start.auc() > 0.7


def test_against_members_that_were_not_trained_on_a_crafted_start_is_chance(start: Ground) -> None:
    other = start.with_other_truth()
    assert abs(other.auc() - 0.5) <= other.margin()


def test_silos_get_what_a_federation_from_the_crafted_start_would_send_them(start: Ground) -> None:
    public = start.run.transcript.public
    initial = start.view().initial
    assert initial is not None
    offset = amplified(initial, public.adapter, 32) - initial
    first = sent_by_silo(start.run.transcript.messages([0]), public)[0, "silo-1"]
    np.testing.assert_array_equal(first, initial + offset)
    kept = start.run.transcript.truth(0, "adapter")
    second = sent_by_silo(start.run.transcript.messages([1]), public)[1, "silo-1"]
    np.testing.assert_array_equal(second, kept + offset)


def test_the_offset_is_added_once_where_silos_send_whole_weights() -> None:
    rng = np.random.default_rng(0)
    initial, offset = (rng.normal(size=200).astype(np.float32) for _ in range(2))
    step = rng.normal(0, 0.1, size=200).astype(np.float32)
    np.testing.assert_array_equal(crafted.moved(initial + step, initial, offset), initial + step + offset)
    held = initial + step + offset
    np.testing.assert_array_equal(crafted.moved(held, initial, offset), held)


def records(rows: list[list[int]]) -> Tokens:
    width = max(map(len, rows))
    ids = np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)
    lengths = np.array([len(row) for row in rows], np.int32)
    predicted = (np.arange(width) < lengths[:, None]) & (np.arange(width) > 0)
    return Tokens(ids, lengths, predicted, np.full(len(rows), -1, np.int32))


class Bowl:
    """A model whose adapter is two numbers: record i's loss is its own slope times the adapter."""

    layout = Layout(("w.lora_B.weight",), ((1, 3),))

    def __init__(self, slopes: dict[int, list[float]]) -> None:
        self.slopes, self.at = slopes, np.zeros(3, np.float32)

    def set_adapter(self, at: Any) -> None:
        self.at = np.asarray(at)

    def get_adapter(self) -> Any:
        return self.at

    def of(self, tokens: Tokens) -> Any:
        return np.array([self.slopes[int(row[0])] for row in tokens.ids])

    def stats(self, tokens: Tokens) -> Any:
        losses = self.of(tokens) @ self.at
        return SimpleNamespace(losses=lambda: losses)


@pytest.fixture
def bowl(monkeypatch: pytest.MonkeyPatch) -> Bowl:
    made = Bowl({1: [1.0, 0.0, 0.0], 2: [0.0, 2.0, 0.0], 9: [0.0, 0.0, 5.0], 3: [1.0, 0.0, 5.0]})

    def slopes(model: Bowl, at: Any, tokens: Tokens) -> Iterator[Any]:
        yield from model.of(tokens).astype(np.float32)

    monkeypatch.setattr("bench.model.gradients.record_gradients", slopes)
    return made


def test_the_climb_goes_up_the_candidates_slope_until_the_loss_is_up(bowl: Bowl) -> None:
    asked, nobody = records([[1, 5], [2, 5]]), records([[9, 5]])
    config = ascent.Config(rise=0.5, steps=100, size=0.1, controls=1)
    at = ascent.climb(bowl, np.zeros(3, np.float32), asked, nobody, config)  # type: ignore[arg-type]
    gain = float((at @ bowl.of(asked).T).mean())
    step = 0.1 * 3**0.5
    assert 0.5 <= gain <= 0.5 + step * 5**0.5 / 2 + 1e-6
    np.testing.assert_allclose(at / np.linalg.norm(at), np.array([1, 2, 0]) / 5**0.5, atol=1e-6)


def test_the_climb_leaves_out_what_the_population_has_in_common(bowl: Bowl) -> None:
    config = ascent.Config(rise=0.5, steps=3, size=0.1, controls=1)
    at = ascent.climb(bowl, np.zeros(3, np.float32), records([[3, 5]]), records([[9, 5]]), config)  # type: ignore[arg-type]
    assert at[0] > 0.1
    np.testing.assert_allclose(at[1:], 0, atol=1e-6)


def test_halves_are_a_record_s_own_and_take_turns() -> None:
    tokens = records([[k, k + 1, k + 2] for k in range(200)])
    even, odd = ascent.chosen(tokens, 0, True), ascent.chosen(tokens, 1, True)
    assert (even != odd).all()
    assert 60 < even.sum() < 140
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(ascent.chosen(tokens.take(order), 0, True), even[order])
    np.testing.assert_array_equal(ascent.chosen(tokens, 2, True), even)
    assert ascent.chosen(tokens, 1, False).all()


@pytest.fixture(scope="module")
def climbed(folder: Path) -> Ground:
    local = {"epochs": 20, "batch": 8, "lr": 1e-2}
    return ground(folder, spec("fedavg", silos=2, local=local), "ascent", size=3e-3, steps=10, controls=4)


def test_what_is_sent_has_a_higher_loss_and_the_fall_from_it_tells_members(folder: Path, climbed: Ground) -> None:
    public, model = climbed.run.transcript.public, climbed.materials.model
    view = climbed.view()
    asked = [i for side in (climbed.run.planting.members, climbed.run.planting.nonmembers) for i in side["silo-0"]]
    tokens = climbed.materials.tokens(asked)
    sent = sent_by_silo(climbed.run.transcript.messages([0]), public)[0, "silo-0"]
    losses = []
    for adapter in (view.initial, sent):
        model.set_adapter(adapter)
        losses.append(float(model.stats(tokens).losses().mean()))
    assert losses[1] > losses[0] + 0.1
    found = climbed.assess()
    fall = next(row.value for row in found.leakage if row.name.startswith("auc:fall"))
    assert fall is not None
    assert fall > 0.8
    other = climbed.with_other_truth()
    assert abs(other.auc() - 0.5) <= other.margin()


def test_where_silos_open_the_sums_only_the_first_broadcast_is_the_server_s_to_craft(folder: Path) -> None:
    one = ground(folder, weak("fedshield"), "ascent", steps=2, controls=4)
    transcript = one.run.transcript
    assert {m.round for m in transcript.messages() if m.stage == "broadcast"} == {0}
    found = one.assess()
    assert found.status == "ok"
    assert "the adapter that it sent in round 0, the only one" in found.reads
    sent = sent_by_silo(transcript.messages([0]), transcript.public)[0, "silo-0"]
    attack: Any = one.attack
    initial = one.view().initial
    asked = [i for s in transcript.public.silos for m in (0, 1) for i in _side(one, m)[s]]
    again = ascent.climb(
        one.materials.model,
        initial,  # type: ignore[arg-type]
        one.materials.tokens(asked),
        one.materials.tokens(one.materials.pool.population),
        attack.config,
    )
    np.testing.assert_array_equal(again, sent)


def _side(one: Ground, member: int) -> Any:
    return one.run.planting.members if member else one.run.planting.nonmembers


def test_lies_keep_the_beginning_and_teach_the_end_only() -> None:
    asked, population = records([[1, 2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6]]), records([[20, 21, 22], [23, 24, 25]])
    made = poisoning._lie(asked, population, 0.5, 0)
    np.testing.assert_array_equal(made.ids[0, :4], asked.ids[0, :4])
    np.testing.assert_array_equal(made.ids[1, :2], asked.ids[1, :2])
    assert set(made.ids[0, 4:].tolist()) | set(made.ids[1, 2:4].tolist()) <= set(range(20, 26))
    assert made.predicted[0].tolist() == [False] * 4 + [True] * 4
    assert made.predicted[1].tolist() == [False] * 2 + [True] * 2 + [False] * 4
    assert not made.ids[1, 4:].any()
    other = poisoning._lie(asked, population, 0.5, 1)
    assert (other.ids != made.ids).any()
    swapped = poisoning._lie(asked.take([1, 0]), population, 0.5, 0)
    np.testing.assert_array_equal(swapped.ids[1], made.ids[0])


@pytest.fixture(scope="module")
def poisoned(folder: Path) -> Ground:
    local = {"epochs": 20, "batch": 8, "lr": 1e-2}
    return ground(folder, spec("fedavg", silos=2, local=local), "poisoning", "silo")


def test_a_silo_that_lies_trains_on_its_own_records_and_on_one_lie_per_candidate(poisoned: Ground) -> None:
    trained = poisoned.run.transcript.training(0)
    rows = {name: {r for batch in one.batches for r in batch} for name, one in trained.items()}
    own = {name: len(held) for name, held in poisoned.run.planting.members.items()}
    assert rows["silo-0"] == set(range(own["silo-0"] + 60))
    assert rows["silo-1"] == set(range(own["silo-1"]))


def test_a_silo_that_lies_tells_the_next_silo_s_members_and_no_others(poisoned: Ground) -> None:
    assert poisoned.auc() > 0.85
    other = poisoned.with_other_truth()
    assert abs(other.auc() - 0.5) <= other.margin() < 0.4


def test_forward_passes_under_an_adapter_of_its_own_are_the_same_in_a_process_of_its_own(climbed: Ground) -> None:
    plugin = Plugins().find("attack", "ascent")
    named = PluginSpec(name="ascent", config=climbed.attack.config.model_dump(mode="json"))  # type: ignore[attr-defined]
    origin = Origin(plugin, named, climbed.run.spec, climbed.materials)
    apart = replace(climbed, attack=isolated(climbed.attack, origin))
    assert apart.assess().sheet == climbed.assess().sheet
