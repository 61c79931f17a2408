"""Attacks on secure aggregation: a server that deviates, and broken copies that must be found out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER
from defenses.channels.secagg import masks, packing, primitives, shamir, wire
from defenses.channels.secagg.channel import SecureAggregation
from defenses.channels.secagg.masks import Mask
from defenses.channels.secagg.policy import Policy
from defenses.channels.secagg.session import Advert, Roster, Session
from defenses.channels.secagg.silo import SiloRound
from defenses.channels.secagg.unmasking import Secrets
from tests.defenses.exchange import Sent
from tests.defenses.secagg_play import Play, drawn, names

CURIOUS = SecureAggregation()
#: the survivors' sum is all that the server reads
ONLY_THE_SUM = {(0, frozenset(names(4)))}


def masked(play: Play, round: int, silo: str) -> NDArray[np.int64]:
    """A silo's vector as it travelled, four silos of 8 bits."""
    (upload,) = [m for m in play.messages if (m.round, m.stage, m.sender) == (round, "upload", silo)]
    return packing.unpack(upload.content[1], 50, 10).astype(np.int64)


# a server that deviates


def equivocates(message: Sent, receiver: str) -> Iterable[Sent]:
    """To silos 0 and 3, all are survivors; to silos 1 and 2, silo 3 dropped out."""
    if message.stage != "survivors":
        return (message,)
    named = 0b1111 if receiver in ("silo-0", "silo-3") else 0b0111
    return (replace(message, content=(bytes([named]),)),)


def test_a_server_that_names_different_survivors_needs_twice_the_threshold() -> None:
    # two silos give shares of silo 3's self mask, two of its mask key; where two are enough its upload lies open
    play = Play(SecureAggregation(Policy(threshold=2)), drawn(4), alter=equivocates)
    play.refused()
    assert (0, frozenset({"silo-3"})) in play.reads([SERVER])
    # by default more than half of the silos are needed for either
    play = Play(CURIOUS, drawn(4), alter=equivocates)
    assert "revealed shares of other silos" in play.refused()
    assert play.reads([SERVER]) == set()


def test_in_the_active_setting_silos_find_out_before_they_reveal_anything() -> None:
    play = Play(SecureAggregation(Policy("active")), drawn(4), alter=equivocates)
    assert "confirmed other survivors" in play.refused()  # by an honest server; another would go on
    signatures = {m.sender: m.content[1] for m in play.messages if m.stage == "confirm"}

    def asked(silo: str, *signers: str) -> str:
        shown = {signer: signatures[signer] for signer in signers}
        frame = wire.encode_set(shown, play.silos) + b"".join(shown.values())
        with pytest.raises(SiloBenchError) as refusal:
            play.act(silo, "unmask", 0, [Sent(0, "confirmed", SERVER, (silo,), (frame,))])
        return str(refusal.value)

    for silo in play.silos:
        assert f"did not sign the survivors of round 0 that {silo} was told" in asked(silo, *names(3))
        same = ("silo-0", "silo-3") if silo in ("silo-0", "silo-3") else ("silo-1", "silo-2")
        assert "only 2 of 4 silos confirmed" in asked(silo, *same)
    assert not [m for m in play.messages if m.stage == "unmask"]


def test_an_upload_that_comes_too_late_stays_closed() -> None:
    """The server has silo 3's upload and, since it named silo 3 dropped, its mask key: the self mask still hides it."""

    def loses(message: Sent, receiver: str) -> Iterable[Sent]:
        return () if (message.stage, message.sender) == ("upload", "silo-3") else (message,)

    play = Play(CURIOUS, drawn(4), alter=loses)
    play.away = {(0, "silo-3"): "unmask"}
    play.run()
    assert play.reads([SERVER]) == {(0, frozenset(names(4)[:3]))}
    assert not opens_without_self_mask(play, "silo-3")


