"""Every defense, asked by ``mia``, answers what was recorded; those that are asked by every attack have a file of their
own, as a worker takes whole files."""

from __future__ import annotations

import pytest

from tests.golden.cells import answers
from tests.golden.checks import PLUGINS, assert_recorded, recorded
from tests.golden.settings import FULL, built_in


@pytest.mark.parametrize("defense", [d for d in built_in(PLUGINS, "defense") if d not in FULL])
def test_a_defense_answers_what_was_recorded(defense: str) -> None:
    for key, fresh in answers(PLUGINS, defense).items():
        assert_recorded(defense, key, fresh)


def test_a_key_that_is_missing_says_how_it_comes_to_be() -> None:
    with pytest.raises(AssertionError, match=r"python -m tests\.golden\.record"):
        recorded("clinical-notes@1--fedavg@1--mia@2--T1-V1-S1")
