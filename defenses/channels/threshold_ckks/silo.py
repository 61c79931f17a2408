"""A silo's side: it holds one share of the key, seals its update for all of them, and helps to open the sum, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams, State
from bench.core.update import Update
from bench.defense.channel import Endpoint, Message, Outgoing
from defenses.channels.flat_ckks import check_values
from defenses.channels.secagg import setup, wire
from defenses.channels.secagg.memory import Memory
from defenses.channels.secagg.packing import pack
from defenses.channels.secagg.primitives import KEY, SIGNATURE, sign
from defenses.channels.secagg.session import from_server
from defenses.channels.threshold_ckks import ring
from defenses.channels.threshold_ckks import session as agreement
from defenses.channels.threshold_ckks.ring import Limbs
from defenses.channels.threshold_ckks.sampling import ternary
from defenses.channels.threshold_ckks.scheme import Sealer, decryption_share, key_share
from defenses.channels.threshold_ckks.session import SETUP, Session

#: notes of set-up: the collective key, and what signatures of rounds are bound to
COLLECTIVE, AGREED, SEED = "collective", "agreed", "seed"
#: the secret key's entry; under ``keys/`` of the silo's state
SECRET = "secret"

#: in which a silo sends something to the server; each is a method
_STAGES = (agreement.COMMIT, agreement.REVEAL, agreement.KEY_SHARE, agreement.UPLOAD, agreement.SHARE)


class Silo(Endpoint):
    """``secret``: the silo's own randomness."""

    _update: Update | None = None

    def __init__(self, me: str, session: Session, state: State, secret: SecretStreams) -> None:
        self.me, self.session, self.state, self.streams = me, session, state, secret
        self.setup = Memory(state, SETUP)

    def contribute(self, round: int, update: Update) -> None:
        self._update = update

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        setup.learn_directory(self.state, inbox, self.session.public)
        self._learn_keys([m for m in inbox if m.round == SETUP])
        if stage == setup.REGISTER:
            self.session.check()  # before anybody trains
            yield setup.register(self.state, self.streams)
            return
        if stage in _STAGES:
            frames = getattr(self, stage)(round, [m for m in inbox if m.round == round])
            if frames is not None:
                yield Outgoing((SERVER,), frames)

    @property
    def directory(self) -> Mapping[str, bytes]:
        return setup.directory(self.state, self.session.public)

    # set-up

    def commit(self, round: int, inbox: Sequence[Message]) -> Iterator[bytes]:
        """32 bytes that fix this silo's part in the public element, and tell nothing of it."""
        nonce = self.setup.keep_secret("nonce", self.streams.token("threshold/nonce", size=KEY))
        return self._signed(agreement.COMMIT, SETUP, wire.NOTHING_AGREED, [agreement.commitment(self.me, nonce)])

    def reveal(self, round: int, inbox: Sequence[Message]) -> Iterator[bytes] | None:
        """The nonce, once all commitments are known."""
        message = from_server(inbox, agreement.COMMITS)
        if message is None:
            return None
        frame = wire.only_frame(message, len(self.session.silos) * (KEY + SIGNATURE))
        agreement.relayed(frame, agreement.COMMIT, self.directory)  # every silo signed its own, this one too
        self.setup.note_once(agreement.COMMITS, frame)
        return self._signed(agreement.REVEAL, SETUP, wire.NOTHING_AGREED, [self.setup.secret("nonce")])

    def key(self, round: int, inbox: Sequence[Message]) -> Iterator[bytes] | None:
        """This silo's public keys, K ring elements, for secret ones that it keeps."""
        message = from_server(inbox, agreement.REVEALS)
        if message is None:
            return None
        frame = wire.only_frame(message, len(self.session.silos) * (KEY + SIGNATURE))
        revealed = agreement.relayed(frame, agreement.REVEAL, self.directory)
        commits = agreement.relayed(self.setup.note(agreement.COMMITS), agreement.COMMIT, self.directory)
        seed = agreement.opened_seed(commits, revealed)
        self.setup.note_once(SEED, seed)
        p = self.session.parameters
        secrets = ternary(self.streams.generator("threshold/secret"), p.keys, p.degree)
        self.setup.keep_secret(SECRET, secrets.tobytes())
        keys = key_share(p, ring.public_element(seed, p), secrets, self.streams.generator("threshold/key"))
        return self._signed(agreement.KEY_SHARE, SETUP, seed, (ring.to_bytes(key, p) for key in keys))

    def _learn_keys(self, inbox: Sequence[Message]) -> None:
        """Adds up the silos' public keys, whenever they arrive. Each silo signed its own, so nobody else's is in."""
        message = from_server(inbox, agreement.KEYS)
        if message is None:
            return
        session, p = self.session, self.session.parameters
        wire.expect_lengths([message], session.key_lengths(len(session.silos)))
        seed = self.setup.note(SEED)
        signed = wire.signings(agreement.KEY_SHARE, SETUP, session.silos, seed)
        total = session.verified_sum(message, 0, p.keys, signed, self.directory)
        self.setup.note_once(COLLECTIVE, total.astype(np.uint32))
        self.setup.note_once(AGREED, agreement.agreed_on(seed, [s.statement() for s in signed.values()]))

    # rounds

    def upload(self, round: int, inbox: Sequence[Message]) -> Iterator[bytes] | None:
        """The sealed update, once per round. Raises SiloBenchError for values that can't be sealed."""
        update, session = self._update, self.session
        if update is None or self.me not in session.participants(round):
            return None
        if update.grid is not None or update.values.shape != (update.form.count,):
            raise SiloBenchError("threshold-ckks takes real values only")
        check_values(update.values, session.public.weights[self.me], session.terms.largest, "threshold-ckks")
        Memory(self.state, round).note_once("uploaded", b"\1")
        return self._sealed(round, update)

    def _sealed(self, round: int, update: Update) -> Iterator[bytes]:
        """Header; random half and sealed values of each group; the signatures of header and halves, and of all."""
        p, agreed, header = self.session.parameters, self.setup.note(AGREED), update.form.header()
        halves = wire.Signing(agreement.HALVES, round, self.me, agreed)
        whole = wire.Signing(agreement.UPLOAD, round, self.me, agreed)
        element = ring.public_element(self.setup.note(SEED), p)
        sealer = Sealer(p, element, self.setup.array(COLLECTIVE), self.streams.generator("threshold/seal", round))
        yield whole.add(halves.add(header))
        start = 0
        for count in p.groups(len(update.values)):
            values = update.values[start : start + count].astype(np.float64)
            first, tops = sealer.group(np.rint(values / p.unit).astype(np.int64))
            start += count
            yield whole.add(halves.add(ring.to_bytes(first, p)))
            yield whole.add(pack(tops, p.sent))
        identity = setup.identity(self.state)
        yield sign(identity, halves.statement()) + sign(identity, whole.statement())

    def share(self, round: int, inbox: Sequence[Message]) -> Iterator[bytes] | None:
        """The flooded decryption share of the sum over all the round's participants, once per round.

        The silo adds the random halves itself, each signed by the silo whose it is: whatever the server sends, it
        gets a share for nothing else.
        """
        message = from_server(inbox, agreement.SUM)
        if message is None:
            return None
        session, p = self.session, self.session.parameters
        header = agreement.header_of(message)
        count = agreement.values_in(header, session.public.layout)
        participants = session.participants(round)
        wire.expect_lengths([message], session.sum_lengths(header, count, len(participants)))
        signed = wire.signings(agreement.HALVES, round, participants, self.setup.note(AGREED))
        for signing in signed.values():
            signing.add(header)
        groups = p.groups(count)
        total = session.verified_sum(message, 1, len(groups), signed, self.directory)
        Memory(self.state, round).note_once("shared", b"\1")
        about = agreement.asked_for(self.setup.note(AGREED), signed)
        return self._signed(agreement.SHARE, round, about, self._shares(round, total, groups))

    def _shares(self, round: int, firsts: Limbs, groups: Sequence[int]) -> Iterator[bytes]:
        p = self.session.parameters
        secrets = secret_keys(self.setup.secret(SECRET), self.session)
        generator = self.streams.generator("threshold/flood", round)
        for first, count in zip(firsts, groups, strict=True):
            yield pack(decryption_share(p, first, secrets, count, generator), p.sent)

    def _signed(self, stage: str, round: int, agreed: bytes, frames: Iterable[bytes]) -> Iterator[bytes]:
        return wire.signed(stage, round, self.me, agreed, frames, setup.identity(self.state))


def secret_keys(raw: bytes, session: Session) -> NDArray[np.int8]:
    """(K, N) of a stored secret. Raises SiloBenchError where it is none of this federation's."""
    p = session.parameters
    if len(raw) != p.keys * p.degree:
        raise SiloBenchError(f"{len(raw)} bytes are no secret keys of this federation")
    return np.frombuffer(raw, dtype=np.int8).reshape(p.keys, p.degree)
