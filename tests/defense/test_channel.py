"""The interface of a channel: what a party does that says nothing, and what a channel is that says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams
from bench.core.update import Layout, Update
from bench.defense.channel import (
    MAX_FRAME,
    Candidate,
    Channel,
    Desk,
    Endpoint,
    Knowledge,
    Message,
    Opened,
    Outgoing,
    Stage,
)
from bench.defense.public import Public, alike

LAYOUT = Layout(("a",), ((3,),))
PUBLIC = Public(alike(LAYOUT), ("silo-0",), {"silo-0": 1}, 1, (("silo-0",),))


class Silent(Endpoint):
    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        return ()


class Nothing(Channel):
    def stages(self) -> tuple[Stage, ...]:
        return ()

    def endpoint(self, desk: Desk) -> Endpoint:
        return Silent()

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        return ()


def test_a_frame_holds_64_mebibytes_at_most() -> None:
    assert MAX_FRAME == 67_108_864


def test_a_party_that_says_nothing_opens_and_hands_over_nothing() -> None:
    party = Silent()
    assert list(party.opened()) == []
    assert dict(party.handed()) == {}
    with pytest.raises(SiloBenchError, match=r"^Silent takes no contribution$"):
        party.contribute(0, Update(np.zeros(3, np.float32), LAYOUT))


def test_a_desk_without_more_is_of_dense_rounds_and_no_records() -> None:
    desk = Desk("silo-0", PUBLIC, {}, SecretStreams("silo-0"))
    assert desk.supports(0) is None
    with pytest.raises(SiloBenchError, match=r"^this party holds no records$"):
        desk.records()


def test_an_endpoint_of_former_times_is_told_what_it_is_handed_now() -> None:
    former: Any = lambda self, me, public, state, secret: Silent()  # noqa: E731
    with pytest.raises(UsageError, match=r"^Old.endpoint is handed one bench\.Desk now, .* write 'def endpoint"):
        type("Old", (Nothing,), {"endpoint": former})


def test_a_channel_that_says_nothing_is_exact_takes_real_values_and_the_server_opens() -> None:
    channel = Nothing()
    assert (channel.opener, channel.accepts) == ("server", frozenset({"real"}))
    assert (channel.error, channel.fewest, channel.bytes_per_value) == (0.0, 1, 4.0)
    assert channel.quantiser is None


@pytest.mark.parametrize(("kind", "missing"), [(Channel, {"stages", "endpoint", "read"}), (Endpoint, {"step"})])
def test_what_a_channel_and_a_party_must_do_themselves(kind: Any, missing: set[str]) -> None:
    assert kind.__abstractmethods__ == missing
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_what_travels_and_what_is_found_cannot_be_changed() -> None:
    found = [
        (Outgoing(("server",), ()), "receivers"),
        (Stage("upload", "silos"), "name"),
        (Opened(np.zeros(3), ("silo-0",)), "silos"),
        (Candidate(0, frozenset({"silo-0"}), np.zeros(3), "told"), "how"),
    ]
    for one, name in found:
        with pytest.raises(FrozenInstanceError):
            setattr(one, name, "changed")


def test_a_stage_is_of_a_round_and_a_guess_at_the_whole_layout_unless_they_say_otherwise() -> None:
    assert not Stage("upload", "silos").setup
    assert Candidate(0, frozenset({"silo-0"}), np.zeros(3), "told").support is None


def test_what_two_coalitions_hold_is_not_shared() -> None:
    one, other = (Knowledge(frozenset({"server"}), PUBLIC, (), {}, {}) for _ in range(2))
    assert one.supports == other.supports == {}
    assert one.supports is not other.supports
