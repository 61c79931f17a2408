"""Every attack under ``fedavg`` and ``fedshield`` answers what was recorded, from one ordinary training for all."""

from __future__ import annotations

from functools import cache

import pytest

from tests.golden.cells import Answer, answers
from tests.golden.checks import PLUGINS, assert_recorded
from tests.golden.settings import FULL, attacks_on, keys

#: the first test of a defense computes all of its answers
pytestmark = pytest.mark.timeout(900)
ASKED = [(defense, attack) for defense in FULL for attack in ("", *attacks_on(PLUGINS, defense))]


@cache
def computed(defense: str) -> dict[str, Answer]:
    return answers(PLUGINS, defense)


@pytest.mark.parametrize(("defense", "attack"), ASKED, ids=[f"{d}-{a or 'run'}" for d, a in ASKED])
def test_an_attack_answers_what_was_recorded(defense: str, attack: str) -> None:
    key = keys(PLUGINS, defense, attacks_on(PLUGINS, defense))[attack]
    assert_recorded(defense, key, computed(defense)[key])
