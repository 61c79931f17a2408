"""Bytes of a run by hand: who sent them, and once per receiver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.transcript.traffic import traffic
from bench.transcript.transcript import Frame, StoredMessage

SILOS = ("silo-0", "silo-1")


def message(round: int, stage: str, sender: str, receivers: tuple[str, ...], *lengths: int) -> StoredMessage:
    index = tuple(Frame(0, length, "") for length in lengths)
    return StoredMessage(round, stage, sender, receivers, index, Path("nowhere"))


MESSAGES = [
    message(-1, "keys", "dealer", (*SILOS, "server"), 6, 4),
    message(0, "broadcast", "server", SILOS, 100),
    message(0, "upload", "silo-0", ("server",), 7, 5),
    message(0, "upload", "silo-1", ("server",), 20),
    message(1, "broadcast", "server", ("silo-1",), 100),
    message(1, "share", "silo-0", ("silo-1",), 3),
    message(1, "release", "server", (*SILOS, "public"), 50),
]


def test_bytes_by_hand() -> None:
    assert traffic(MESSAGES, 2, 2) == {
        "up_bytes": {"share": 3, "upload": 7 + 5 + 20},
        "down_bytes": {"broadcast": 2 * 100 + 100, "release": 2 * 50, "share": 3},
        "setup_bytes": 3 * 10,
        "released_bytes": 50,
        "up_per_silo_round": 35 / 4,
        "down_per_silo_round": 403 / 4,
    }


def test_where_there_are_no_rounds_nothing_is_divided_by_0() -> None:
    assert traffic([], 3, 0) == traffic([], 3, 2)


def test_stages_stand_in_the_order_of_their_names_whatever_was_sent_first() -> None:
    for messages in (MESSAGES, MESSAGES[::-1]):
        found = traffic(messages, 2, 2)
        assert list(found["up_bytes"]) == ["share", "upload"]
        assert list(found["down_bytes"]) == ["broadcast", "release", "share"]
    assert found == traffic(MESSAGES, 2, 2)


def test_where_nothing_was_sent_all_is_0() -> None:
    numbers = ("setup_bytes", "released_bytes", "up_per_silo_round", "down_per_silo_round")
    assert traffic([], 3, 2) == {"up_bytes": {}, "down_bytes": {}, **dict.fromkeys(numbers, 0)}


@pytest.mark.parametrize(
    ("one", "changed"),
    [
        # in set-up a silo's own message counts there alone, as a released one does there and as released
        (message(-1, "records", "silo-0", ("server",), 9), {"setup_bytes": 9}),
        (message(-1, "hello", "server", ("public",), 9), {"setup_bytes": 9, "released_bytes": 9}),
        # what the server alone hears of the dealer is neither up nor down
        (message(0, "keys", "dealer", ("server",), 9), {}),
        (message(0, "release", "server", ("public",), 9), {"released_bytes": 9}),
        (message(0, "empty", "silo-0", ("server",)), {"up_bytes": {"empty": 0}}),
    ],
)
def test_a_message_counts_where_it_belongs_only(one: StoredMessage, changed: dict[str, Any]) -> None:
    assert traffic([one], 1, 1) == {**traffic([], 1, 1), **changed}


PARTIES = st.sampled_from([*SILOS, "server", "dealer"])
ANY = st.builds(
    message,
    st.integers(-1, 2),
    st.sampled_from("abc"),
    PARTIES,
    st.lists(PARTIES, unique=True, max_size=4).map(tuple),
    st.integers(0, 9),
)


@given(st.lists(ANY, max_size=6), st.lists(ANY, max_size=6))
@settings(max_examples=30, deadline=None)
def test_bytes_of_two_parts_of_a_run_add_up(one: list[StoredMessage], other: list[StoredMessage]) -> None:
    parts, whole = [traffic(one, 1, 1), traffic(other, 1, 1)], traffic(one + other, 1, 1)
    for key in ("setup_bytes", "released_bytes", "up_per_silo_round", "down_per_silo_round"):
        assert whole[key] == parts[0][key] + parts[1][key]
    for key in ("up_bytes", "down_bytes"):
        assert whole[key] == {
            stage: parts[0][key].get(stage, 0) + parts[1][key].get(stage, 0)
            for stage in {*parts[0][key], *parts[1][key]}
        }
