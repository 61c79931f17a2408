"""What a round is to all its parties: who may take part, what was agreed, and the keys that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER
from bench.core.update import Form
from bench.defense.channel import Message
from bench.defense.public import Public
from defenses.channels.secagg import wire
from defenses.channels.secagg.masks import Mask
from defenses.channels.secagg.packing import Words, dtype_of, frame_sizes, packed_size, unpack
from defenses.channels.secagg.payload import Agreed, Payload, Shape
from defenses.channels.secagg.policy import Limits, Policy
from defenses.channels.secagg.primitives import KEY, SIGNATURE, TAG, agree, all_distinct, context, seal, unseal, verify
from defenses.channels.secagg.shamir import SIZE

#: what a silo advertises: two public keys and a nonce
ADVERT = 3 * KEY
#: two shares (of the mask key, of the self mask), sealed
SEALED_SHARES = 2 * SIZE + TAG


@dataclass(frozen=True)
class Advert:
    """One silo's public keys of a round, its nonce, and its signature of them."""

    encryption: bytes
    mask: bytes
    nonce: bytes
    signature: bytes

    @classmethod
    def of(cls, body: bytes, signature: bytes) -> Advert:
        encryption, mask, nonce = wire.records(body, KEY, 3)
        return cls(encryption, mask, nonce, signature)

    @property
    def body(self) -> bytes:
        return self.encryption + self.mask + self.nonce


@dataclass(frozen=True)
class Roster:
    """Who advertised keys in a round (U1 of the paper), as the server relays it."""

    round: int
    adverts: Mapping[str, Advert]

    @classmethod
    def read(cls, frame: bytes, silos: Sequence[str], round: int) -> Roster:
        """From a frame: a set of silos, and 160 bytes for each. Raises SiloBenchError; checks no signature."""
        found = wire.set_and_records(frame, silos, ADVERT + SIGNATURE)
        return cls(round, {silo: Advert.of(entry[:ADVERT], entry[ADVERT:]) for silo, entry in found.items()})

    def frame(self, silos: Sequence[str]) -> bytes:
        entries = (self.adverts[silo].body + self.adverts[silo].signature for silo in silos if silo in self.adverts)
        return wire.encode_set(self.adverts, silos) + b"".join(entries)

    def verify(self, directory: Mapping[str, bytes]) -> None:
        """Raises SiloBenchError where a silo did not sign its keys for this round, or two silos' keys are equal."""
        for silo, advert in self.adverts.items():
            about = wire.statement("advertise", self.round, silo, wire.NOTHING_AGREED, advert.body)
            if not verify(directory[silo], about, advert.signature):
                raise SiloBenchError(f"the keys of {silo} in round {self.round} are not signed by it")
        if not all_distinct(key for a in self.adverts.values() for key in (a.encryption, a.mask)):
            raise SiloBenchError(f"two keys of round {self.round} are equal")

    @cached_property
    def randomness(self) -> bytes:
        """SHA-256 over the round and the sorted (silo, nonce) pairs."""
        pairs = [part for silo in sorted(self.adverts) for part in (silo, self.adverts[silo].nonce)]
        return hashlib.sha256(context("agreed", self.round, *pairs)).digest()


