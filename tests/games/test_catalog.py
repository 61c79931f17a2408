"""One table of games: every figure that speaks for a game is that game's own."""

from __future__ import annotations

import pytest

from bench.assess.plays.table import player
from bench.board.words import game
from bench.games.catalog import GAMES
from bench.plugins.find import Plugins
from bench.spec.result import Leakage
from tests.results_factory import result


def test_headlines_tell_games_apart() -> None:
    assert len({one.headline for one in GAMES.values()}) == len(GAMES)


@pytest.mark.parametrize("name", GAMES)
def test_a_result_s_figures_say_which_game_it_is_of(name: str) -> None:
    headline = GAMES[name].headline
    one = result(attack="anything", leakage=(Leakage(name=headline, value=0.7),))
    assert game(one) == name


@pytest.mark.parametrize("name", GAMES)
def test_a_game_can_be_played_and_its_sheets_be_read(name: str) -> None:
    assert callable(player(name))
    assert callable(GAMES[name].scorer())
    assert hasattr(GAMES[name].sheet_class(), "from_json")


def test_every_game_has_an_attack() -> None:
    plugins = Plugins()
    assert {plugins.find("attack", n).build().game for n in plugins.names("attack")} == set(GAMES)
