"""Named streams of randomness: public ones from the run's seed, secret ones from the operating system.

A name and integers select a stream; two different selections are independent (NumPy ``SeedSequence``), and
asking twice for the same one gives the same numbers. There is no global generator anywhere.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A part's memory between rounds; arrays only, stored by the harness after every round.
State = MutableMapping[str, NDArray[Any]]


def _words(text: str) -> list[int]:
    raw = hashlib.sha256(text.encode()).digest()
    return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, 16, 4)]


class Streams:
    """Public randomness: ``seed`` is in the result, so anyone may redraw these numbers. ``prefix``: of every stream's
    name."""

    def __init__(self, seed: int, prefix: str = "") -> None:
        if seed < 0:
            raise ValueError(f"a seed is a non-negative integer, not {seed}")
        self.seed, self.prefix = seed, prefix

    def generator(self, name: str, *indices: int) -> np.random.Generator:
        """The stream ``name`` (for instance ``"silo"``) at ``indices`` (for instance silo and round)."""
        return np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([self.seed, *_words(self.prefix + name), *indices]))
        )


class SecretStreams:
    """Secret randomness of one owner (the game, or one party).

    Without ``secret_seed`` every call draws fresh entropy from the operating system and expands it with a
    cryptographic generator (AES in counter mode, package ``randomgen``); nothing is repeatable and nothing can
    be derived from the public seed. With ``secret_seed`` (tests, CI) it is derived from that number, the owner
    and the name, and ``simulated`` is True: such a run makes no claim.
    """

    def __init__(self, owner: str, secret_seed: int | None = None) -> None:
        self.owner = owner
        self._secret_seed = secret_seed

    @property
    def simulated(self) -> bool:
        """True where everything follows from a number, so that whoever knows it knows the secrets."""
        return self._secret_seed is not None

    def token(self, name: str, *indices: int, size: int = 32) -> bytes:
        """``size`` secret bytes for a key, a seed or a pad. ``name``, ``indices``: as of ``Streams.generator``; without
        ``secret_seed`` two calls of one name give different bytes, so what must be used twice is kept in the state."""
        if self._secret_seed is None:
            return secrets.token_bytes(size)
        label = f"{self._secret_seed}/{self.owner}/{name}/{'/'.join(map(str, indices))}"
        return hashlib.shake_256(label.encode()).digest(size)

    def generator(self, name: str, *indices: int) -> np.random.Generator:
        """A cryptographic generator (AES-CTR, 128-bit key) for noise, masks and sampling, keyed with ``token``'s bytes
        of that name: fresh in every call without ``secret_seed``."""
        from randomgen import AESCounter

        key = int.from_bytes(self.token(name, *indices, size=16), "little")
        return np.random.Generator(AESCounter(key=key))


class Prefixed(MutableMapping[str, NDArray[Any]]):
    """The part of a party's state that belongs to one part of its defense."""

    def __init__(self, state: State, prefix: str) -> None:
        self._state, self._prefix = state, prefix

    def __getitem__(self, key: str) -> NDArray[Any]:
        return self._state[self._prefix + key]

    def __setitem__(self, key: str, value: NDArray[Any]) -> None:
        self._state[self._prefix + key] = value

    def __delitem__(self, key: str) -> None:
        del self._state[self._prefix + key]

    def __iter__(self) -> Any:
        return (key[len(self._prefix) :] for key in self._state if key.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
