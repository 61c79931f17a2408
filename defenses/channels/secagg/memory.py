"""What a party keeps between its steps, by round: secrets that are written once, and notes that go with the round."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.streams import State

_NOTES = "secagg"


class Memory:
    """``secret`` entries lie under ``keys/round-R/`` of the party's state, notes under ``secagg/round-R/``."""

    def __init__(self, state: State, round: int) -> None:
        self._state, self._round = state, round

    def keep_secret(self, name: str, value: bytes) -> bytes:
        """Raises SiloBenchError where the round has this secret already: a step is never taken twice."""
        key = self._secret(name)
        if key in self._state:
            raise SiloBenchError(f"the secret '{name}' of round {self._round} exists: a step was asked for twice")
        self._state[key] = np.frombuffer(value, dtype=np.uint8)
        return value

    def secret(self, name: str) -> bytes:
        key = self._secret(name)
        if key not in self._state:
            raise SiloBenchError(f"there is no secret '{name}' of round {self._round}")
        return np.asarray(self._state[key], dtype=np.uint8).tobytes()

    def has_secret(self, name: str) -> bool:
        return self._secret(name) in self._state

    def note_once(self, name: str, value: NDArray[Any] | bytes) -> None:
        """Raises SiloBenchError where the note exists: a step is never taken twice."""
        key = self._note(name)
        if key in self._state:
            raise SiloBenchError(f"'{name}' of round {self._round} is known already: a step was asked for twice")
        self._state[key] = np.frombuffer(value, dtype=np.uint8) if isinstance(value, bytes) else value

    def has(self, name: str) -> bool:
        return self._note(name) in self._state

    def array(self, name: str) -> NDArray[Any]:
        if not self.has(name):
            raise SiloBenchError(f"'{name}' of round {self._round} is not known: a step is missing")
        return self._state[self._note(name)]

    def note(self, name: str) -> bytes:
        return np.asarray(self.array(name), dtype=np.uint8).tobytes()

    def forget(self, prefix: str = "") -> None:
        """Drop this round's notes whose name begins with ``prefix``."""
        _drop(self._state, self._note(prefix))

    def forget_other_rounds(self) -> None:
        own = self._note("")
        for key in [k for k in self._state if k.startswith(f"{_NOTES}/round-") and not k.startswith(own)]:
            del self._state[key]

    def _secret(self, name: str) -> str:
        return f"keys/round-{self._round}/{name}"

    def _note(self, name: str) -> str:
        return f"{_NOTES}/round-{self._round}/{name}"


def _drop(state: State, prefix: str) -> None:
    for key in [k for k in state if k.startswith(prefix)]:
        del state[key]
