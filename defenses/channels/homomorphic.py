"""What CKKS and BFV sums have in common: a dealer, one key pair for all silos, ciphertexts added frame by frame.

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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams, State
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Endpoint, Knowledge
from bench.defense.public import Public
from bench.defense.sum_channel import SumChannel
from defenses.channels.seal_ciphertexts import Codec, encrypt, new_context, save_context
from defenses.channels.seal_parameters import Parameters

KeyHolder = Literal["silos", "server"]
_CACHED_KEYS = 2


@dataclass
class _Sum:
    """A running sum, changed in place."""

    vector: Any


class HomomorphicSum(SumChannel):
    """``key_holder``: who has the secret key and opens the sum, all silos or the server."""

    dealt = True

    def __init__(self, key_holder: KeyHolder = "silos") -> None:
        self.opener = key_holder
        #: how many silos there are at most, and their public weight in all; the parameters depend on them
        self.silos, self.weight = 1, 1
        self._family: dict[tuple[int, int], Self] = {}
        # parsing a context takes milliseconds and every frame needs one; a federation has two (secret and public)
        self._contexts: list[tuple[bytes, Any]] = []
        self._codecs: list[Codec] = []

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
        """This channel for a federation of ``silos`` of so much weight in all (None: 1 each); always the same object
        for the same federation."""
        key = silos, weight or silos
        if key == (self.silos, self.weight):
            return self
        if key not in self._family:
            other = copy.copy(self)
            other.silos, other.weight = key
            other._contexts, other._codecs = [], []
            self._family[key] = other
        return self._family[key]

    def for_public(self, public: Public) -> Self:
        return self.for_silos(len(public.silos), sum(public.weights.values()))

    def endpoint(self, me: str, public: Public, state: State, secret: SecretStreams) -> Endpoint:
        return SumChannel.endpoint(self.for_public(public), me, public, state, secret)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        return SumChannel.read(self.for_public(knowledge.public), knowledge)

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        """One key pair: the secret key to its holders, the public one (or bare parameters) to the others."""
        parameters = self.for_public(public).parameters()
        context = new_context(parameters)
        private = {"secret": save_context(context, parameters, secret=True)}
        open_to_all = {"public": save_context(context, parameters, secret=False)}
        holders = {SERVER} if self.opener == "server" else set(public.silos)
        return {party: private if party in holders else open_to_all for party in (*public.silos, SERVER)}

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        """One frame per ciphertext. Raises SiloBenchError for values that this channel can't carry."""
        context, codec = self.context(keys), self.codec()
        slots = codec.parameters.slots
        for numbers in self.encode(update):
            full = np.zeros(slots, dtype=numbers.dtype)
            full[: len(numbers)] = numbers
            yield codec.pack(encrypt(context, codec.parameters, full))

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        vector = self.codec().unpack(self.context(keys), frame)
        if total is None:
            return _Sum(vector)
        if not isinstance(total, _Sum):
            raise SiloBenchError("this sum was not started by this channel")
        try:
            total.vector += vector
        except Exception as error:
            raise SiloBenchError(f"a ciphertext can't be added: {error}") from None
        return total

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        if not isinstance(total, _Sum):
            raise SiloBenchError("there is nothing to finish: no ciphertext was added")
        return self.codec().pack(total.vector)

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        try:
            context = self.context(keys)
        except SiloBenchError as error:
            raise CannotOpen(str(error)) from None
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
            try:
                numbers = np.asarray(codec.unpack(context, frame).decrypt())
            except Exception as error:
                raise CannotOpen(f"a ciphertext can't be decrypted: {error}") from None
            if numbers.shape != (codec.parameters.slots,):
                raise CannotOpen("a ciphertext does not decrypt to as many numbers as it has slots")
            yield numbers

    def codec(self) -> Codec:
        if not self._codecs:
            self._codecs.append(Codec(self.parameters()))
        return self._codecs[0]

    def context(self, keys: Mapping[str, bytes]) -> Any:
        """The loaded key. Raises SiloBenchError where none is there or it does not fit."""
        raw = keys.get("secret") or keys.get("public")
        if raw is None:
            raise SiloBenchError("no key of this channel has arrived")
        for known, context in self._contexts:
            if known == raw:
                return context
        context = self.codec().load_context(raw)
        self._contexts[:] = [*self._contexts, (raw, context)][-_CACHED_KEYS:]
        return context


def gather(numbers: Iterator[NDArray[Any]], size: int, dtype: type) -> NDArray[Any]:
    """The first ``size`` of the numbers of several ciphertexts. Raises CannotOpen where there are fewer."""
    values: NDArray[Any] = np.empty(size, dtype=dtype)
    filled = 0
    while filled < size:
        part = next(numbers, None)
        if part is None:
            raise CannotOpen("there are fewer ciphertexts than the values need")
        part = part[: size - filled]
        values[filled : filled + len(part)] = part
        filled += len(part)
    return values


def chunks(values: NDArray[Any], width: int) -> Iterator[NDArray[Any]]:
    """``values`` cut every ``width``."""
    for start in range(0, len(values), width):
        yield values[start : start + width]
