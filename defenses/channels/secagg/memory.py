"""What a party keeps between its steps, by round: secrets that are written once, and notes that go with the round."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.streams import Prefixed, State

_NOTES = "secagg/round-"


class Memory:
    """``secret`` entries lie under ``keys/round-R/`` of the party's state, notes under ``secagg/round-R/``."""

    def __init__(self, state: State, round: int) -> None:
        self._state, self._round = state, round
        self._secrets, self._notes = Prefixed(state, f"keys/round-{round}/"), Prefixed(state, f"{_NOTES}{round}/")

    def keep_secret(self, name: str, value: bytes) -> bytes:
        """Raises SiloBenchError where the round has this secret already: a step is never taken twice."""
        if name in self._secrets:
            raise SiloBenchError(f"the secret '{name}' of round {self._round} exists: a step was asked for twice")
        self._secrets[name] = np.frombuffer(value, dtype=np.uint8)
        return value

    def secret(self, name: str) -> bytes:
        if name not in self._secrets:
            raise SiloBenchError(f"there is no secret '{name}' of round {self._round}")
        return np.asarray(self._secrets[name], dtype=np.uint8).tobytes()

    def has_secret(self, name: str) -> bool:
        return name in self._secrets

    def note_once(self, name: str, value: NDArray[Any] | bytes) -> None:
        """Raises SiloBenchError where the note exists: a step is never taken twice."""
        if name in self._notes:
            raise SiloBenchError(f"'{name}' of round {self._round} is known already: a step was asked for twice")
        self._notes[name] = np.frombuffer(value, dtype=np.uint8) if isinstance(value, bytes) else value

    def array(self, name: str) -> NDArray[Any]:
        if name not in self._notes:
            raise SiloBenchError(f"'{name}' of round {self._round} is not known: a step is missing")
        return self._notes[name]

    def note(self, name: str) -> bytes:
        return np.asarray(self.array(name), dtype=np.uint8).tobytes()

    def forget(self) -> None:
        """Drop this round's notes."""
        for name in list(self._notes):
            del self._notes[name]

    def forget_other_rounds(self) -> None:
        every = Prefixed(self._state, _NOTES)
        for name in [name for name in every if not name.startswith(f"{self._round}/")]:
            del every[name]
