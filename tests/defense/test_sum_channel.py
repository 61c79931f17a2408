"""Channels of one upload and one sum: what travels, what its parties refuse, and what a coalition reads."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError
from bench.core.parties import DEALER, SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Update
from bench.defense.channel import Desk, Stage
from bench.defense.sum_channel import SumChannel, as_bytes, pack_keys, summed_silos, unpack_keys
from tests.defense.shifted import HEADER, LAYOUT, SILOS, SUMMANDS, Shifted, names, sent
from tests.defenses.exchange import Run, Sent, one_round, public


def party(me: str, channel: SumChannel | None = None, state: Any = None) -> Any:
    held = {"keys/shift": np.array([5], np.uint8)} if state is None else state
    return (channel or Shifted()).endpoint(Desk(me, public(LAYOUT, 2), held, SecretStreams(me)))


# -- a round -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dealt", "opener", "stages"),
    [
        (False, "server", ["upload", "sum"]),
        (True, "server", ["keys", "upload", "sum"]),
        (False, "silos", ["upload", "sum", "open"]),
        (True, "silos", ["keys", "upload", "sum", "open"]),
    ],
)
def test_stages_follow_who_opens_and_whether_keys_are_dealt(dealt: bool, opener: str, stages: list[str]) -> None:
    channel = Shifted(opener)
    channel.dealt = dealt
    actors = {"keys": "dealer", "upload": "silos", "sum": "server", "open": "silos"}
    assert channel.stages() == tuple(Stage(name, actors[name], name == "keys") for name in stages)  # type: ignore[arg-type]


@pytest.mark.parametrize("opener", ["server", "silos"])
def test_who_opens_learns_the_sum(opener: str) -> None:
    run = one_round(Shifted(opener), LAYOUT, SUMMANDS)
    assert set(run.opened) == ({SERVER} if opener == "server" else set(SILOS))
    for values in run.opened.values():
        assert values.tolist() == [11, 22, 33, 44]


def test_what_travels_by_hand() -> None:
    run = one_round(Shifted("silos"), LAYOUT, SUMMANDS)
    keys, first, second, total = run.messages
    assert (keys.round, keys.sender, keys.receivers) == (-1, DEALER, (*SILOS, SERVER))
    assert keys.content == (b'["shift"]', b"\5")
    assert (first.sender, first.receivers) == ("silo-0", (SERVER,))
    assert first.content == (HEADER, np.array([6.0, 7]).tobytes(), np.array([8.0, 9]).tobytes())
    assert second.content[1] == np.array([15.0, 25]).tobytes()
    assert (total.sender, total.receivers) == (SERVER, SILOS)
    shifted = (np.array([21.0, 32]).tobytes(), np.array([43.0, 54]).tobytes())
    assert total.content == (b'["silo-0", "silo-1"]', HEADER, *shifted)


def test_the_server_opens_the_sum_of_its_round_with_its_keys_alone() -> None:
    server = party(SERVER, state={"keys/shift": np.array([5], np.uint8), "memo/shift": np.array([9], np.uint8)})
    frames = (np.array([6.0, 7]).tobytes(), np.array([8.0, 9]).tobytes())
    assert list(server.step("sum", 2, [sent("upload", "silo-1", HEADER, *frames, round=2)])) == []
    ((round, opened),) = server.opened()
    assert (round, opened.silos, opened.values.tolist()) == (2, ("silo-1",), [1, 2, 3, 4])


def test_a_support_s_sum_is_spread_over_the_layout() -> None:
    on = np.array([0, 2])
    updates = [Update(np.array(v, np.float32), LAYOUT, support=on) for v in ([1, 2], [10, 20])]
    for opener in ("server", "silos"):
        run = one_round(Shifted(opener), LAYOUT, updates, on)
        assert all(values.tolist() == [11, 0, 22, 0] for values in run.opened.values())


def test_frames_are_summed_one_at_a_time_as_they_are_asked_for() -> None:
    read: list[tuple[str, int]] = []

    class Watched(Sent):
        def frame(self, index: int) -> bytes:
            read.append((self.sender, index))
            return super().frame(index)

    frame = np.zeros(2).tobytes()
    uploads = [Watched(0, "upload", name, (SERVER,), (HEADER, frame, frame)) for name in SILOS]
    (out,) = party(SERVER, Shifted("silos")).step("sum", 0, uploads)
    read.clear()
    frames = iter(out.frames)
    assert [next(frames), next(frames)] == [names(*SILOS), HEADER]
    assert read == []
    next(frames)
    assert read == [("silo-0", 1), ("silo-1", 1)]


# -- keys ----------------------------------------------------------------------------------------------------------


def test_keys_reach_their_receivers_and_the_dealer_keeps_each_content_once() -> None:
    silo_keys, server_keys = {"shift": b"\5", "own": b""}, {"shift": b"\5"}
    channel = Shifted(keys={"silo-0": silo_keys, SERVER: server_keys, "silo-1": silo_keys})
    run: Run = one_round(channel, LAYOUT, SUMMANDS)
    assert [(m.receivers, m.content[0]) for m in run.messages if m.stage == "keys"] == [
        (SILOS, b'["shift", "own"]'),
        ((SERVER,), b'["shift"]'),
    ]
    assert as_bytes(run.states["silo-1"]) == {"keys/shift": b"\5", "keys/own": b""}
    assert as_bytes(run.states[SERVER]) == {"keys/shift": b"\5"}
    assert as_bytes(run.states[DEALER]) == {
        "keys/group-0/shift": b"\5",
        "keys/group-0/own": b"",
        "keys/group-1/shift": b"\5",
    }


KEYS = st.dictionaries(
    st.from_regex(r"[a-z0-9-]*[a-z0-9][a-z0-9-]*", fullmatch=True), st.binary(max_size=5), max_size=4
)


@given(KEYS)
@settings(max_examples=40, deadline=None)
def test_keys_come_out_as_they_were_packed(keys: dict[str, bytes]) -> None:
    assert unpack_keys(sent("keys", DEALER, *pack_keys(keys))) == keys


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ((), "is malformed"),
        ((b"",), "is malformed"),
        ((b"\xff",), "is malformed"),
        ((b"[" * 100_000,), "is malformed"),
        ((b'{"a": 1}', b"k"), "does not name its 1 keys"),
        ((b'["a"]',), "does not name its 0 keys"),
        ((b'["a"]', b"k", b"k"), "does not name its 2 keys"),
        ((b"[1]", b"k"), "does not name its 1 keys"),
        *(((json.dumps([name]).encode(), b"k"), "holds a key with a bad name") for name in ("", "../a", "a b", "-")),
        ((json.dumps(["a" * 101]).encode(), b"k"), "holds a key with a bad name"),
    ],
)
def test_a_hostile_key_message_is_refused_with_its_sender(frames: tuple[bytes, ...], says: str) -> None:
    with pytest.raises(SiloBenchError, match=rf"^the key message of dealer {says}"):
        unpack_keys(sent("keys", DEALER, *frames))


def test_a_key_s_name_may_have_100_characters() -> None:
    assert unpack_keys(sent("keys", DEALER, json.dumps(["a" * 100]).encode(), b"k")) == {"a" * 100: b"k"}


# -- what is refused -----------------------------------------------------------------------------------------------

FRAME = np.zeros(2).tobytes()
GRIDDED = json.dumps({"values": 4, "bits": 8, "clip": 1.0}).encode()


@pytest.mark.parametrize(
    ("uploads", "says"),
    [
        ([("silo-0", HEADER, FRAME), ("silo-0", HEADER, FRAME)], "a silo uploaded twice in round 0"),
        (
            [("silo-0", HEADER), ("silo-1", GRIDDED)],
            "uploads of round 0 have different headers: not all are of one form",
        ),
        ([("silo-0",)], "the 'upload' message of silo-0 has no frame 0"),
        (
            [("silo-0", HEADER, FRAME), ("silo-1", HEADER, FRAME, FRAME)],
            r"uploads of one round have different numbers of frames: \[2, 3\]",
        ),
        ([("silo-0", b"{}", FRAME)], "a message's header is malformed: 'values'"),
    ],
)
def test_uploads_that_can_t_be_summed_are_refused(uploads: list[Any], says: str) -> None:
    inbox = [sent("upload", *upload) for upload in uploads]
    with pytest.raises(SiloBenchError, match=rf"^{says}$"):
        list(party(SERVER).step("sum", 0, inbox))


def test_a_server_without_uploads_of_the_round_sends_and_opens_nothing() -> None:
    server = party(SERVER, Shifted("silos"))
    late = sent("upload", "silo-0", HEADER, FRAME, FRAME, round=0)
    assert list(server.step("sum", 1, [late])) == []
    assert list(server.opened()) == []


def test_a_silo_that_holds_no_summand_uploads_nothing() -> None:
    assert list(party("silo-0").step("upload", 0, [])) == []


def test_who_can_t_open_the_sum_says_so_with_the_round() -> None:
    server = party(SERVER, state={})
    with pytest.raises(SiloBenchError, match=r"^the server can't open the sum of round 0: no key$"):
        list(server.step("sum", 0, [sent("upload", "silo-0", HEADER, FRAME, FRAME)]))
    silo = party("silo-1", state={})
    list(silo.step("open", 0, [sent("sum", SERVER, names("silo-0"), HEADER, FRAME, FRAME)]))
    with pytest.raises(SiloBenchError, match=r"^silo-1 can't open the sum of round 0: no key$"):
        list(silo.opened())


def test_sums_that_waited_are_opened_oldest_first_each_when_it_is_asked_for() -> None:
    silo = party("silo-1", Shifted("silos"))
    asked: list[int] = []
    silo.supports = asked.append
    later, earlier = (
        sent("sum", SERVER, names("silo-0"), HEADER, np.full(2, r + 5.0).tobytes(), np.full(2, 5.0).tobytes(), round=r)
        for r in (3, 1)
    )
    list(silo.step("open", 3, [later, sent("keys", DEALER, b"[]", round=-1), earlier]))
    sums = iter(silo.opened())
    assert asked == []
    round, first = next(sums)
    assert (round, first.silos, first.values.tolist()) == (1, ("silo-0",), [1, 1, 0, 0])
    assert asked == [1]
    assert [(r, s.values.tolist()) for r, s in sums] == [(3, [3, 3, 0, 0])]


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ((), "has no readable header"),
        ((b"{",), "has no readable header"),
        ((b"[" * 100_000,), "has no readable header"),
        ((b"{}",), "names silos that do not exist"),
        ((b"[]",), "names silos that do not exist"),
        ((b'["silo-0", "silo-2"]',), "names silos that do not exist"),
        ((b'["silo-0", ["silo-1"]]',), "names silos that do not exist"),
        ((b'["silo-0", "silo-0"]',), "names a silo twice"),
    ],
)
def test_a_sum_over_no_set_of_silos_is_refused_with_its_round(frames: tuple[bytes, ...], says: str) -> None:
    with pytest.raises(SiloBenchError, match=rf"^the sum of round 7 {says}"):
        summed_silos(sent("sum", SERVER, *frames, round=7), public(LAYOUT, 2))


def test_a_sum_is_over_whom_it_names_in_that_order() -> None:
    assert summed_silos(sent("sum", SERVER, names("silo-1", "silo-0")), public(LAYOUT, 2)) == ("silo-1", "silo-0")
