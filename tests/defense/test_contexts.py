"""What parts know while they act: named, unchangeable, and their own party's secrets only where they need them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest

from bench.core.streams import SecretStreams
from bench.core.update import Layout
from bench.defense.contexts import OpenContext, RoundContext, TransformContext
from bench.defense.public import Public, alike

LAYOUT = Layout(("a",), ((3,),))
ROUND: dict[str, Any] = {
    "public": Public(alike(LAYOUT), ("silo-0",), {"silo-0": 1}, 7, (("silo-0",),) * 7),
    "round": 2,
    "global_adapter": np.zeros(3, np.float32),
    "lr": 0.1,
    "steps": 4,
}
SECRET = SecretStreams("silo-0", 1)


def test_how_many_rounds_there_are_is_what_is_public() -> None:
    context = RoundContext(**ROUND)
    assert (context.round, context.rounds) == (2, 7)
    assert context.reach is None


def test_every_field_is_given_by_its_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        RoundContext(*ROUND.values())  # type: ignore[misc]
    with pytest.raises(TypeError, match="'steps'"):
        RoundContext(**{k: v for k, v in ROUND.items() if k != "steps"})


def test_a_context_cannot_be_changed_and_a_silo_s_memory_can() -> None:
    state: dict[str, Any] = {}
    context = TransformContext(**ROUND, secret=SECRET, state=state)
    with pytest.raises(FrozenInstanceError):
        context.round = 3  # type: ignore[misc]
    context.state["owed"] = np.ones(3)
    assert list(state) == ["owed"]
    assert context.rounds == 7


def test_only_who_acts_for_a_party_holds_secrets() -> None:
    def names(kind: type[RoundContext]) -> set[str]:
        return {field.name for field in fields(kind)}

    public = names(RoundContext)
    assert public == {*ROUND, "reach"}
    assert names(TransformContext) - public == {"secret", "state"}
    assert names(OpenContext) - public == {"secret", "support"}
    assert issubclass(TransformContext, RoundContext)
    assert issubclass(OpenContext, RoundContext)


def test_a_support_is_worked_out_only_when_it_is_asked_for() -> None:
    asked = []

    def support() -> Any:
        asked.append(1)
        return np.array([0, 2])

    context = OpenContext(**ROUND, secret=SECRET, support=support)
    assert asked == []
    assert context.support().tolist() == [0, 2]  # type: ignore[union-attr]
    assert asked == [1]
