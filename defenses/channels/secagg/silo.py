"""A silo's side of the protocol: the user's part of Figure 4 of Bonawitz et al. 2017, a method per stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams, State
from bench.core.update import Update
from bench.defense.channel import Endpoint, Message, Outgoing
from defenses.channels.secagg import masks, packing, setup, shamir, wire
from defenses.channels.secagg.masks import Mask
from defenses.channels.secagg.memory import Memory
from defenses.channels.secagg.payload import Sealed, Shape
from defenses.channels.secagg.primitives import KEY, SIGNATURE, agreement_public, verify
from defenses.channels.secagg.session import SEALED_SHARES, Roster, Session, from_server

#: in which a silo sends something to the server; each is a method of ``SiloRound``
_STAGES = ("advertise", "share", "upload", "confirm", "unmask")


class Silo(Endpoint):
    """``session(round)`` gives the public facts of a round."""

    _update: Update | None = None

    def __init__(self, me: str, session: Callable[[int], Session], state: State, secret: SecretStreams) -> None:
        self.me, self.session, self.state, self.streams = me, session, state, secret

    def contribute(self, round: int, update: Update) -> None:
        self._update = update

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        session = self.session(round)
        setup.learn_directory(self.state, inbox, session.public)
        if stage == setup.REGISTER:
            for taking_part in session.public.participants:
                session.policy.limits(len(taking_part))  # before anybody trains
            yield setup.register(self.state, self.streams)
            return
        if stage not in _STAGES or self.me not in session.participants:
            return  # nothing to do but to learn what arrived
        party = SiloRound(self.me, session, self.state, self.streams, self._update)
        outgoing = getattr(party, stage)([m for m in inbox if m.round == round])
        if outgoing is not None:
            yield outgoing


class SiloRound:
    """One silo in one round. A stage's method takes the messages of this round and returns what the silo sends, or None
    where it takes no part any more; it raises SiloBenchError where going on would break the protocol."""

    def __init__(
        self, me: str, session: Session, state: State, secret: SecretStreams, update: Update | None = None
    ) -> None:
        self.me, self.session, self.state, self.streams, self.update = me, session, state, secret, update
        self.memory = Memory(state, session.round)

    def advertise(self, inbox: Sequence[Message]) -> Outgoing | None:
        """Two fresh key pairs (for sealing shares, for masks) and a nonce, signed."""
        if self.update is None:
            return None
        self.memory.forget_other_rounds()
        encryption = self.memory.keep_secret("encryption", self._token("encryption"))
        mask = self.memory.keep_secret("mask", self._field_secret("mask"))
        nonce = self.memory.keep_secret("nonce", self._token("nonce"))
        body = agreement_public(encryption) + agreement_public(mask) + nonce
        return self._send("advertise", wire.NOTHING_AGREED, [body])

    def share(self, inbox: Sequence[Message]) -> Outgoing | None:
        """Shares of the mask key and of a fresh self mask, sealed for each silo of the roster."""
        message = from_server(inbox, "roster")
        if message is None or not self.memory.has_secret("nonce"):
            return None
        frame = wire.only_frame(message, self.session.roster_limit())
        roster = Roster.read(frame, self.session.silos, self.session.round)
        self._check_roster(roster)
        self.memory.note_once("roster", frame)
        shares = self._split(roster, self.memory.keep_secret("self-mask", self._field_secret("self-mask")))
        self.memory.keep_secret("own-shares", shares[self.me])
        others = [silo for silo in roster.adverts if silo != self.me]
        key = self.memory.secret("encryption")
        sealed = [self.session.seal_shares(roster, self.me, key, other, shares[other]) for other in others]
        return self._send("share", roster.randomness, [wire.encode_set(others, self.session.silos) + b"".join(sealed)])

    def upload(self, inbox: Sequence[Message]) -> Outgoing | None:
        """The vector under all masks, and the payload's extra frames."""
        message = from_server(inbox, "deliver")
        if message is None or self.update is None:
            return None
        roster = self._roster()
        shares = self._received(roster, message)
        self.session.enough(shares, "shared their secrets")
        self.memory.note_once("sharers", wire.encode_set(shares, self.session.silos))
        self.memory.keep_secret("shares", b"".join(shares.values()))
        agreed = self.session.agreed(roster)
        shape = self.session.payload.shape(self.update.form, agreed.silos)
        sealed = self.session.payload.seal(self.update, agreed, self.streams)
        if sealed.vector.shape != (shape.count,) or sealed.vector.dtype != np.int64:
            raise SiloBenchError(f"{self.me} has a vector of another shape than the round's")
        frames = self._frames(self.update.form.header(), sealed, shape, self.masks(roster, list(shares)))
        return self._send("upload", roster.randomness, frames)

    def confirm(self, inbox: Sequence[Message]) -> Outgoing | None:
        """(active) A signature of the survivors that the server named to this silo."""
        message = from_server(inbox, "survivors")
        if message is None:
            return None
        survivors = self._survivors(message)
        body = wire.encode_set(survivors, self.session.silos)
        self.memory.note_once("survivors", body)
        return self._send("confirm", self._roster().randomness, [body])

    def unmask(self, inbox: Sequence[Message]) -> Outgoing | None:
        """Once per round: the shares of the survivors' self masks and of the others' mask keys, never both of one."""
        message = from_server(inbox, "confirmed" if self.session.policy.active else "survivors")
        if message is None:
            return None
        survivors = self._confirmed(message) if self.session.policy.active else self._survivors(message)
        self.memory.note_once("revealed", wire.encode_set(survivors, self.session.silos))
        return self._send("unmask", self._roster().randomness, [self.revealed(survivors)])

    def masks(self, roster: Roster, sharers: Sequence[str]) -> list[Mask]:
        """The self mask, and a mask for every other silo that shared its secrets (U2), so that its shares can lift
        it."""
        key = self.memory.secret("mask")
        pairs = [self.session.pair_mask(roster, self.me, key, silo) for silo in sharers if silo != self.me]
        return [Mask(self.memory.secret("self-mask")), *pairs]

    def revealed(self, survivors: Sequence[str]) -> bytes:
        """The body of an ``unmask`` message: two sets, survivors and dropped, and 32 bytes for each in order."""
        session = self.session
        sharers = wire.decode_set(self.memory.note("sharers"), session.silos)
        shares = wire.records(self.memory.secret("shares"), 2 * shamir.SIZE, len(sharers))
        held = dict(zip(sharers, shares, strict=True))
        dropped = [silo for silo in sharers if silo not in survivors]
        shown = [held[silo][shamir.SIZE :] for silo in survivors] + [held[silo][: shamir.SIZE] for silo in dropped]
        return wire.encode_set(survivors, session.silos) + wire.encode_set(dropped, session.silos) + b"".join(shown)

    def _send(self, stage: str, agreed: bytes, frames: Iterable[bytes]) -> Outgoing:
        key = setup.identity(self.state)
        return Outgoing((SERVER,), wire.signed(stage, self.session.round, self.me, agreed, frames, key))

    def _token(self, name: str, *indices: int, size: int = KEY) -> bytes:
        return self.streams.token(f"secagg/{name}", self.session.round, *indices, size=size)

    def _field_secret(self, name: str) -> bytes:
        """32 secret bytes that are an element of the field of shares: all but 2**-248 of them are."""
        drawn = (self._token(name, attempt) for attempt in count())
        return next(value for value in drawn if int.from_bytes(value, "little") < shamir.PRIME)

    def _roster(self) -> Roster:
        return Roster.read(self.memory.note("roster"), self.session.silos, self.session.round)

    def _check_roster(self, roster: Roster) -> None:
        session = self.session
        if not set(roster.adverts) <= set(session.participants):
            raise SiloBenchError(f"the roster of round {session.round} names silos that do not take part in it")
        own = roster.adverts.get(self.me)
        secrets = [self.memory.secret(name) for name in ("encryption", "mask")]
        mine = b"".join(map(agreement_public, secrets)) + self.memory.secret("nonce")
        if own is None or own.body != mine:
            raise SiloBenchError(f"the roster of round {session.round} does not hold the keys and nonce of {self.me}")
        session.enough(roster.adverts, "advertised keys")
        roster.verify(setup.directory(self.state, session.public))

    def _split(self, roster: Roster, self_mask: bytes) -> dict[str, bytes]:
        """Per silo of the roster, this one included: its shares of the mask key and of the self mask (64 bytes)."""
        threshold = self.session.limits.threshold
        points = {silo: self.session.point(silo) for silo in roster.adverts}
        found = []
        for name, secret in (("mask-shares", self.memory.secret("mask")), ("self-mask-shares", self_mask)):
            randomness = self._token(name, size=shamir.COEFFICIENT * (threshold - 1))
            found.append(shamir.split(secret, threshold, list(points.values()), randomness))
        return {silo: found[0][point] + found[1][point] for silo, point in points.items()}

    def _received(self, roster: Roster, message: Message) -> Mapping[str, bytes]:
        """The shares that every silo of U2 sent to this one, its own included, in the public order."""
        session, key = self.session, self.memory.secret("encryption")
        limit = wire.set_size(session.silos) + SEALED_SHARES * len(roster.adverts)
        sealed = wire.set_and_records(wire.only_frame(message, limit), session.silos, SEALED_SHARES)
        if not set(sealed) <= set(roster.adverts) - {self.me}:
            raise SiloBenchError(f"{self.me} is handed shares of silos that advertised no keys")
        found = {self.me: self.memory.secret("own-shares")}
        for sender, box in sealed.items():
            shares = session.unseal_shares(roster, sender, key, self.me, box)
            if shares is None:
                raise SiloBenchError(
                    f"the shares that {sender} sealed for {self.me} were altered or are for another use"
                )
            found[sender] = shares
        return {silo: found[silo] for silo in session.silos if silo in found}

    def _frames(self, header: bytes, sealed: Sealed, shape: Shape, pads: Sequence[Mask]) -> Iterator[bytes]:
        """One frame of the vector in memory at a time."""
        yield header
        start, dtype = 0, packing.dtype_of(shape.bits)
        for size in packing.frame_sizes(shape.count, shape.bits):
            words = sealed.vector[start : start + size].astype(dtype)  # modulo a power of two, also below zero
            masks.apply(words, pads, start, shape.bits)
            yield packing.pack(words, shape.bits)
            start += size
        for length, extra in zip(shape.extras, sealed.extras, strict=True):
            if len(extra) != length:
                raise SiloBenchError(f"{self.me} has an extra frame of {len(extra)} bytes instead of {length}")
            yield extra

    def _survivors(self, message: Message) -> tuple[str, ...]:
        """The set U3 that the server names: part of U2, this silo in it, large enough."""
        session = self.session
        sharers = wire.decode_set(self.memory.note("sharers"), session.silos)
        survivors = wire.decode_set(wire.only_frame(message, wire.set_size(session.silos)), session.silos)
        if not set(survivors) <= set(sharers):
            raise SiloBenchError(f"the survivors of round {session.round} include silos that shared no secrets")
        if self.me not in survivors:
            raise SiloBenchError(f"{self.me} uploaded in round {session.round} and is not among the survivors")
        session.enough(survivors, "uploaded")
        return survivors

    def _confirmed(self, message: Message) -> tuple[str, ...]:
        """The survivors that this silo signed, once enough others have signed the very same."""
        session, body, roster = self.session, self.memory.note("survivors"), self._roster()
        survivors = wire.decode_set(body, session.silos)
        limit = wire.set_size(session.silos) + SIGNATURE * len(survivors)
        signatures = wire.set_and_records(wire.only_frame(message, limit), session.silos, SIGNATURE)
        keys = setup.directory(self.state, session.public)
        for silo, signature in signatures.items():
            about = wire.statement("confirm", session.round, silo, roster.randomness, body)
            if silo not in survivors or not verify(keys[silo], about, signature):
                raise SiloBenchError(
                    f"{silo} did not sign the survivors of round {session.round} that {self.me} was told"
                )
        session.enough_to_open(signatures, "confirmed the survivors")
        return survivors
