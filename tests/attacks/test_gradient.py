"""Gradients against known steps: planted members lie along the step; a reversed or misplaced step finds nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attacks import gradient
from attacks.rounds import slopes, tracks
from attacks.rounds.tracks import Step
from bench.view.view import View, adapter_handle
from tests.attacks.rounds_world import LAYOUT, SILOS, World, assert_chance, assert_order_is_irrelevant, play

ATTACK = gradient.build(gradient.Config())
ALONG = ("cosine", "cosine-z", "projection-z", "layers-z")
WITH_STEPS = ("silo", "server", "server+silo", "all-but-one")


@pytest.mark.parametrize("adversary", WITH_STEPS)
def test_planted_members_lie_along_the_step(tmp_path: Path, adversary: str) -> None:
    guesses, found = play(ATTACK, World(tmp_path), adversary)
    assert min(found[name] for name in (*ALONG, "fall-z" if "upload" in guesses.reads[0] else "cosine")) > 0.95, found
    assert guesses.missing == {}
    names = (*slopes.ALONG, *slopes.SIZES, *(f"whole-{name}" for name in slopes.ALONG))
    assert set(found) == {f"{n}{z}" for n in names for z in ("", "-z")}


@pytest.mark.parametrize("adversary", ["server", "silo"])
def test_without_a_leak_it_is_chance(tmp_path: Path, adversary: str) -> None:
    assert_chance(ATTACK, World(tmp_path, leak=False), adversary)


def test_order_and_ids_do_not_matter(tmp_path: Path) -> None:
    assert_order_is_irrelevant(ATTACK, World(tmp_path), "server")


def test_a_step_with_its_sign_reversed_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = Step.update
    monkeypatch.setattr(Step, "update", lambda self, layout: -straight(self, layout))
    _, found = play(ATTACK, World(tmp_path), "server")
    assert max(found[name] for name in ALONG) < 0.05


def test_gradients_at_another_adapter_than_the_step_s_start_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where training ended, or where another round began: this world's gradients there have nothing in common."""

    def misplaced(tools: World, steps: list[Step], tokens: object) -> object:
        wrong = replace(steps[0], before=steps[0].after)
        found = straight(tools, [wrong], tokens)
        right = [-step.update(LAYOUT) for step in steps]
        return slopes.measure(tools.record_gradients(wrong.before(), tokens), LAYOUT, right) if found else found

    straight = slopes.measured
    monkeypatch.setattr(slopes, "measured", misplaced)
    _, found = play(ATTACK, World(tmp_path), "server")
    assert max(found[name] for name in ALONG) < 0.7


def test_another_silo_s_step_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = tracks.own_steps

    def swapped(view: View, silo: str) -> tuple[Step, ...]:
        return straight(view, SILOS[(SILOS.index(silo) + 1) % 3])

    monkeypatch.setattr(tracks, "own_steps", swapped)
    _, found = play(ATTACK, World(tmp_path), "server")
    assert max(found[name] for name in ALONG) < 0.7


def test_a_single_adapter_is_compared_with_its_untrained_self(tmp_path: Path) -> None:
    """What the outsider reads: one adapter. In this world gradients there have nothing to do with training, so all
    that can be tested is that it is asked about the right places."""
    world = World(tmp_path)
    guesses, found = play(ATTACK, world, "outsider")
    start, end = tracks.untrained(LAYOUT, world.globals[-1]), world.globals[-1]
    assert passes(world) == {adapter_handle(start), adapter_handle(end)}
    assert found["small-z"] > 0.95
    assert guesses.missing == {}


def test_known_records_have_small_gradients(tmp_path: Path) -> None:
    """Members' gradients shrink by half in this world's last adapter."""
    _, found = play(ATTACK, World(tmp_path), "silo")
    assert min(found[name] for name in ("small-z", "shrink", "shrink-z")) > 0.95


@pytest.mark.parametrize("adversary", WITH_STEPS)
def test_a_coalition_has_an_outsider_s_scores_among_its_own(tmp_path: Path, adversary: str) -> None:
    world = World(tmp_path)
    scores = {}
    for who in ("outsider", adversary):
        asked, _ = world.candidates(view := world.view(who))
        rows = {text: row for row, text in enumerate(asked.texts)}
        guesses = ATTACK.infer(view, asked, world)
        scores[who] = {n: {t: v[row] for t, row in rows.items()} for n, v in guesses.scores.items()}
        assert "adapter after round 2" in guesses.reads
    for name in (f"{n}{z}" for n in slopes.ALONG for z in ("", "-z")):
        mine, theirs = scores[adversary][f"whole-{name}"], scores["outsider"][name]
        assert {t: mine[t] for t in mine} == pytest.approx({t: theirs[t] for t in mine})
        assert scores["outsider"][f"whole-{name}"] == pytest.approx(theirs)


def test_without_a_global_adapter_there_is_no_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    view = world.view("server")
    uploads = tuple(r for r in view.readings if r.kind == "upload")
    asked, _ = world.candidates(view)
    guesses = ATTACK.infer(replace(view, readings=uploads), asked, world)
    assert guesses.missing["whole-cosine"] == gradient.NO_GLOBAL
    assert not any(name.startswith("whole") for name in guesses.scores)


def passes(world: World) -> set[str]:
    """The adapters that gradients were asked at."""
    return {handle.removeprefix("gradients at ") for handle, _ in world.asked if handle.startswith("gradients")}


def test_gradient_passes_are_few(tmp_path: Path) -> None:
    """Where the last step began and where it led, and where all of training did, the same for all victims and whoever
    asks."""
    world = World(tmp_path)
    begin = adapter_handle(tracks.untrained(LAYOUT, world.globals[-1]))
    expected = {begin, adapter_handle(world.globals[-2]), adapter_handle(world.globals[-1])}
    for adversary in ("server", "silo", "all-but-one"):
        play(ATTACK, world, adversary)
        assert passes(world) == expected
    world.asked.clear()
    guesses, _ = play(gradient.build(gradient.Config(after=False)), world, "server")
    assert passes(world) == {begin, adapter_handle(world.globals[-2])}
    assert set(guesses.missing) == {"shrink", "shrink-z"}
    world.asked.clear()
    play(gradient.build(gradient.Config(steps="all")), world, "server")
    assert passes(world) == {begin, *(adapter_handle(a) for a in (world.initial, *world.globals))}


def test_a_silo_whose_start_is_not_known_scores_0(tmp_path: Path) -> None:
    """A server that opens uploads and no adapter has nothing to take gradients at."""
    world = World(tmp_path)
    view = world.view("server")
    blind = tuple(replace(r, before_path=None) for r in view.readings if r.kind == "upload")
    asked, _ = world.candidates(view)
    guesses = ATTACK.infer(replace(view, readings=blind, initial_path=None), asked, world)
    assert all((values == 0).all() for values in guesses.scores.values())
    assert set(guesses.reads) == {f"no step of {silo}" for silo in SILOS}
