"""The server's side of the protocol: its part of Figure 4 of Bonawitz et al. 2017, a method per stage.

The server holds no key. It relays, adds uploads frame by frame, and takes the masks off the sum with what at least the
threshold of silos reveal. It keeps the sum, a frame at a time, and the silos' sealed shares (80 bytes for each two
silos) while it sorts them by receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.streams import State
from bench.core.update import MAX_HEADER, Form
from bench.defense.channel import Endpoint, Message, Opened, Outgoing, Supports
from defenses.channels.secagg import packing, setup, shamir, wire
from defenses.channels.secagg.memory import Memory
from defenses.channels.secagg.payload import Shape
from defenses.channels.secagg.session import ADVERT, SEALED_SHARES, Advert, Roster, Session, from_silos
from defenses.channels.secagg.unmasking import Secrets, opened

#: in which the server sends something; each is a method of ``ServerRound``
_STAGES = ("roster", "deliver", "survivors", "confirmed")


class Server(Endpoint):
    """``session(round)`` gives the public facts of a round."""

    def __init__(self, session: Callable[[int], Session], state: State, supports: Supports) -> None:
        self.session, self.state, self.supports = session, state, supports
        self._opened: list[tuple[int, Opened]] = []

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        session = self.session(round)
        setup.learn_directory(self.state, inbox, session.public)
        party = ServerRound(session, self.state, self.supports)
        here = [m for m in inbox if m.round == round]
        if stage in _STAGES:
            yield from getattr(party, stage)(here)
        elif stage == "open":
            self._opened.append((round, party.open(here)))

    def opened(self) -> Iterable[tuple[int, Opened]]:
        return self._opened


class ServerRound:
    """The server in one round. A stage's method takes the messages of this round; it raises SiloBenchError on any that
    does not hold, and where too few are left."""

    def __init__(self, session: Session, state: State, supports: Supports) -> None:
        self.session, self.state, self.supports = session, state, supports
        self.memory = Memory(state, session.round)

    @property
    def directory(self) -> Mapping[str, bytes]:
        return setup.directory(self.state, self.session.public)

    def roster(self, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        """All advertised keys (U1), to all who advertised."""
        adverts = {}
        for message in from_silos(inbox, "advertise", self.session.participants):
            adverts[message.sender] = Advert.of(*wire.body_and_signature(message, ADVERT))
        self.session.enough(adverts, "advertised keys")
        roster = Roster(self.session.round, adverts)
        roster.verify(self.directory)
        frame = roster.frame(self.session.silos)
        self.memory.forget_other_rounds()
        self.memory.note_once("roster", frame)
        yield Outgoing(tuple(adverts), [frame])

    def deliver(self, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        """To each silo that shared its secrets (U2), what the others sealed for it."""
        session, roster, sealed = self.session, self._roster(), {}
        size = wire.set_size(session.silos) + SEALED_SHARES * (len(roster.adverts) - 1)
        for message in from_silos(inbox, "share", list(roster.adverts)):
            body, _ = wire.signed_body(message, size, roster.randomness, self.directory[message.sender])
            sealed[message.sender] = wire.set_and_records(body, session.silos, SEALED_SHARES)
            if set(sealed[message.sender]) != set(roster.adverts) - {message.sender}:
                raise SiloBenchError(f"{message.sender} did not share its secrets with each silo of the roster")
        session.enough(sealed, "shared their secrets")
        self.memory.note_once("sharers", wire.encode_set(sealed, session.silos))
        for receiver in sealed:
            boxes = {sender: box[receiver] for sender, box in sealed.items() if sender != receiver}
            yield Outgoing((receiver,), [wire.encode_set(boxes, session.silos) + b"".join(boxes.values())])

    def survivors(self, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        """Adds the uploads; then to each silo whose upload arrived (U3), the set of them."""
        session, roster = self.session, self._roster()
        uploads = from_silos(inbox, "upload", self._set("sharers"))
        session.enough(uploads, "uploaded")
        if any(not m.lengths or m.lengths[0] > MAX_HEADER for m in uploads):
            raise SiloBenchError(f"an upload of round {session.round} does not begin with a header")
        headers = {m.frame(0) for m in uploads}
        if len(headers) != 1:
            raise SiloBenchError(f"uploads of round {session.round} have different headers: not all are of one form")
        header = headers.pop()
        form = self._form(header)
        shape = session.payload.shape(form, len(session.participants))
        lengths = session.upload_lengths(header, shape)
        for message in uploads:
            if tuple(message.lengths) != lengths:
                raise SiloBenchError(f"the upload of {message.sender} does not have the form that its header states")
        self._add(uploads, form, shape, roster)
        self.memory.note_once("header", header)
        names = tuple(m.sender for m in uploads)
        self.memory.note_once("survivors", wire.encode_set(names, session.silos))
        yield Outgoing(names, [wire.encode_set(names, session.silos)])

    def confirmed(self, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        """(active) To each silo that signed the survivors (U4), all the signatures."""
        session, roster, body = self.session, self._roster(), self.memory.note("survivors")
        signatures = {}
        for message in from_silos(inbox, "confirm", self._set("survivors")):
            signed, signature = wire.signed_body(message, len(body), roster.randomness, self.directory[message.sender])
            if signed != body:
                raise SiloBenchError(f"{message.sender} confirmed other survivors than it was told")
            signatures[message.sender] = signature
        session.enough_to_open(signatures, "confirmed the survivors")
        frame = wire.encode_set(signatures, session.silos) + b"".join(signatures.values())
        yield Outgoing(tuple(signatures), [frame])

    def open(self, inbox: Sequence[Message]) -> Opened:
        """Puts the shares together and takes all masks off the sum."""
        session, roster = self.session, self._roster()
        sharers, survivors = self._set("sharers"), self._set("survivors")
        secrets = Secrets(session, roster)
        messages = from_silos(inbox, "unmask", survivors)
        session.enough_to_open(messages, "revealed their shares")
        size = 2 * wire.set_size(session.silos) + shamir.SIZE * len(sharers)
        for message in messages:
            body, _ = wire.signed_body(message, size, roster.randomness, self.directory[message.sender])
            if secrets.learn_revealed(message.sender, body) != (survivors, sharers):
                raise SiloBenchError(f"{message.sender} revealed shares of other silos than it was asked for")
        form = self._form(self.memory.note("header"))
        values = opened(secrets, survivors, sharers, form, partial(self._stored, "sum"), partial(self._stored, "extra"))
        self.memory.forget()
        return Opened(values, survivors)

    def _roster(self) -> Roster:
        return Roster.read(self.memory.note("roster"), self.session.silos, self.session.round)

    def _stored(self, name: str, index: int) -> NDArray[Any]:
        return self.memory.array(f"{name}/{index:05d}")

    def _set(self, name: str) -> tuple[str, ...]:
        return wire.decode_set(self.memory.note(name), self.session.silos)

    def _form(self, header: bytes) -> Form:
        return Form.read(header, self.session.public.layout, self.supports(self.session.round))

    def _add(self, uploads: Sequence[Message], form: Form, shape: Shape, roster: Roster) -> None:
        """Frame k of every upload into frame k of the sum, one frame of one silo at a time; then the signatures, each
        over all frames that were added."""
        session = self.session
        signed = wire.signings("upload", session.round, [m.sender for m in uploads], roster.randomness)

        def frames(index: int) -> Iterator[bytes]:
            return (signed[m.sender].add(m.frame(index)) for m in uploads)

        for message in uploads:
            signed[message.sender].add(message.frame(0))
        vector, extras = len(packing.frame_sizes(shape.count, shape.bits)), len(shape.extras)
        for index in range(vector):
            self.memory.note_once(f"sum/{index:05d}", session.summed(frames(1 + index), shape, index))
        for index in range(extras):
            total = session.summed_extra(frames(1 + vector + index), form, index)
            self.memory.note_once(f"extra/{index:05d}", total)
        signatures = {m.sender: m.frame(1 + vector + extras) for m in uploads}
        wire.check_signed("upload", signed, signatures, self.directory)
