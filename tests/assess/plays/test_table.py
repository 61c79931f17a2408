"""What a game is played on: which module plays it, what an attack is lent, what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.assess.plays import membership, source
from bench.assess.plays.table import Assessment, Seat, ask, candidates, members_of, own, player, tools
from bench.core.adversaries import Assignment
from bench.core.streams import Streams
from bench.core.tokens import Tokens
from bench.corpus.planting import Planting

TRUTH = Planting("aaaaaaaa", {"silo-0": ("a", "b"), "silo-1": ("d",)}, {"silo-0": ("c",), "silo-1": ("e", "f")})
OTHER = Planting("bbbbbbbb", {"silo-0": ("c",), "silo-1": ("e", "f")}, {"silo-0": ("a", "b"), "silo-1": ("d",)})
VIEW: Any = SimpleNamespace(name="view")


class Materials:
    """Records a to h, whose first token is their place in the alphabet."""

    def __init__(self) -> None:
        self.streams = Streams(0)
        self.model = SimpleNamespace()
        self.pool = SimpleNamespace(population=("g", "h"))
        self.corpus = SimpleNamespace(task=SimpleNamespace(labels=["good", "bad"]))

    def tokens(self, ids: Sequence[str]) -> Tokens:
        numbers = np.array([[ord(i) - 97, 1] for i in ids], np.int32).reshape(-1, 2)
        n = len(numbers)
        return Tokens(numbers, np.full(n, 2, np.int32), np.tile([False, True], (n, 1)), np.full(n, -1, np.int32))

    def texts(self, ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"text {i}" for i in ids)

    def gold(self, ids: Sequence[str]) -> np.ndarray:
        return np.array([0 if i == "g" else -1 for i in ids])


@pytest.fixture
def table() -> Any:
    run = SimpleNamespace(planting=TRUTH)
    return SimpleNamespace(run=run, materials=Materials(), memo=SimpleNamespace(), released={})


def seat(*coalition: str, victims: tuple[str, ...] = ("silo-1",), number: int = 0, shadows: Any = ()) -> Seat:
    return Seat(number, Assignment(frozenset(coalition), victims), VIEW, shadows)


def test_a_game_is_played_by_the_module_of_its_name() -> None:
    assert player("membership") is membership.play
    assert player("source") is source.play
    with pytest.raises(ModuleNotFoundError, match="chess"):
        player("chess")


def test_an_assessment_says_nothing_that_was_not_found() -> None:
    found = Assessment("ok")
    assert (found.reads, found.leakage, found.sheet, found.note, found.details, found.audit) == (
        *((), (), None),
        *("", None, None),
    )
    assert found.cost == {}


@pytest.mark.parametrize(
    ("ids", "member"), [("abcdef", [1, 1, 0, 1, 0, 0]), ("fa", [0, 1]), ("", []), ("gh", [0, 0]), ("aa", [1, 1])]
)
def test_members_are_those_of_any_silo_in_the_order_asked(ids: str, member: list[int]) -> None:
    found = members_of(TRUTH, list(ids))
    assert found.tolist() == [bool(m) for m in member]
    assert found.dtype == np.bool_


def test_a_coalition_s_own_candidates_are_those_of_its_silos(table: Any) -> None:
    held = own(table, frozenset({"server", "silo-0", "silo-1", "silo-7"}))
    assert held is not None
    assert held.silos == ("silo-0",) * 3 + ("silo-1",) * 3
    assert held.texts == tuple(f"text {i}" for i in "abcdef")
    assert held.member.tolist() == [True, True, False, True, False, False]
    np.testing.assert_array_equal(held.tokens.ids[:, 0], range(6))


@pytest.mark.parametrize("coalition", [(), ("server",), ("silo-7",), ("dealer",)])
def test_a_coalition_without_silos_has_none_of_its_own(table: Any, coalition: tuple[str, ...]) -> None:
    assert own(table, frozenset(coalition)) is None


def test_victims_candidates_are_asked_about_shuffled_under_names_that_say_nothing(table: Any) -> None:
    asked = ask(table, seat(victims=("silo-0", "silo-1")))
    assert sorted(asked.candidates) == list("abcdef")
    assert asked.opaque == ("c0", "c1", "c2", "c3", "c4", "c5")
    assert [("silo-0" if i in "abc" else "silo-1") for i in asked.candidates] == list(asked.silos)
    seen = candidates(table, asked)
    assert (seen.ids, seen.silos) == (asked.opaque, asked.silos)
    assert seen.texts == tuple(f"text {i}" for i in asked.candidates)
    np.testing.assert_array_equal(seen.tokens.ids[:, 0], [ord(i) - 97 for i in asked.candidates])


def test_every_seat_is_asked_in_an_order_of_its_own_that_follows_from_the_seed(table: Any) -> None:
    both = ("silo-0", "silo-1")
    orders = [ask(table, seat(victims=both, number=number)).candidates for number in range(8)]
    assert len(set(orders)) > 1
    assert orders == [ask(table, seat(victims=both, number=number)).candidates for number in range(8)]
    assert sorted(ask(table, seat(victims=("silo-1",))).candidates) == list("def")


def test_an_attack_is_lent_what_its_seat_knows(table: Any) -> None:
    lent = tools(table, "mia", "silo", seat("silo-0", number=3))
    assert lent.own is not None
    assert set(lent.own.silos) == {"silo-0"}
    assert lent.labels == ("good", "bad")
    assert lent.population_labels.tolist() == [0, -1]
    assert lent.population_texts == ("text g", "text h")
    assert lent.shadows == ()
    same = Streams(0).generator("attack/mia/silo", 3)
    assert lent.rng.random() == same.random()
    others = [("mia", "server", 3), ("lira", "silo", 3), ("mia", "silo", 2)]
    drawn = {tools(table, name, who, seat(number=number)).rng.random() for name, who, number in others}
    assert len(drawn | {Streams(0).generator("attack/mia/silo", 3).random()}) == 4


def test_a_shadow_s_members_stand_in_the_order_of_the_candidates(table: Any) -> None:
    shadows = ((SimpleNamespace(name="one"), OTHER), (SimpleNamespace(name="two"), TRUTH))
    lent = tools(table, "mia", "server", seat("server", shadows=shadows), list("fad"))
    assert [shadow.view.name for shadow in lent.shadows] == ["one", "two"]  # type: ignore[attr-defined]
    assert [shadow.member.tolist() for shadow in lent.shadows] == [[True, False, False], [False, True, True]]
