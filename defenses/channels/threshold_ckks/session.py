"""What all parties know of a federation and its rounds: parameters, forms of messages, and what is signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.core.errors import SiloBenchError, UsageError, raising
from bench.core.update import MAX_HEADER, Layout
from bench.defense.channel import Message
from bench.defense.public import Public
from defenses.channels.secagg import wire
from defenses.channels.secagg.primitives import KEY, SIGNATURE, context
from defenses.channels.secagg.session import from_silos
from defenses.channels.threshold_ckks import ring
from defenses.channels.threshold_ckks.parameters import Parameters, choose
from defenses.channels.threshold_ckks.ring import Limbs

#: stages; ``keys`` and ``sum`` relay ring elements of several silos with their signatures
COMMIT, COMMITS, REVEAL, REVEALS, KEY_SHARE, KEYS = "commit", "commits", "reveal", "reveals", "key", "keys"
UPLOAD, SUM, SHARE, OPEN = "upload", "sum", "share", "open"
#: what the signature over header and random halves is for; it travels with an upload, and on in ``sum``
HALVES = "halves"
#: the round of everything before round 0
SETUP = -1

Signings = Mapping[str, wire.Signing]


@dataclass(frozen=True)
class Terms:
    """What is asked of a sum. ``error``: what a value may be off by, absolutely. ``largest``: magnitude of a silo's
    values per unit of its public weight. ``flooding``: all decryption shares together show more than sums with
    probability at most 2**-flooding. ``degree``: of the ring, at least."""

    error: float
    largest: float
    flooding: int
    degree: int = 4096

    def parameters(self, public: Public) -> Parameters:
        """Raises UsageError where nothing secure would do."""
        silos, weight, size = len(public.silos), sum(public.weights.values()), public.layout.size
        return choose(silos, weight, size, public.rounds, self.error, self.largest, self.flooding, self.degree)


@dataclass(frozen=True)
class Session:
    """One federation."""

    public: Public
    terms: Terms

    @cached_property
    def parameters(self) -> Parameters:
        return self.terms.parameters(self.public)

    @property
    def silos(self) -> tuple[str, ...]:
        return self.public.silos

    def check(self) -> None:
        """Raises UsageError where some round would show a single update, or no parameters are secure."""
        for number, silos in enumerate(self.public.participants):
            if len(silos) < 2:
                raise UsageError(
                    f"threshold-ckks: {len(silos)} silo takes part in round {number}: the sum would be its update. "
                    "At least two are needed."
                )
        self.parameters  # noqa: B018 - raises

    def participants(self, round: int) -> tuple[str, ...]:
        return self.public.participants[round]

    def upload_lengths(self, header: bytes, count: int) -> tuple[int, ...]:
        """Header; for every group its random half and its sealed values; two signatures."""
        p = self.parameters
        groups = [length for top in p.tops(count) for length in (p.element, top)]
        return (len(header), *groups, 2 * SIGNATURE)

    def sum_lengths(self, header: bytes, count: int, silos: int) -> tuple[int, ...]:
        """Header; the random halves of every silo's groups; their signatures."""
        halves = (self.parameters.element,) * (silos * len(self.parameters.groups(count)))
        return (len(header), *halves, silos * SIGNATURE)

    def share_lengths(self, count: int) -> tuple[int, ...]:
        return (*self.parameters.tops(count), SIGNATURE)

    def key_lengths(self, silos: int) -> tuple[int, ...]:
        """``silos`` silos' public keys, and their signatures."""
        return (self.parameters.element,) * (silos * self.parameters.keys) + (silos * SIGNATURE,)

    def verified_sum(
        self, message: Message, start: int, count: int, signed: Signings, directory: Mapping[str, bytes]
    ) -> Limbs:
        """(count, limbs, N), reduced: the sums of ``count`` elements of each silo of ``signed``, silo by silo from
        frame ``start`` on, signatures last. Raises SiloBenchError where a silo did not sign its elements."""
        p = self.parameters
        total = np.zeros((count, p.limbs, p.degree), dtype=np.int64)
        for signing in signed.values():
            for element in total:
                element += ring.from_bytes(signing.add(message.frame(start)), p)
                start += 1
        signatures = wire.records(message.frame(start), SIGNATURE, len(signed))
        wire.check_signed(f"'{message.stage}' message", signed, dict(zip(signed, signatures, strict=True)), directory)
        return ring.reduce(total, p.width)


