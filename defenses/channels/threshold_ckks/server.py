"""The server's side. It holds no key: it relays, adds, and opens a sum with the decryption shares of all silos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.streams import State
from bench.core.update import Form
from bench.defense.channel import Endpoint, Message, Opened, Outgoing, Supports
from defenses.channels.secagg import setup, wire
from defenses.channels.secagg.memory import Memory
from defenses.channels.secagg.packing import dtype_of, unpack
from defenses.channels.secagg.primitives import KEY, SIGNATURE
from defenses.channels.threshold_ckks import scheme
from defenses.channels.threshold_ckks import session as agreement
from defenses.channels.threshold_ckks.session import SETUP, Session
from defenses.channels.threshold_ckks.silo import AGREED, SEED

#: in which the server sends something to all silos; each is a method
_STAGES = (agreement.COMMITS, agreement.REVEALS, agreement.KEYS, agreement.SUM)


class Server(Endpoint):
    """One server, honest or curious."""

    def __init__(self, session: Session, state: State, supports: Supports) -> None:
        self.session, self.state, self.supports = session, state, supports
        self.setup = Memory(state, SETUP)
        self._opened: list[tuple[int, Opened]] = []

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        setup.learn_directory(self.state, inbox, self.session.public)
        here = [m for m in inbox if m.round == round]
        if stage in _STAGES:
            yield Outgoing(self.session.silos, getattr(self, stage)(round, here))
        elif stage == agreement.OPEN:
            self._opened.append((round, self.open(round, here)))

    def opened(self) -> Iterable[tuple[int, Opened]]:
        return self._opened

    @property
    def directory(self) -> Mapping[str, bytes]:
        return setup.directory(self.state, self.session.public)

    def commits(self, round: int, inbox: Sequence[Message]) -> Iterable[bytes]:
        """All commitments, to all."""
        frame, _ = self._relayed(agreement.COMMIT, inbox)
        self.setup.note_once(agreement.COMMITS, frame)
        return [frame]

    def reveals(self, round: int, inbox: Sequence[Message]) -> Iterable[bytes]:
        """All nonces, to all."""
        frame, nonces = self._relayed(agreement.REVEAL, inbox)
        commits = agreement.relayed(self.setup.note(agreement.COMMITS), agreement.COMMIT, self.directory)
        self.setup.note_once(SEED, agreement.opened_seed(commits, nonces))
        return [frame]

    def _relayed(self, stage: str, inbox: Sequence[Message]) -> tuple[bytes, dict[str, bytes]]:
        """What to relay of a stage of set-up, and what it says, checked."""
        messages = agreement.from_all(inbox, stage, SETUP, self.session.silos)
        frame = b"".join(part for m in messages for part in wire.body_and_signature(m, KEY))
        return frame, agreement.relayed(frame, stage, self.directory)

    def keys(self, round: int, inbox: Sequence[Message]) -> Iterator[bytes]:
        """All silos' public keys, to all, with the signature of each."""
        session, seed = self.session, self.setup.note(SEED)
        messages = agreement.from_all(inbox, agreement.KEY_SHARE, SETUP, session.silos)
        wire.expect_lengths(messages, session.key_lengths(1))
        signed = wire.signings(agreement.KEY_SHARE, SETUP, session.silos, seed)
        last = session.parameters.keys
        for message in messages:
            for index in range(last):
                signed[message.sender].add(message.frame(index))
        signatures = {m.sender: m.frame(last) for m in messages}
        wire.check_signed("'key' message", signed, signatures, self.directory)
        self.setup.note_once(AGREED, agreement.agreed_on(seed, [s.statement() for s in signed.values()]))
        return chain((m.frame(k) for m in messages for k in range(last)), [b"".join(signatures.values())])

    def sum(self, round: int, inbox: Sequence[Message]) -> Iterator[bytes]:
        """Adds the sealed values; to all silos, the random halves of all uploads, for which a share is asked."""
        session, participants = self.session, self.session.participants(round)
        uploads = agreement.from_all(inbox, agreement.UPLOAD, round, participants)
        headers = {agreement.header_of(m) for m in uploads}
        if len(headers) != 1:
            raise SiloBenchError(f"uploads of round {round} have different headers: not all are of one form")
        header = headers.pop()
        count = Form.read(header, session.public.layout, self.supports(round)).count
        wire.expect_lengths(uploads, session.upload_lengths(header, count))
        signatures = self._add(round, header, count, uploads)
        groups = len(session.parameters.groups(count))
        halves = (m.frame(1 + 2 * g) for m in uploads for g in range(groups))
        return chain([header], halves, [b"".join(signatures.values())])

    def _add(self, round: int, header: bytes, count: int, uploads: Sequence[Message]) -> Mapping[str, bytes]:
        """Adds group g of every upload, one after the other; the signatures of the random halves."""
        p, agreed, memory = self.session.parameters, self.setup.note(AGREED), Memory(self.state, round)
        senders = [m.sender for m in uploads]
        halves = wire.signings(agreement.HALVES, round, senders, agreed)
        whole = wire.signings(agreement.UPLOAD, round, senders, agreed)
        for signing in (*halves.values(), *whole.values()):
            signing.add(header)
        for g, values in enumerate(p.groups(count)):
            total = np.zeros(values, dtype=np.uint64)
            for message in uploads:
                silo = message.sender
                whole[silo].add(halves[silo].add(message.frame(1 + 2 * g)))
                total += unpack(whole[silo].add(message.frame(2 + 2 * g)), values, p.sent)
            total &= np.uint64(2**p.sent - 1)
            memory.note_once(f"sum/{g:05d}", total.astype(dtype_of(p.sent)))
        memory.note_once("header", header)
        last = {m.sender: m.frame(len(m.lengths) - 1) for m in uploads}
        first = {silo: both[:SIGNATURE] for silo, both in last.items()}
        second = {silo: both[SIGNATURE:] for silo, both in last.items()}
        for signed, signatures in ((halves, first), (whole, second)):
            wire.check_signed("'upload' message", signed, signatures, self.directory)
        memory.note_once("asked", agreement.asked_for(agreed, halves))
        return first

    def open(self, round: int, inbox: Sequence[Message]) -> Opened:
        """The sum over all participants, from the sealed sum and the shares of all silos of the federation."""
        session, memory, p = self.session, Memory(self.state, round), self.session.parameters
        messages = agreement.from_all(inbox, agreement.SHARE, round, session.silos)
        form = Form.read(memory.note("header"), session.public.layout, self.supports(round))
        signed = wire.signings(agreement.SHARE, round, session.silos, memory.note("asked"))
        groups = p.groups(form.count)
        wire.expect_lengths(messages, session.share_lengths(form.count))
        values = np.empty(form.count, dtype=np.float64)
        start, largest = 0, 0
        for g, count in enumerate(groups):
            total = memory.array(f"sum/{g:05d}").astype(np.uint64)
            for message in messages:
                total += unpack(signed[message.sender].add(message.frame(g)), count, p.sent)
            units = scheme.centred(total, p)
            largest = max(largest, int(np.abs(units).max(initial=0)))
            np.multiply(units, p.unit, out=values[start : start + count])
            start += count
        signatures = {m.sender: m.frame(len(groups)) for m in messages}
        wire.check_signed("'share' message", signed, signatures, self.directory)
        if largest > p.most + p.rounding:
            raise SiloBenchError(f"the sum of round {round} does not open: uploads and shares do not belong together")
        memory.forget()
        return Opened(form.spread(values), session.participants(round))
