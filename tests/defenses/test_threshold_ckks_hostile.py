"""Threshold CKKS against messages that were altered, cut, repeated, moved or made up, above all by the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER
from defenses.channels.secagg import wire
from defenses.channels.secagg.memory import Memory
from defenses.channels.secagg.packing import unpack
from defenses.channels.secagg.primitives import sign, signing_public
from defenses.channels.threshold_ckks import ring
from defenses.channels.threshold_ckks.scheme import centred, decryption_share
from defenses.channels.threshold_ckks.session import Session
from defenses.channels.threshold_ckks.silo import secret_keys
from tests.defenses.exchange import Sent
from tests.defenses.secagg_play import flipped, names
from tests.defenses.threshold_play import CHANNEL, RealPlay, real

STAGES = ("register", "directory", "commit", "commits", "reveal", "reveals", "key", "keys", "upload", "sum", "share")
Change = Callable[[Sent], list[Sent]]


def altered(stage: str, change: Change, largest: float = 4.0) -> RealPlay:
    """A federation in which the first message of ``stage`` arrives changed at its first receiver."""
    touched: list[Sent] = []

    def alter(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != stage or touched:
            return (message,)
        touched.append(message)
        return change(message)

    return RealPlay(CHANNEL, real(3, 2, largest=largest), alter=alter)


@pytest.mark.parametrize("stage", STAGES)
def test_a_changed_bit_anywhere_is_refused(stage: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):

        def flip(message: Sent) -> list[Sent]:
            frame = int(rng.integers(len(message.content)))
            return [flipped(message, frame, int(rng.integers(8 * len(message.content[frame]))))]

        assert altered(stage, flip).refused(), stage


@pytest.mark.parametrize("how", ["cut", "longer", "frame lost", "frame more", "twice", "moved", "renamed", "empty"])
@pytest.mark.parametrize("stage", STAGES)
def test_messages_of_another_form_or_place_are_refused(stage: str, how: str) -> None:
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
            "empty": [replace(message, content=())],
        }[how]

    assert altered(stage, changed).refused()


@pytest.mark.parametrize("stage", ["upload", "sum", "share"])
def test_messages_of_a_former_round_are_refused(stage: str) -> None:
    former: dict[tuple[str, str], Sent] = {}

    def alter(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != stage:
            return (message,)
        if message.round == 0:
            former[message.sender, receiver] = message
            return (message,)
        return (replace(former[message.sender, receiver], round=1),)

    play = RealPlay(CHANNEL, real(3, 2), alter=alter)
    assert play.refused()
    assert set(play.opened) == {0}


def test_a_share_of_a_broken_off_attempt_is_refused_in_the_next() -> None:
    """A kill after the shares of round 0: nothing of the round counts, all parties are as they were before it, and the
    server keeps what it got. It puts one silo's first share in place of the second; with its own the round opens."""

    def as_kept(message: Sent, kept: Sent) -> bool:
        return (message.stage, message.sender) == (kept.stage, kept.sender)

    def go(round: int, until: str = "open") -> None:
        for stage in CHANNEL.stages():
            if stage.setup == (round < 0):
                for actor in played._actors(stage.actors, stage.name, round):
                    played.act(actor, stage.name, round)
                if stage.name == until:
                    return

    played = RealPlay(CHANNEL, real(3, 1))
    go(-1)
    before = {party: dict(state) for party, state in played.states.items()}
    mail = {party: list(held) for party, held in played._mail.items()}
    go(0, "share")
    (kept,) = [m for m in played.messages if (m.stage, m.sender) == ("share", "silo-1")]
    for change in (None, kept):
        played.alter = lambda m, _, change=change: (change,) if change and as_kept(m, change) else (m,)
        played.states.clear()
        for party, state in before.items():
            played.states[party].update(state)
        played._mail.clear()
        played._mail.update({party: list(held) for party, held in mail.items()})
        played.opened.clear()
        if change is None:
            go(0)
            assert played.right(0, played.opened[0])
        else:
            with pytest.raises(SiloBenchError, match="'share' message of silo-1 is not signed by it as it stands"):
                go(0)


def test_messages_of_another_run_are_refused() -> None:
    other = RealPlay(CHANNEL, real(3, 2)).run()
    for stage in ("commit", "reveal", "key", "upload", "share"):
        (foreign,) = [m for m in other.messages if (m.stage, m.sender) == (stage, "silo-0") and m.round < 1]
        assert altered(stage, lambda message, foreign=foreign: [foreign]).refused(), stage


# what a server that deviates would ask a share for


def halves_of(message: Sent) -> list[bytes]:
    """The random halves of a ``sum`` message of three silos, one group each."""
    halves = message.content[1:-1]
    assert len(halves) == 3
    return list(halves)


def as_sum(message: Sent, halves: list[bytes], signatures: bytes | None = None) -> list[Sent]:
    signatures = message.content[-1] if signatures is None else signatures
    return [replace(message, content=(message.content[0], *halves, signatures))]


def zeroed(message: Sent) -> list[Sent]:
    """The victim's random half and zeros: its share would open the victim's upload alone."""
    first, *others = halves_of(message)
    return as_sum(message, [first, *(bytes(len(half)) for half in others)])


def repeated(message: Sent) -> list[Sent]:
    """Three times the victim's."""
    first, *_ = halves_of(message)
    return as_sum(message, [first] * 3, message.content[-1][:64] * 3)


