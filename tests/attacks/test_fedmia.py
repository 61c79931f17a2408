"""One silo's update against the others': planted members stand out; with the silos mixed up they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attacks import fedmia
from attacks.rounds import others
from attacks.rounds.tracks import Step
from bench.view.view import View
from tests.attacks.rounds_world import N, World, assert_chance, assert_order_is_irrelevant, play

ATTACK = fedmia.build(fedmia.Config())


@pytest.mark.parametrize("adversary", ["server", "server+silo", "all-but-one"])
def test_planted_members_stand_out(tmp_path: Path, adversary: str) -> None:
    """The server has two silos to compare with, with a silo one, and all but one of them the rest of the sum."""
    guesses, found = play(ATTACK, World(tmp_path), adversary)
    assert set(found) == {"cosine", "loss", "both"}
    assert min(found.values()) > 0.95, found
    against = {"server": "silo-1, silo-2", "server+silo": "silo-2", "all-but-one": "the rest of the sum"}[adversary]
    assert any(read.endswith(f"against {against}") for read in guesses.reads), guesses.reads


@pytest.mark.parametrize("adversary", ["server", "all-but-one"])
def test_without_a_leak_it_is_chance(tmp_path: Path, adversary: str) -> None:
    assert_chance(ATTACK, World(tmp_path, leak=False), adversary)


def test_without_a_leak_the_tests_reject_as_often_as_they_say(tmp_path: Path) -> None:
    """p is uniform for records that were not trained on: of N, about N/20 lie under .05 (binomial, 10^-6 two-sided:
    4.9 deviations, and the spread is itself estimated from 32 records: a fifth more)."""
    guesses, _ = play(ATTACK, World(tmp_path, leak=False), "server")
    for name in ("cosine", "loss"):
        rejected = int((guesses.scores[name] > -np.log(0.05)).sum())
        assert 0 < rejected < 1.2 * (N / 20 + 4.9 * np.sqrt(N * 0.05 * 0.95)), name


def test_order_and_ids_do_not_matter(tmp_path: Path) -> None:
    assert_order_is_irrelevant(ATTACK, World(tmp_path), "server")


def test_a_step_with_its_sign_reversed_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = Step.update
    monkeypatch.setattr(Step, "update", lambda self, layout: -straight(self, layout))
    _, found = play(ATTACK, World(tmp_path), "server")
    assert found["cosine"] < 0.05


def test_silos_that_trained_on_the_record_too_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with itself the victim never stands out."""

    def itself(view: View, silo: str, round: int) -> object:
        return view.uploads(silo, round)

    monkeypatch.setattr(others, "other_uploads", itself)
    _, found = play(ATTACK, World(tmp_path), "server")
    assert max(found.values()) < 0.65


def test_one_gradient_pass_serves_all_silos_of_a_round(tmp_path: Path) -> None:
    world = World(tmp_path)
    view = world.view("server")
    asked, _ = world.candidates(view)
    ATTACK.infer(view, asked, world)
    assert len({handle for handle, _ in world.asked if handle.startswith("gradients")}) == 1


def test_a_silo_whose_uploads_did_not_open_scores_0(tmp_path: Path) -> None:
    world = World(tmp_path)
    view = world.view("server+silo")
    view = View(**{**vars(view), "victims": ("silo-0", "silo-1")})
    asked, _ = world.candidates(view)
    guesses = ATTACK.infer(view, asked, world)
    shut = np.array(asked.silos) == "silo-0"
    assert (guesses.scores["both"][shut] == 0).all()
    assert (guesses.scores["both"][~shut] > 0).all()
    assert "no step of silo-0" in guesses.reads
