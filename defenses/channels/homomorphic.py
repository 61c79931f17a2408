"""What CKKS and BFV sums have in common: a dealer, one key pair for all silos, ciphertexts added frame by frame.

``KeyPairSum`` is common to all of them; ``HomomorphicSum`` to those of which a ciphertext travels without metadata.

Where the silos hold the key, they encrypt symmetrically: half the time and a fifth of the noise of public-key
encryption, and the server needs no key at all, only the parameters. Where the server opens, silos have the public key.

Who is protected from whom. All key holders share one key: a silo that sees another's upload reads it, so nothing is
hidden from a server that colludes with one silo. Silos encrypt, nobody proves what: a malicious silo can corrupt a sum.
Parties are taken to follow the protocol. None of this is secure against chosen ciphertexts: a malicious server can hand
the silos any ciphertext as a sum, and what it then learns of what they opened may give it the key. The dealer knows
every key.

SEAL draws keys and noise from the operating system, also under a ``secret_seed``.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError, raising
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.public import Public
from bench.defense.sum_channel import SumChannel
from defenses.channels.seal_ciphertexts import Codec, encrypt, new_context, save_context
from defenses.channels.seal_parameters import Parameters

KeyHolder = Literal["silos", "server"]


@dataclass
class Sum:
    """A running sum, changed in place: the ciphertext, and how many were added."""

    vector: Any
    count: int = 1


class KeyPairSum(SumChannel):
    """``key_holder``: who has the secret key and opens the sum, all silos or the server."""

    dealt = True
    #: in refusals
    name = "this channel"

    def __init__(self, key_holder: KeyHolder = "silos") -> None:
        self.opener = key_holder

    @abstractmethod
    def key_pair(self, public: Public) -> tuple[bytes, bytes]:
        """A fresh one: TenSEAL contexts with the secret key and without."""

    @abstractmethod
    def load(self, raw: bytes) -> Any:
        """A context of ``key_pair``. Raises SiloBenchError on bad bytes and on other parameters."""

    @abstractmethod
    def parse(self, context: Any, frame: bytes) -> Any:
        """A frame as a TenSEAL vector of one ciphertext. Raises SiloBenchError on anything else."""

    @abstractmethod
    def pack(self, total: Sum) -> bytes:
        """A sum as a frame."""

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        """One key pair: the secret key to its holders, the public one (or bare parameters) to the others."""
        private, open_to_all = self.key_pair(public)
        holders = {SERVER} if self.opener == "server" else set(public.silos)
        parties = (*public.silos, SERVER)
        return {party: {"secret": private} if party in holders else {"public": open_to_all} for party in parties}

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        vector = self.parse(self.context(keys), frame)
        if total is None:
            return Sum(vector)
        if not isinstance(total, Sum):
            raise SiloBenchError(f"this sum was not started by {self.name}")
        # TenSEAL spreads a vector of one value over a longer one: lengths are ours to compare
        if vector.size() != total.vector.size():
            raise SiloBenchError(f"a ciphertext of {vector.size()} values can't be added to {total.vector.size()}")
        with raising(SiloBenchError, "a ciphertext can't be added"):
            total.vector += vector
        total.count += 1
        return total

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        if not isinstance(total, Sum):
            raise SiloBenchError("there is nothing to finish: no ciphertext was added")
        return self.pack(total)

    def context(self, keys: Mapping[str, bytes]) -> Any:
        """The loaded key. Raises SiloBenchError where none is there or it does not fit."""
        raw = keys.get("secret") or keys.get("public")
        if raw is None:
            raise SiloBenchError(f"no key of {self.name} has arrived")
        return self.load(raw)


class HomomorphicSum(KeyPairSum):
    """Its parameters depend on how many ``silos`` there are at most, and on their public ``weight`` in all."""

    silos, weight = 1, 1

    @property
    def symmetric(self) -> bool:
        return self.opener == "silos"

    @abstractmethod
    def parameters(self) -> Parameters:
        """For sums of up to ``silos`` uploads."""

    @abstractmethod
    def encode(self, update: Update) -> Iterator[NDArray[Any]]:
        """The numbers of each ciphertext, up to as many as it has slots."""

    @abstractmethod
    def decode(self, numbers: Iterator[NDArray[Any]], form: Form, count: int) -> NDArray[Any]:
        """(form.count,) values of a sum of ``count`` uploads from what the ciphertexts decrypt to, every slot of
        them, of which it takes as many as it needs. Raises CannotOpen."""

    def for_silos(self, silos: int, weight: int | None = None) -> Self:
        """This channel for a federation of ``silos`` of so much weight in all (None: 1 each)."""
        other = copy.copy(self)
        other.silos, other.weight = silos, weight or silos
        return other

    def for_public(self, public: Public) -> Self:
        return self.for_silos(len(public.silos), sum(public.weights.values()))

    def key_pair(self, public: Public) -> tuple[bytes, bytes]:
        parameters = self.for_public(public).parameters()
        context = new_context(parameters)
        return save_context(context, parameters, secret=True), save_context(context, parameters, secret=False)

    def load(self, raw: bytes) -> Any:
        return _loaded(self.parameters(), raw)

    def parse(self, context: Any, frame: bytes) -> Any:
        return self.codec().unpack(context, frame)

    def pack(self, total: Sum) -> bytes:
        return self.codec().pack(total.vector)

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        """One frame per ciphertext. Raises SiloBenchError for values that this channel can't carry."""
        context, codec = self.context(keys), self.codec()
        slots = codec.parameters.slots
        for numbers in self.encode(update):
            full = np.pad(numbers, (0, slots - len(numbers)))
            yield codec.pack(encrypt(context, codec.parameters, full))

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        with raising(CannotOpen, of=SiloBenchError):
            context = self.context(keys)
        if not context.has_secret_key():
            raise CannotOpen("the secret key is not among the keys at hand")
        if count > self.silos:
            raise CannotOpen(f"a sum of {count} uploads was not foreseen; the parameters are for {self.silos}")
        values = self.decode(self._decrypted(frames, context), form, max(count, 1))
        if next(frames, None) is not None:
            raise CannotOpen("there are more ciphertexts than the values need")
        return form.spread(values)

    def _decrypted(self, frames: Iterator[bytes], context: Any) -> Iterator[NDArray[Any]]:
        codec = self.codec()
        for frame in frames:
            with raising(CannotOpen, "a ciphertext can't be decrypted"):
                numbers = np.asarray(codec.unpack(context, frame).decrypt())
            if numbers.shape != (codec.parameters.slots,):
                raise CannotOpen("a ciphertext does not decrypt to as many numbers as it has slots")
            yield numbers

    def codec(self) -> Codec:
        return _codec(self.parameters())


@lru_cache(maxsize=8)
def _codec(parameters: Parameters) -> Codec:
    return Codec(parameters)


# parsing a context takes milliseconds and every frame needs one; a federation has two (secret and public)
@lru_cache(maxsize=2)
def _loaded(parameters: Parameters, raw: bytes) -> Any:
    return _codec(parameters).load_context(raw)


def gather(numbers: Iterator[NDArray[Any]], size: int, dtype: type) -> NDArray[Any]:
    """The first ``size`` of the numbers of several ciphertexts. Raises CannotOpen where there are fewer."""
    parts: list[NDArray[Any]] = [np.empty(0, dtype=dtype)]
    missing = size
    while missing > 0:
        part = next(numbers, None)
        if part is None:
            raise CannotOpen("there are fewer ciphertexts than the values need")
        parts.append(part[:missing])
        missing -= len(part)
    return np.concatenate(parts)


def chunks(values: NDArray[Any], width: int) -> Iterator[NDArray[Any]]:
    """``values`` cut every ``width``."""
    for start in range(0, len(values), width):
        yield values[start : start + width]