@dataclass(frozen=True)
class Session:
    """One round under the public settings."""

    public: Public
    policy: Policy
    payload: Payload
    round: int

    @property
    def silos(self) -> tuple[str, ...]:
        return self.public.silos

    @cached_property
    def participants(self) -> tuple[str, ...]:
        return self.public.participants[self.round]

    @cached_property
    def limits(self) -> Limits:
        return self.policy.limits(len(self.participants))

    def point(self, silo: str) -> int:
        """Where a silo's shares are taken: its place in the public order, from 1."""
        return self.silos.index(silo) + 1

    def agreed(self, roster: Roster) -> Agreed:
        return Agreed(self.round, len(self.participants), roster.randomness)

    def enough(self, silos: Collection[object], did: str) -> None:
        """Raises SiloBenchError where so few silos ``did`` what a sum needs that going on is refused."""
        if len(silos) < self.limits.minimum:
            raise SiloBenchError(
                f"only {len(silos)} of {self.limits.silos} silos {did} in round {self.round}; secure aggregation goes "
                f"on with {self.limits.minimum} or more (threshold {self.limits.threshold}, at least two besides "
                f"{self.policy.colluders} colluders)."
            )

    def enough_to_open(self, silos: Collection[object], did: str) -> None:
        """Raises SiloBenchError where fewer than the threshold ``did`` what opening needs."""
        if len(silos) < self.limits.threshold:
            raise SiloBenchError(
                f"only {len(silos)} of {self.limits.silos} silos {did} in round {self.round}; opening its sum takes "
                f"{self.limits.threshold} (the threshold)."
            )

    def upload_lengths(self, header: bytes, shape: Shape) -> tuple[int, ...]:
        """The lengths in bytes of all frames of an upload: header, packed vector, extra frames, signature."""
        vector = (packed_size(size, shape.bits) for size in frame_sizes(shape.count, shape.bits))
        return (len(header), *vector, *shape.extras, SIGNATURE)

    def summed(self, frames: Iterable[bytes], shape: Shape, index: int) -> Words:
        """Frame ``index`` of the sum of some silos' vectors, from each one's, read one by one."""
        size = frame_sizes(shape.count, shape.bits)[index]
        total = np.zeros(size, dtype=dtype_of(shape.bits))
        for frame in frames:
            np.add(total, unpack(frame, size, shape.bits), out=total)
        return total

    def summed_extra(self, frames: Iterable[bytes], form: Form, index: int) -> NDArray[Any]:
        """The same of extra frame ``index``."""
        total: NDArray[Any] | None = None
        for frame in frames:
            total = self.payload.add_extra(total, index, frame, form, len(self.participants))
        return np.asarray(total)

    def pair_mask(self, roster: Roster, owner: str, secret: bytes, other: str) -> Mask:
        """The mask that ``owner`` adds to its vector for ``other``, from the mask key of ``owner`` (32 bytes);
        ``other`` adds its opposite."""
        first, second = sorted((owner, other), key=self.point)
        keys = (roster.adverts[first].mask, roster.adverts[second].mask)
        info = context("mask", self.round, first, second, *keys)
        key = agree(secret, roster.adverts[other].mask, roster.randomness, info)
        return Mask(key, minus=owner != first)

    def seal_shares(self, roster: Roster, sender: str, secret: bytes, receiver: str, shares: bytes) -> bytes:
        about = context("shares", self.round, sender, receiver)
        return seal(self._share_key(roster, sender, receiver, secret, receiver), shares, about)

    def unseal_shares(self, roster: Roster, sender: str, secret: bytes, receiver: str, sealed: bytes) -> bytes | None:
        """Two shares (64 bytes), with the encryption key of ``receiver``; None where anything was changed."""
        about = context("shares", self.round, sender, receiver)
        return unseal(self._share_key(roster, sender, receiver, secret, sender), sealed, about)

    def _share_key(self, roster: Roster, sender: str, receiver: str, secret: bytes, other: str) -> bytes:
        """One key per direction and round, so that it seals one message."""
        keys = (roster.adverts[sender].encryption, roster.adverts[receiver].encryption)
        info = context("share key", self.round, sender, receiver, *keys)
        return agree(secret, roster.adverts[other].encryption, roster.randomness, info)

    def roster_limit(self) -> int:
        """The longest roster, in bytes."""
        return wire.set_size(self.silos) + len(self.silos) * (ADVERT + SIGNATURE)


def from_server(inbox: Sequence[Message], stage: str) -> Message | None:
    """The server's message of this stage; None where there is none. Raises SiloBenchError where there are several, or
    where it came from anybody else."""
    found = [m for m in inbox if m.stage == stage]
    if len(found) > 1 or any(m.sender != SERVER for m in found):
        raise SiloBenchError(f"there must be one '{stage}' message, and from the server")
    return found[0] if found else None


def from_silos(inbox: Sequence[Message], stage: str, expected: Sequence[str]) -> list[Message]:
    """The messages of a stage, at most one of each of the ``expected`` silos. Raises SiloBenchError for others."""
    found = [m for m in inbox if m.stage == stage]
    senders = [m.sender for m in found]
    if len(set(senders)) != len(senders):
        raise SiloBenchError(f"a silo sent two '{stage}' messages in one round")
    if not set(senders) <= set(expected):
        strangers = ", ".join(sorted(set(senders) - set(expected)))
        raise SiloBenchError(f"{strangers} sent a '{stage}' message and has no part in it")
    return sorted(found, key=lambda m: expected.index(m.sender))
