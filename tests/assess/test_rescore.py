"""Figures computed anew from a stored sheet: when that is enough, and what comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import games
from bench.assess.rescore import only_scoring_is_new, rescored
from bench.core.errors import UsageError
from bench.games import membership
from bench.spec.result import Result
from tests.results_factory import result

NOW = {"attack/mia": 2, "TRAINING": 1, "VIEWS": 3, "SCORING": 5}


def old(**changes: Any) -> Result:
    return result(**{"versions": {**NOW, "SCORING": 4}, **changes})


@pytest.mark.parametrize(
    "changed", [(), ("bench/games",), ("bench/stats",), ("bench/core",), ("bench/core", "bench/games", "bench/stats")]
)
def test_a_newer_scoring_alone_is_computed_from_the_sheet(changed: tuple[str, ...]) -> None:
    assert only_scoring_is_new(old(), NOW, changed)
    assert only_scoring_is_new(old(versions={k: v for k, v in NOW.items() if k != "SCORING"}), NOW, changed)


@pytest.mark.parametrize(
    "changed",
    ["bench/assess", "bench/view", "bench/gamesmanship", "bench/games/sub", "attacks/mia.py", "torch", "games"],
)
def test_anything_else_that_changed_is_made_anew(changed: str) -> None:
    assert not only_scoring_is_new(old(), NOW, ("bench/games", changed))


@pytest.mark.parametrize(
    "versions",
    [
        NOW,  # the same scoring: a change of its sources is no reason to trust a sheet
        {**NOW, "SCORING": 6},  # a later one
        {**NOW, "SCORING": 4, "VIEWS": 2},
        {**NOW, "SCORING": 4, "attack/mia": 1},
        {**NOW, "SCORING": 4, "attack/more": 1},
        {"TRAINING": 1, "VIEWS": 3, "SCORING": 4},
        {},
    ],
)
def test_other_versions_than_an_older_scoring_are_made_anew(versions: dict[str, int]) -> None:
    assert not only_scoring_is_new(old(versions=versions), NOW, ())


def test_an_audit_is_made_anew() -> None:
    assert not only_scoring_is_new(old(audit={"epsilon": 1.0}), NOW, ())


def sheet(baseline: np.ndarray) -> membership.MembershipSheet:
    rng = np.random.default_rng(3)
    member = np.arange(60) % 2 == 0
    return membership.make_sheet(
        [f"r{k:02d}" for k in range(60)],
        ["silo-0"] * 60,
        list(range(60)),
        member,
        {"loss": rng.normal(size=60) + member, "zlib": rng.normal(size=60)},
        {"length": baseline},
    )


CHANCE = np.random.default_rng(4).normal(size=60)
BROKEN = np.where(np.arange(60) % 2 == 0, 1.0, 0.0) + CHANCE / 100  # tells members apart without a view


def test_figures_are_those_of_the_sheet_and_nothing_else_changes() -> None:
    one = old(note="kept", status="ok", scores_sha256="a" * 64)
    found = rescored(one, sheet(CHANCE).to_json())
    assert found.leakage == games.leakage(sheet(CHANCE)).leakage
    assert found.leakage != one.leakage
    assert {f.name for f in found.leakage} >= {"auc", "auc:loss", "auc:zlib", "tpr@10%"}
    assert found.model_copy(update={"leakage": one.leakage}) == one


@pytest.mark.parametrize(
    ("before", "baseline", "after"),
    [
        ("ok", CHANCE, "ok"),
        ("ok", BROKEN, "void"),
        ("void", CHANCE, "ok"),
        ("void", BROKEN, "void"),
        ("thinned", CHANCE, "thinned"),
        ("thinned", BROKEN, "void"),
    ],
)
def test_a_result_is_void_while_its_baseline_beats_chance(before: str, baseline: np.ndarray, after: str) -> None:
    assert rescored(old(status=before), sheet(baseline).to_json()).status == after


@pytest.mark.parametrize("text", ["", "{}", '{"format":"silobench-scores","version":1,"game":"chess"}'])
def test_a_malformed_sheet_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="silobench-scores"):
        rescored(old(), text)
