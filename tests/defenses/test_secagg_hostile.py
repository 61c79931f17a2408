"""Secure aggregation against messages that were altered, cut, repeated, moved or made up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER
from defenses.channels.secagg import primitives, wire
from defenses.channels.secagg.channel import SecureAggregation
from defenses.channels.secagg.policy import Policy
from defenses.channels.secagg.session import Roster
from tests.defenses.exchange import Sent
from tests.defenses.secagg_play import Play, drawn, flipped, names

CURIOUS, ACTIVE = SecureAggregation(), SecureAggregation(Policy("active"))
BOTH = pytest.mark.parametrize("channel", [CURIOUS, ACTIVE], ids=["curious", "active"])


@BOTH
def test_a_changed_bit_anywhere_is_refused(channel: SecureAggregation) -> None:
    updates, rng = drawn(4, size=20), np.random.default_rng(1)
    honest = Play(channel, updates).run()
    for position, message in enumerate(honest.messages):
        for _ in range(2):
            frame = int(rng.integers(len(message.content)))
            bit = int(rng.integers(8 * len(message.content[frame])))
            target = message.receivers[int(rng.integers(len(message.receivers)))]
            seen: list[Sent] = []

            def alter(sent: Sent, to: str, at=position, frame=frame, bit=bit, target=target, seen=seen) -> list[Sent]:
                seen.append(sent)
                here = to == target and len({id(m) for m in seen}) == at + 1
                return [flipped(sent, frame, bit) if here else sent]

            refusal = Play(channel, updates, alter=alter).refused()
            assert refusal, f"bit {bit} of frame {frame} of '{message.stage}' for {target}"


@BOTH
@pytest.mark.parametrize("how", ["cut", "longer", "frame lost", "frame more", "twice", "moved", "renamed"])
def test_messages_of_another_form_or_place_are_refused(channel: SecureAggregation, how: str) -> None:
    def changed(message: Sent) -> list[Sent]:
        first, last = message.content[0], message.content[-1]
        other = "silo-2" if message.sender != "silo-2" else "silo-0"
        return {
            "cut": [replace(message, content=(*message.content[:-1], last[:-1]))],
            "longer": [replace(message, content=(first + b"\0", *message.content[1:]))],
            "frame lost": [replace(message, content=message.content[:-1])],
            "frame more": [replace(message, content=(*message.content, last))],
            "twice": [message, message],
            "moved": [replace(message, sender=other)],
            "renamed": [message, replace(message, sender=other)],
        }[how]

    stages = [s.name for s in channel.stages()][:-1]
    for stage in stages:
        touched: list[Sent] = []

        def alter(message: Sent, receiver: str, stage=stage, touched=touched) -> Iterable[Sent]:
            if message.stage != stage or touched:
                return (message,)
            touched.append(message)
            return changed(message)

        assert Play(channel, drawn(3), alter=alter).refused(), f"'{stage}' {how}"
        assert touched


@pytest.mark.parametrize(
    "stage", ["advertise", "roster", "share", "deliver", "upload", "confirm", "confirmed", "unmask"]
)
def test_messages_of_a_former_round_are_refused(stage: str) -> None:
    former: dict[tuple[str, str], Sent] = {}

    def alter(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != stage:
            return (message,)
        if message.round == 0:
            former[message.sender, receiver] = message
            return (message,)
        return (replace(former[message.sender, receiver], round=1),)

    play = Play(ACTIVE, drawn(3, 2), alter=alter)
    assert play.refused()
    assert set(play.opened) == {0}


def test_messages_for_another_silo_are_refused() -> None:
    handed: dict[str, Sent] = {}

    def alter(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage == "deliver":
            handed.setdefault("first", message)
            return (replace(handed["first"], receivers=(receiver,)),)
        return (message,)

    assert "silo-" in Play(CURIOUS, drawn(4), alter=alter).refused()


def test_a_second_request_to_unmask_is_refused() -> None:
    play = Play(CURIOUS, drawn(4)).run()
    again = next(m for m in play.messages if m.stage == "survivors")
    with pytest.raises(SiloBenchError, match="asked for twice"):
        play.act("silo-0", "unmask", 0, [again])
    fewer = replace(again, content=(bytes([0b0111]),))
    with pytest.raises(SiloBenchError, match="asked for twice"):
        play.act("silo-0", "unmask", 0, [fewer])
    for stage, message in (("share", "roster"), ("upload", "deliver")):
        inbox = [m for m in play.messages if m.stage == message and "silo-0" in m.receivers]
        with pytest.raises(SiloBenchError, match="asked for twice"):
            play.act("silo-0", stage, 0, inbox)
    with pytest.raises(SiloBenchError, match="step is missing"):
        play.act(SERVER, "open", 0, [m for m in play.messages if m.stage == "unmask"])


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        (0b1111, "silos that shared no secrets"),  # silo-3 left before it shared
        (0b0110, "is not among the survivors"),
        (0b0001, "only 1 of 4 silos"),
        (0b0000, "is not among the survivors"),
    ],
)
def test_survivors_that_can_not_be_are_refused(named: int, sentence: str) -> None:
    def alter(message: Sent, receiver: str) -> Iterable[Sent]:
        return (replace(message, content=(bytes([named]),)) if message.stage == "survivors" else message,)

    play = Play(CURIOUS, drawn(4), {(0, "silo-3"): "share"}, alter=alter)
    assert sentence in play.refused()
    assert not [m for m in play.messages if m.stage == "unmask"]


def test_a_server_that_shows_too_few_silos_to_one_of_them_is_refused() -> None:
    def short_roster(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != "roster":
            return (message,)
        adverts = Roster.read(message.content[0], names(4), 0).adverts
        kept = {silo: adverts[silo] for silo in {receiver, "silo-0"}}
        return (replace(message, content=(Roster(0, kept).frame(names(4)),)),)

    def few_shares(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != "deliver":
            return (message,)
        sender, box = next(iter(wire.set_and_records(message.content[0], names(4), 80).items()))
        return (replace(message, content=(wire.encode_set([sender], names(4)) + box,)),)

    assert "of 4 silos advertised keys" in Play(CURIOUS, drawn(4), alter=short_roster).refused()
    play = Play(CURIOUS, drawn(4), alter=few_shares)
    assert "only 2 of 4 silos shared their secrets" in play.refused()
    assert not [m for m in play.messages if m.stage == "upload"]


def test_a_silo_that_advertises_the_keys_of_another_is_refused() -> None:
    bodies: dict[str, bytes] = {}

    def copied(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != "advertise":
            return (message,)
        bodies[message.sender] = message.content[0]
        if message.sender != "silo-1":
            return (message,)
        body = bodies["silo-0"][:64] + message.content[0][64:]
        about = wire.statement("advertise", 0, "silo-1", wire.NOTHING_AGREED, body)
        own = play.states["silo-1"]["keys/identity"].tobytes()
        return (replace(message, content=(body, primitives.sign(own, about))),)

    play = Play(CURIOUS, drawn(3), alter=copied)
    assert "two keys of round 0 are equal" in play.refused()