def opens_without_self_mask(play: Play, silo: str) -> bool:
    """Whether a server that learnt ``silo``'s mask key opens its upload with the pairwise masks alone."""
    session = Session(play.public, CURIOUS.policy, CURIOUS.payload, 0)
    roster_frame = next(m for m in play.messages if m.stage == "roster").content[0]
    secrets = Secrets(session, Roster.read(roster_frame, play.silos, 0))
    for message in play.messages:
        if message.stage == "unmask":
            secrets.learn_revealed(message.sender, message.content[0])
    assert secrets.mask_key(silo) is not None
    words = masked(play, 0, silo).astype(np.uint16)
    pads = [secrets.pair_mask(silo, other) for other in play.silos if other != silo]
    masks.apply(words, [pad.opposite for pad in pads if pad is not None], 0, 10)
    return np.array_equal(packing.centred(words, 10), play.updates[0][silo].values)


# broken copies


def test_without_self_masks_a_late_upload_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SiloRound.masks
    monkeypatch.setattr(SiloRound, "masks", lambda *arguments: right(*arguments)[1:])

    def loses(message: Sent, receiver: str) -> Iterable[Sent]:
        return () if (message.stage, message.sender) == ("upload", "silo-3") else (message,)

    play = Play(CURIOUS, drawn(4), {(0, "silo-3"): "unmask"}, alter=loses)
    play.refused()
    assert opens_without_self_mask(play, "silo-3")


def shows_differences(play: Play) -> bool:
    """Whether a silo's uploads of two rounds differ by no more than its updates."""
    apart = masked(play, 1, "silo-1") - masked(play, 0, "silo-1")
    plain = play.updates[1]["silo-1"].values - play.updates[0]["silo-1"].values
    return bool(((apart - plain) % 2**10 == 0).all())


def test_masks_that_serve_two_rounds_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not shows_differences(Play(CURIOUS, drawn(4, 2)).run())

    def token(self: SiloRound, name: str, *indices: int, size: int = 32) -> bytes:
        return hashlib.shake_256(f"{self.me}/{name}/{indices}".encode()).digest(size)

    monkeypatch.setattr(SiloRound, "_token", token)
    # keys that serve twice do no harm yet: the round and its nonces are part of every derived mask, but not of the
    # self mask
    assert not shows_differences(Play(CURIOUS, drawn(4, 2)).run())

    def pair_mask(self: Session, roster: Roster, owner: str, secret: bytes, other: str) -> Mask:
        key = primitives.agree(secret, roster.adverts[other].mask, bytes(32), b"mask")
        return Mask(key, minus=self.point(owner) > self.point(other))

    monkeypatch.setattr(Session, "pair_mask", pair_mask)
    broken = Play(CURIOUS, drawn(4, 2)).run()
    np.testing.assert_array_equal(broken.opened[1].values, broken.expected(1, names(4)))
    assert shows_differences(broken)


def test_silos_that_reveal_both_shares_of_a_silo_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Play(CURIOUS, drawn(4)).run().reads([SERVER]) == ONLY_THE_SUM

    def both(self: SiloRound, survivors: Sequence[str]) -> bytes:
        held = wire.records(self.memory.secret("shares"), 2 * shamir.SIZE, 4)
        everybody = wire.encode_set(self.session.silos, self.session.silos)
        return 2 * everybody + b"".join(h[32:] for h in held) + b"".join(h[:32] for h in held)

    monkeypatch.setattr(SiloRound, "revealed", both)
    play = Play(CURIOUS, drawn(4))
    assert "does not have the right form" in play.refused()  # our server wants no such thing; another would keep it
    assert play.reads([SERVER]) == {(0, frozenset({silo})) for silo in names(4)}


def test_no_silo_reveals_both_shares_of_a_silo() -> None:
    away = {(0, "silo-4"): "upload", (0, "silo-0"): "unmask"}
    play = Play(CURIOUS, drawn(6), away).run()
    for message in (m for m in play.messages if m.stage == "unmask"):
        survivors, dropped = (wire.decode_set(message.content[0][at : at + 1], play.silos) for at in (0, 1))
        assert not set(survivors) & set(dropped)
        assert dropped == ("silo-4",)
        assert len(message.content[0]) == 2 + 32 * 6


# the agreed randomness