def asked_for(agreed: bytes, halves: Signings) -> bytes:
    """What a decryption share is bound to beside its round: the very uploads whose sum it is of, whose random halves
    are fresh whenever a silo seals. A round that is done again after a kill has others, and a share of its former
    attempt is none of this one's."""
    return agreed_on(agreed, [signing.statement() for signing in halves.values()])


def header_of(message: Message) -> bytes:
    """The first frame. Raises SiloBenchError where there is none, or it is too long for one."""
    if not message.lengths or message.lengths[0] > MAX_HEADER:
        raise SiloBenchError(f"the '{message.stage}' message of {message.sender} does not begin with a header")
    return message.frame(0)


def values_in(header: bytes, layout: Layout) -> int:
    """How many values a header says that every upload holds. All that a silo needs to know to share in decrypting a
    round that it has no part in, whose support it may not know. Raises SiloBenchError."""
    with raising(SiloBenchError, "a message's header is malformed", (ValueError, KeyError, TypeError, RecursionError)):
        count = json.loads(header)["values"]
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= layout.size:
        raise SiloBenchError(f"a message's header names {count!r} values of an adapter of {layout.size}")
    return count


def relayed(frame: bytes, stage: str, directory: Mapping[str, bytes]) -> dict[str, bytes]:
    """32 bytes of every silo of ``directory``, each with its signature, as the server relays them: ``commits`` and
    ``reveals``. Raises SiloBenchError for another length, and where one is not signed by its silo in this stage."""
    entries = dict(zip(directory, wire.records(frame, KEY + SIGNATURE, len(directory)), strict=True))
    signed = wire.signings(stage, SETUP, directory, wire.NOTHING_AGREED)
    for silo, entry in entries.items():
        signed[silo].add(entry[:KEY])
    wire.check_signed(f"'{stage}' message", signed, {silo: entry[KEY:] for silo, entry in entries.items()}, directory)
    return {silo: entry[:KEY] for silo, entry in entries.items()}


def commitment(silo: str, nonce: bytes) -> bytes:
    return hashlib.sha256(context("threshold-ckks commitment", silo, nonce)).digest()


def opened_seed(commits: Mapping[str, bytes], nonces: Mapping[str, bytes]) -> bytes:
    """The seed of the public element: every silo's nonce is in it, and was fixed before any was known.

    Raises SiloBenchError where a silo committed itself to another nonce.
    """
    for silo, nonce in nonces.items():
        if commits[silo] != commitment(silo, nonce):
            raise SiloBenchError(f"{silo} revealed another nonce than it committed itself to")
    pairs = [part for silo, nonce in nonces.items() for part in (silo, nonce)]
    return hashlib.sha256(context("threshold-ckks seed", *pairs)).digest()


def agreed_on(seed: bytes, statements: Iterable[bytes]) -> bytes:
    """What every signature of a round is bound to: the seed and all silos' public keys, as each signed them."""
    return hashlib.sha256(context("threshold-ckks agreed", seed, *statements)).digest()


def from_all(inbox: Sequence[Message], stage: str, round: int, silos: Sequence[str]) -> list[Message]:
    """One message of each of ``silos``. Raises SiloBenchError where one sent nothing: nothing opens without all."""
    messages = from_silos(inbox, stage, silos)
    missing = [silo for silo in silos if silo not in {m.sender for m in messages}]
    if missing:
        where = "set-up" if round == SETUP else f"round {round}"
        raise SiloBenchError(
            f"threshold-ckks needs the '{stage}' message of every silo in {where}, and {', '.join(missing)} sent none: "
            "no sum opens without all holders of the key."
        )
    return messages
