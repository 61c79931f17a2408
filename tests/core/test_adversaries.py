"""Who attacks whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.adversaries import Assignment, assignments
from bench.core.errors import UsageError
from bench.core.parties import is_silo, silo
from bench.spec.run import ADVERSARIES

THREE = ("silo-0", "silo-1", "silo-2")


def test_user_outsider_and_server_face_every_silo_once() -> None:
    assert assignments("user", THREE) == (Assignment(frozenset(), THREE),)
    assert assignments("outsider", THREE) == (Assignment(frozenset(), THREE),)
    assert assignments("server", THREE) == (Assignment(frozenset({"server"}), THREE),)


def test_silos_rotate_and_each_faces_the_next() -> None:
    assert assignments("silo", THREE) == (
        Assignment(frozenset({"silo-0"}), ("silo-1",)),
        Assignment(frozenset({"silo-1"}), ("silo-2",)),
        Assignment(frozenset({"silo-2"}), ("silo-0",)),
    )


def test_server_joins_the_rotating_silo() -> None:
    with_server = assignments("server+silo", THREE)
    assert [a.victims for a in with_server] == [a.victims for a in assignments("silo", THREE)]
    assert with_server[1].coalition == {"server", "silo-1"}


def test_all_but_one_leaves_exactly_the_victim_out() -> None:
    played = assignments("all-but-one", THREE)
    assert [a.victims for a in played] == [("silo-0",), ("silo-1",), ("silo-2",)]
    assert played[2].coalition == {"server", "silo-0", "silo-1"}


def test_a_silo_alone_has_no_victim() -> None:
    alone = ("silo-0",)
    assert assignments("silo", alone) == ()
    assert assignments("server+silo", alone) == ()
    assert assignments("all-but-one", alone) == (Assignment(frozenset({"server"}), alone),)


def test_an_unknown_adversary_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no adversary 'sever'\. Did you mean 'server'"):
        assignments("sever", THREE)


@given(st.sampled_from(ADVERSARIES), st.integers(1, 12))
def test_nobody_is_asked_about_records_that_it_holds_and_every_silo_is_a_victim_as_often(name: str, count: int) -> None:
    silos = tuple(silo(i) for i in range(count))
    played = assignments(name, silos)
    for assignment in played:
        assert assignment.victims
        assert not assignment.coalition & set(assignment.victims)
        assert all(is_silo(party) or party == "server" for party in assignment.coalition)
    if played:
        asked = [victim for a in played for victim in a.victims]
        assert sorted(asked) == sorted(silos)
