"""Losses along the rounds: a planted fall is found, by whoever sees rounds; without one there is nothing to find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attacks import trajectory
from attacks.rounds import curves
from tests.attacks.rounds_world import SILOS, World, assert_chance, assert_order_is_irrelevant, play

ATTACK = trajectory.build(trajectory.Config())
NAMES = {f"{name}{suffix}" for name in (*curves.SIMPLE, *curves.LATER) for suffix in ("", "-z")}
SEEING_ROUNDS = ("silo", "server", "server+silo", "all-but-one")


@pytest.mark.parametrize("adversary", SEEING_ROUNDS)
def test_a_planted_fall_is_found(tmp_path: Path, adversary: str) -> None:
    guesses, found = play(ATTACK, World(tmp_path), adversary)
    assert set(found) == NAMES
    assert min(found[name] for name in ("drop-z", "slope", "slope-z", "area-z", "late-z")) > 0.95, found
    assert guesses.missing == {}


@pytest.mark.parametrize("adversary", ["user", "outsider"])
def test_with_one_model_there_is_a_drop_and_no_curve(tmp_path: Path, adversary: str) -> None:
    guesses, found = play(ATTACK, World(tmp_path), adversary)
    assert found["drop-z"] > 0.95
    assert set(guesses.missing) == NAMES - set(found) == {"late", "late-z", "curvature", "curvature-z"}
    assert len(guesses.reads) == 1


@pytest.mark.parametrize("adversary", ["silo", "server"])
def test_without_a_leak_it_is_chance(tmp_path: Path, adversary: str) -> None:
    assert_chance(ATTACK, World(tmp_path, leak=False), adversary)


def test_order_and_ids_do_not_matter(tmp_path: Path) -> None:
    assert_order_is_irrelevant(ATTACK, World(tmp_path), "server")


def test_scores_turned_round_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = curves.drops
    monkeypatch.setattr(curves, "drops", lambda *a: (-straight(*a)[0], straight(*a)[1]))
    _, found = play(ATTACK, World(tmp_path), "server")
    assert max(found["drop-z"], found["slope"]) < 0.05


def test_each_victim_is_followed_along_its_own_models(tmp_path: Path) -> None:
    world = World(tmp_path)
    guesses, own = play(ATTACK, world, "server")
    assert set(guesses.reads) == {f"upload of {s}, round {r}" for s in SILOS for r in range(3)}
    world.trained = {s: world.trained[SILOS[(k + 1) % 3]] for k, s in enumerate(SILOS)}
    _, another = play(ATTACK, world, "server")
    assert own["drop-z"] > 0.95 > 0.7 > another["drop-z"], "another silo's models tell nothing"


def test_no_population_still_works(tmp_path: Path) -> None:
    _, found = play(trajectory.build(trajectory.Config(population=0)), World(tmp_path), "server")
    assert found["drop-z"] > 0.95


def test_passes_are_one_per_model_and_record(tmp_path: Path) -> None:
    world = World(tmp_path)
    view = world.view("silo")
    asked, _ = world.candidates(view)
    ATTACK.infer(view, asked, world)
    assert len({handle for handle, _ in world.asked}) == 4, "base and three global adapters"
    assert np.unique([n for _, n in world.asked]).tolist() == [32, 60]


def test_silos_that_took_part_in_one_round_only_get_the_same_scores(tmp_path: Path) -> None:
    """All coalitions of an adversary must give the same scores, whoever was away."""
    world = World(tmp_path)
    view = world.view("server")
    kept = tuple(r for r in view.readings if r.kind != "upload" or "silo-0" not in r.silos or r.round == 1)
    asked, _ = world.candidates(view)
    scores = ATTACK.infer(replace(view, readings=kept), asked, world).scores
    once = np.array(asked.silos) == "silo-0"
    assert set(scores) == NAMES
    assert (scores["late"][once] == 0).all()
    assert (scores["late"][~once] != 0).all()
    assert (scores["drop"] != 0).all()
