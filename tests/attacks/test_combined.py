"""The combination: learns from the coalition's own records, falls back on a plain mean, and never sees a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attacks import combined
from bench.attack.attack import Own
from tests.attacks.rounds_world import World, assert_chance, assert_order_is_irrelevant, play, tokens_of

ATTACK = combined.build(combined.Config())
COALITIONS = {"silo": ("silo-0",), "server+silo": ("silo-0",), "all-but-one": ("silo-0", "silo-2")}


@pytest.mark.parametrize("adversary", COALITIONS)
def test_a_planted_leak_is_found_by_what_own_records_taught(tmp_path: Path, adversary: str) -> None:
    world = World(tmp_path, gain=0.8).holds(*COALITIONS[adversary])
    guesses, found = play(ATTACK, world, adversary)
    assert set(found) == {"mean", "learned"}
    assert min(found.values()) > 0.95, found
    assert guesses.missing == {}


@pytest.mark.parametrize("adversary", ["user", "outsider", "server"])
def test_without_own_records_it_is_the_mean(tmp_path: Path, adversary: str) -> None:
    guesses, found = play(ATTACK, World(tmp_path), adversary)
    assert set(found) == {"mean"}
    assert found["mean"] > 0.95
    assert guesses.missing == {"learned": "the coalition holds no records of its own"}


@pytest.mark.parametrize("adversary", ["silo", "server+silo"])
def test_without_a_leak_it_is_chance(tmp_path: Path, adversary: str) -> None:
    assert_chance(ATTACK, World(tmp_path, leak=False).holds("silo-0"), adversary)


def test_order_and_ids_do_not_matter(tmp_path: Path) -> None:
    assert_order_is_irrelevant(ATTACK, World(tmp_path).holds("silo-0"), "server+silo")


def test_own_labels_turned_round_would_be_noticed(tmp_path: Path) -> None:
    world = World(tmp_path).holds("silo-0")
    own = world.own
    assert own is not None
    world.own = Own(own.tokens, own.texts, own.silos, ~own.member)
    _, found = play(ATTACK, world, "silo")
    assert found["learned"] < 0.05
    assert found["mean"] > 0.95, "the mean learns nothing"


def test_features_that_only_noise_moves_are_not_trusted() -> None:
    """One feature of 20 tells; a regression with the default penalty finds it among as many records as a silo holds."""
    rng = np.random.default_rng(0)
    member = np.arange(60) % 2 == 0
    known = {f"noise/{k}": rng.normal(size=60) for k in range(19)} | {"true/one": rng.normal(size=60) + 2.5 * member}
    weights = combined.learn(known, member, combined.Config().penalty)
    by_name = dict(zip(weights.names, weights.weights, strict=True))
    assert max(by_name, key=lambda name: abs(by_name[name])) == "true/one"
    assert by_name["true/one"] > 0
    constant = combined.learn(known | {"flat/one": np.ones(60)}, member, 10.0)
    assert dict(zip(constant.names, constant.weights, strict=True))["flat/one"] == 0


def test_a_feature_that_a_victim_lacks_counts_as_nothing() -> None:
    weights = combined.Weights(("a/x", "b/y"), np.array([1.0, 5.0]))
    assert weights.score({"a/x": np.array([np.e - 1, 0.0])}) == pytest.approx([1, 0])


def test_too_few_own_records_teach_nothing(tmp_path: Path) -> None:
    world = World(tmp_path).holds("silo-0")
    world.own = Own(tokens_of(range(8)), ("",) * 8, ("silo-0",) * 8, np.arange(8) < 4)
    guesses, _ = play(ATTACK, world, "silo")
    assert guesses.missing == {"learned": "the coalition holds fewer than 5 own records of either kind"}
