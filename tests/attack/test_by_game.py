"""One class of attacks per game: what each is asked, and what is said where it can't be."""

from __future__ import annotations

from typing import Any

import pytest

import bench
from bench.attack.attack import Attack
from bench.attack.by_game import QUESTION, ReconstructionAttack, question
from bench.core.errors import UsageError
from bench.games.catalog import GAMES

CLASSES = {name: getattr(bench, f"{name.capitalize()}Attack") for name in GAMES}


def test_every_game_has_a_class_and_a_question() -> None:
    assert set(QUESTION) == set(GAMES) == {kind.game for kind in CLASSES.values()}
    for name, kind in CLASSES.items():
        assert kind.__abstractmethods__ == {QUESTION[name]}
        with pytest.raises(TypeError, match="abstract"):
            kind()


@pytest.mark.parametrize("game", sorted(GAMES))
def test_an_attack_of_a_game_is_asked_by_its_method(game: str) -> None:
    asked: Any = lambda self, *args: args  # noqa: E731
    for base, more in ((CLASSES[game], {}), (Attack, {"game": game})):
        made = type("Made", (base,), {QUESTION[game]: asked, "needs": frozenset({"adapter"}), **more})()
        assert question(made) == QUESTION[game]


def test_an_attack_that_lacks_what_its_game_asks_is_refused() -> None:
    class Silent(Attack):
        game = "source"

    class Other(Attack):
        game = "chess"

    class Nameless(Attack):
        pass

    with pytest.raises(UsageError, match=r"^Silent plays the source game and has no method 'attribute', which"):
        question(Silent())
    with pytest.raises(UsageError, match=r"^Other plays the game 'chess'; the games are membership, audit, "):
        question(Other())
    with pytest.raises(UsageError, match=r"^Nameless plays the game ''; the games are"):
        question(Nameless())


def test_a_reconstruction_is_of_the_first_round_unless_it_says_more() -> None:
    assert ReconstructionAttack.rounds == (0,)