def test_the_agreed_randomness_is_the_hash_of_round_and_sorted_nonces() -> None:
    def part(value: bytes) -> bytes:
        return len(value).to_bytes(4, "little") + value

    def roster(round: int, nonces: dict[str, bytes]) -> Roster:
        return Roster(round, {silo: Advert(bytes(32), bytes(32), n, bytes(64)) for silo, n in nonces.items()})

    nonces = {f"silo-{i}": bytes([i]) * 32 for i in (10, 2, 1)}
    text = b"silobench secagg 1" + part(b"agreed") + part((7).to_bytes(8, "little"))
    for silo in ("silo-1", "silo-10", "silo-2"):
        text += part(silo.encode()) + part(nonces[silo])
    assert roster(7, nonces).randomness == hashlib.sha256(text).digest()
    others = [roster(8, nonces)]
    others += [roster(7, {**nonces, silo: b"x" * 32}) for silo in nonces]
    others += [roster(7, {s: n for s, n in nonces.items() if s != gone}) for gone in nonces]
    assert len({other.randomness for other in [roster(7, nonces), *others]}) == 8


def with_nonces(message: Sent, silos: tuple[str, ...], change: Callable[[str], bool]) -> Sent:
    """A roster in which the nonces of the silos that ``change`` names are zeros."""
    roster = Roster.read(message.content[0], silos, message.round)
    adverts = {s: replace(a, nonce=bytes(32)) if change(s) else a for s, a in roster.adverts.items()}
    return replace(message, content=(Roster(roster.round, adverts).frame(silos),))


def test_a_server_that_replaces_nonces_is_refused_by_their_owner_and_by_all_others() -> None:
    def other_nonces(message: Sent, receiver: str) -> Iterable[Sent]:
        return (with_nonces(message, names(4), lambda s: s != receiver) if message.stage == "roster" else message,)

    def every_nonce(message: Sent, receiver: str) -> Iterable[Sent]:
        return (with_nonces(message, names(4), lambda s: True) if message.stage == "roster" else message,)

    assert "are not signed by it" in Play(CURIOUS, drawn(4), alter=other_nonces).refused()
    assert "does not hold the keys and nonce of" in Play(CURIOUS, drawn(4), alter=every_nonce).refused()


def test_silos_that_ignore_the_nonces_let_the_server_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeroed(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != "advertise":
            return (message,)
        body, signature = message.content
        return (replace(message, content=(body[:64] + bytes(32), signature)),)

    monkeypatch.setattr(Roster, "verify", lambda *_: None)  # this server does not mind, and no signature is looked at
    play = Play(CURIOUS, drawn(4), alter=zeroed)
    assert "does not hold the keys and nonce of silo-0" in play.refused()
    monkeypatch.setattr(SiloRound, "_check_roster", lambda *_: None)
    play = Play(CURIOUS, drawn(4), alter=zeroed).run()
    frames = {m.content[0] for m in play.messages if m.stage == "roster"}
    adverts = Roster.read(frames.pop(), play.silos, 0).adverts
    assert {advert.nonce for advert in adverts.values()} == {bytes(32)}


def test_equal_keys_are_refused() -> None:
    def copies(message: Sent, receiver: str) -> Iterable[Sent]:
        if message.stage != "roster":
            return (message,)
        roster = Roster.read(message.content[0], names(4), 0)
        adverts = {**roster.adverts, "silo-1": roster.adverts["silo-0"]}
        return (replace(message, content=(Roster(0, adverts).frame(names(4)),)),)

    assert "are not signed by it" in Play(CURIOUS, drawn(4), alter=copies).refused()


def test_shares_that_do_not_give_the_advertised_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SiloRound.revealed

    def wrong(self: SiloRound, survivors: Sequence[str]) -> bytes:
        body = right(self, survivors)
        return body[:-1] + bytes([body[-1] ^ 1]) if self.me == "silo-1" else body

    monkeypatch.setattr(SiloRound, "revealed", wrong)
    play = Play(CURIOUS, drawn(4), {(0, "silo-3"): "upload"})
    assert "do not give the key that it advertised" in play.refused()