def exchanged(message: Sent) -> list[Sent]:
    one, two, three = halves_of(message)
    return as_sum(message, [two, one, three])


def alone(message: Sent) -> list[Sent]:
    return [replace(message, content=(*message.content[:2], message.content[-1][:64]))]


def fewer_values(message: Sent) -> list[Sent]:
    return [replace(message, content=(message.content[0].replace(b"60", b"59"), *message.content[1:]))]


def no_header(message: Sent) -> list[Sent]:
    return [replace(message, content=(b'{"values": true}', *message.content[1:]))]


@pytest.mark.parametrize("change", [zeroed, repeated, exchanged, alone, fewer_values, no_header])
def test_a_silo_shares_in_nothing_but_the_sum_of_all(change: Change) -> None:
    play = altered("sum", change)
    assert play.refused()
    assert not [m for m in play.messages if (m.stage, m.sender) == ("share", "silo-0")]


def test_a_share_of_a_single_random_half_would_open_that_upload() -> None:
    """What the checks prevent, done by hand: the attack works where silos share in whatever they are handed."""
    play = RealPlay(CHANNEL, real(3)).run()
    session = Session(play.public, CHANNEL.terms)
    p = session.parameters
    upload = next(m for m in play.messages if (m.stage, m.sender) == ("upload", "silo-1"))
    first = ring.from_bytes(upload.content[1], p)
    total = unpack(upload.content[2], 60, p.sent).astype(np.uint64)
    for silo in names(3):
        secrets = secret_keys(play.states[silo]["keys/round--1/secret"].tobytes(), session)
        total += decryption_share(p, first, secrets, 60, np.random.default_rng(1))
    found = centred(total, p) * p.unit
    assert np.abs(found - play.updates[0]["silo-1"].values).max() <= CHANNEL.error


def test_a_second_share_is_refused() -> None:
    play = RealPlay(CHANNEL, real(3)).run()
    again = next(m for m in play.messages if m.stage == "sum")
    with pytest.raises(SiloBenchError, match="asked for twice"):
        play.act("silo-0", "share", 0, [again])


def test_a_server_that_puts_its_own_keys_for_a_silos_is_refused() -> None:
    """It would know the collective key up to the others' shares; it can't sign in the silo's name."""

    def own(message: Sent) -> list[Sent]:
        count = (len(message.content) - 1) // 3
        made = [bytes(len(f)) for f in message.content[:count]]
        own = bytes(range(32))
        signatures = sign(own, b"anything") + message.content[-1][64:]
        return [replace(message, content=(*made, *message.content[count:-1], signatures))]

    play = altered("keys", own)
    assert "the 'keys' message of silo-0 is not signed by it" in play.refused()
    assert not [m for m in play.messages if m.stage == "upload"]


def test_a_nonce_that_was_not_committed_to_is_refused() -> None:
    """By the silo that would choose the public element after it has seen the others' nonces."""

    def other(message: Sent) -> list[Sent]:
        body = bytes(32)
        about = wire.statement("reveal", -1, message.sender, wire.NOTHING_AGREED, body)
        identity = play.states[message.sender]["keys/identity"].tobytes()
        return [replace(message, content=(body, sign(identity, about)))]

    play = altered("reveal", other)
    assert "silo-0 revealed another nonce than it committed itself to" in play.refused()


def test_identity_keys_of_a_stranger_do_not_help() -> None:
    """A server that made the directory itself could speak for all: the directory is the dealer's, and comes once."""

    def made_up(message: Sent) -> list[Sent]:
        return [message, replace(message, sender=SERVER, content=(signing_public(bytes(32)) * 3,))]

    assert "identity keys come from the dealer, once" in altered("directory", made_up).refused()


def test_a_silo_that_deviates_with_the_server_gets_at_the_key_as_the_document_says() -> None:
    """Not covered: it adds 2**14 P to its random half, and the opened sum holds 2**14 times the sum of all keys, in
    units. (Values are so small that nothing hides it.)"""

    def crafted(message: Sent) -> list[Sent]:
        session = Session(play.public, CHANNEL.terms)
        p, state = session.parameters, play.states[message.sender]
        header, half, top, _ = message.content
        limbs = ring.from_bytes(half, p)
        limb, bit = divmod(p.flood + 14, p.width)
        limbs[limb, 0] += 1 << bit
        half = ring.to_bytes(ring.reduce(limbs, p.width), p)
        agreed = Memory(state, -1).note("agreed")
        halves, whole = (wire.Signing(stage, 0, message.sender, agreed) for stage in ("halves", "upload"))
        for signing, frames in ((halves, (header, half)), (whole, (header, half, top))):
            for frame in frames:
                signing.add(frame)
        identity = state["keys/identity"].tobytes()
        signed = sign(identity, halves.statement()) + sign(identity, whole.statement())
        return [replace(message, content=(header, half, top, signed))]

    play = altered("upload", crafted, largest=0.01)
    play.run()
    session = Session(play.public, CHANNEL.terms)
    p = session.parameters
    keys = [secret_keys(play.states[s]["keys/round--1/secret"].tobytes(), session)[0] for s in names(3)]
    found = np.rint(play.opened[0].values / p.unit / 2**14)
    np.testing.assert_array_equal(found, np.sum(keys, axis=0, dtype=np.int64)[:60])
    assert play.right(1, play.opened[1])
