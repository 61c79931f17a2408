"""Names of parties: what a silo is called, and what is none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.adversaries import assignments
from bench.core.parties import DEALER, HOLDS, PUBLIC, SERVER, is_silo, silo, silo_index


def test_the_names_that_stand_in_messages() -> None:
    assert (SERVER, DEALER, PUBLIC) == ("server", "dealer", "public")
    assert [silo(index) for index in (0, 1, 10)] == ["silo-0", "silo-1", "silo-10"]


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_a_silo_s_index_is_read_from_its_name(index: int) -> None:
    assert is_silo(silo(index))
    assert silo_index(silo(index)) == index


@pytest.mark.parametrize(
    "party",
    [
        *("", SERVER, DEALER, PUBLIC, "silo", "silo-", "silo-x", "silo--1", "silo-1-2", "silo-1 ", "Silo-1", "1"),
        # another name of a silo that has one
        *("silo-007", "silo-00", "silo-\u00b2", "silo-\u0663", "silo-1\n", "silo-+1", "silo-1_0", "silo-" + "9" * 5000),
    ],
)
def test_any_other_party_is_no_silo(party: str) -> None:
    assert not is_silo(party)
    with pytest.raises(ValueError, match=rf"^'{re.escape(party)}' is no silo$"):
        silo_index(party)


def test_every_adversary_says_what_it_holds() -> None:
    assert all(says and assignments(name, (silo(0), silo(1))) for name, says in HOLDS.items())
    assert list(HOLDS) == ["user", "outsider", "silo", "server", "server+silo", "all-but-one"]
