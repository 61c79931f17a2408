"""Adversaries that read the same of a silo share the attack's work on it, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attacks import gradient_matching, inversion, learned_inversion
from attacks.rowspace.observe import Observed
from attacks.rowspace.uploads import OnUploads
from bench.assess.tools import Memo
from tests.grounds import ground as trained

ATTACKS: list[Any] = [
    inversion.build(inversion.Config()),
    learned_inversion.build(learned_inversion.Config(simulations=2, steps=1)),
    gradient_matching.build(gradient_matching.Config(budget=40)),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_a_target_is_worked_on_once_for_all_adversaries_that_read_it(
    attack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked: list[str] = []
    made = type(attack).solver

    def counting(self: Any, session: Any, view: Any) -> Any:
        solve = made(self, session, view)
        return lambda target, seen, beside: worked.append(target.silo) or solve(target, seen, beside)

    monkeypatch.setattr(type(attack), "solver", counting)
    ground = trained("reconstruction")
    found = {name: ground.assess("a", attack, name) for name in ("server", "all-but-one")}
    assert sorted(worked) == ["silo-0", "silo-1", "silo-2", "silo-3"]
    alone = replace(ground, memo=Memo()).assess("a", attack, "all-but-one")
    assert len(worked) == 8
    assert found["all-but-one"].leakage == alone.leakage, "sharing changes no figure"


def test_whatever_is_observed_is_part_of_the_question() -> None:
    first = Observed(np.ones(3, np.float32), np.ones(3), np.ones(3, bool), 0.0, "upload of silo-0, round 0")
    others = [
        replace(first, before=np.zeros(3, np.float32)),
        replace(first, change=np.array([1, 1, 1 + 1e-15])),
        replace(first, known=np.array([True, True, False])),
        replace(first, deviation=1e-9),
        replace(first, reads="part of the upload of silo-0, round 0"),
        replace(first, signs=True),
    ]
    assert len({one.digest() for one in (first, *others)}) == 7


def test_options_and_targets_are_part_of_the_question() -> None:
    asked: list[Any] = []

    class Noting:
        def once(self, key: Any, make: Any) -> Any:
            asked.append(key)
            return make()

    seen = Observed(np.ones(3, np.float32), np.ones(3), np.ones(3, bool), 0.0, "upload")
    for attack in (ATTACKS[0], ATTACKS[2], gradient_matching.build(gradient_matching.Config(budget=41))):
        for target in ("a", "b"):
            tools: Any = Noting()
            OnUploads._once(attack, lambda: lambda *_: None, tools, target, [seen])  # type: ignore[arg-type, return-value]
    assert len(set(asked)) == 6
