"""A channel of one upload and one sum whose every byte follows by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Form, Layout, Update
from bench.defense.public import Public
from bench.defense.sum_channel import SumChannel
from tests.defenses.exchange import Sent

LAYOUT = Layout(("a",), ((4,),))
HEADER = Form(LAYOUT).header()
SILOS = ("silo-0", "silo-1")
SUMMANDS = [np.array([1, 2, 3, 4], np.float32), np.array([10, 20, 30, 40], np.float32)]


class Shifted(SumChannel):
    """Two frames of two values each, every value shifted by a dealt key of one byte. Hides nothing from anybody."""

    dealt = True

    def __init__(self, opener: Any = "server", keys: Mapping[str, Mapping[str, bytes]] | None = None) -> None:
        self.opener = opener
        self.dealt_keys = {party: {"shift": b"\5"} for party in (*SILOS, SERVER)} if keys is None else keys

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        return self.dealt_keys

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        values = update.values + float(keys["shift"][0])
        yield values[:2].astype("<f8").tobytes()
        yield values[2:].astype("<f8").tobytes()

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        values = np.frombuffer(frame, "<f8")
        return values if total is None else total + values  # type: ignore[operator]

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        assert isinstance(total, np.ndarray)
        return total.tobytes()

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        if "shift" not in keys:
            raise CannotOpen("no key")
        return form.spread(np.frombuffer(b"".join(frames), "<f8") - keys["shift"][0] * max(count, 1))


def sent(stage: str, sender: str, *frames: bytes, round: int = 0, to: tuple[str, ...] = (SERVER,)) -> Sent:
    return Sent(round, stage, sender, to, frames)


def names(*silos: str) -> bytes:
    return json.dumps(silos).encode()
