"""Values as bytes for another process, without pickle: one npz archive of arrays, and JSON that refers to them.

Only plain values, arrays and the named dataclasses of the attack interface can be written or read. A ``View`` is
written as the number of a directory that both sides know, a ``Reading`` as its place in one of these.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bench.attack import attack as interface
from bench.core import tokens as tokenised
from bench.core.errors import SiloBenchError
from bench.view.view import Reading, View

#: most bytes of one value
MAX_BYTES = 4 * 2**30
_MAX_DEPTH = 30
#: what zipfile, numpy, json and the constructors raise on bytes that ``Encoder`` did not write
_MALFORMED = (
    *(zipfile.BadZipFile, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, SyntaxError),
    *(OSError, EOFError, MemoryError, RuntimeError),
)


def _dataclasses() -> dict[str, Any]:
    found = [*vars(interface).values(), *vars(tokenised).values()]
    return {c.__name__: c for c in found if isinstance(c, type) and dataclasses.is_dataclass(c)}


class Encoder:
    """``known``: the views whose readings it can name, by number. ``views``: directories of the views met on the way,
    numbered in order."""

    def __init__(self, known: Sequence[View] = ()) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.views: list[Path] = []
        self._readable = known
        self._known = _dataclasses()

    def dumps(self, value: Any) -> bytes:
        """Raises SiloBenchError on a value of a type that does not travel."""
        self.arrays = {}
        text = json.dumps(self._plain(value))
        raw = np.frombuffer(text.encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, text=raw, **self.arrays)
        return buffer.getvalue()

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value.item() if isinstance(value, np.generic) else value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return {"array": self._array(value)}
        if isinstance(value, View):
            return {"view": self._view(value)}
        if isinstance(value, Reading):
            return {"reading": self._place(value)}
        if isinstance(value, Mapping):
            return {"map": [[self._plain(k), self._plain(v)] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [self._plain(v) for v in value]}
        name = type(value).__name__
        if self._known.get(name) is type(value):
            fields = {f.name: self._plain(getattr(value, f.name)) for f in dataclasses.fields(self._known[name])}
            return {"data": name, "fields": fields}
        raise SiloBenchError(f"a value of type {name} can't be handed to another process")

    def _array(self, value: NDArray[Any]) -> str:
        if value.dtype.hasobject:
            raise SiloBenchError("an array of objects can't be handed to another process")
        name = f"a{len(self.arrays)}"
        self.arrays[name] = value
        return name

    def _view(self, view: View) -> int:
        if view.directory not in self.views:
            self.views.append(view.directory)
        return self.views.index(view.directory)

    def _place(self, wanted: Reading) -> list[int]:
        """[view, which of its readings]."""
        for number, view in enumerate(self._readable):
            for place, reading in enumerate(view.readings):
                if reading is wanted or reading == wanted:
                    return [number, place]
        raise SiloBenchError("a reading of no view can't be handed to another process")


class Decoder:
    """``views``: by number."""

    def __init__(self, views: Sequence[View] = ()) -> None:
        self._views = views
        self._known = _dataclasses()

    def loads(self, data: bytes) -> Any:
        """The value in ``data``, from anybody. Raises SiloBenchError on anything that ``Encoder`` does not write."""
        try:
            arrays = _arrays(data)
            return self._value(json.loads(arrays["text"].astype(np.uint8).tobytes()), arrays, 0)
        except _MALFORMED as error:
            raise SiloBenchError(f"a message between processes is malformed ({type(error).__name__})") from None

    def _value(self, plain: Any, arrays: Mapping[str, NDArray[Any]], depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")
        if plain is None or isinstance(plain, bool | int | float | str):
            return plain
        if "array" in plain:
            return arrays[plain["array"]]
        if "view" in plain:
            return self._view(plain["view"])
        if "reading" in plain:
            return self._reading(*plain["reading"])
        if "list" in plain:
            return tuple(self._value(v, arrays, depth + 1) for v in plain["list"])
        if "map" in plain:
            return {
                self._value(k, arrays, depth + 1): self._value(v, arrays, depth + 1) for k, v in _pairs(plain["map"])
            }
        kind = self._known[plain["data"]]
        return kind(**{str(k): self._value(v, arrays, depth + 1) for k, v in dict(plain["fields"]).items()})

    def _view(self, number: int) -> View:
        if not 0 <= number < len(self._views):
            raise SiloBenchError("a message between processes names a view that is not there")
        return self._views[number]

    def _reading(self, number: int, place: int) -> Reading:
        readings = self._view(number).readings
        if not 0 <= place < len(readings):
            raise SiloBenchError("a message between processes names a reading that its view does not have")
        return readings[place]


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """What ``numpy.savez`` wrote. Raises ValueError where an entry is compressed, or promises more bytes than were
    sent, before anything is allocated for it; one of ``_MALFORMED`` where one is no array."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > len(data):
            raise ValueError("compressed, or overlapping")
        for entry in entries:
            with archive.open(entry) as stream:
                if _promised(stream) > entry.file_size:
                    raise ValueError("more values than bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _promised(stream: IO[bytes]) -> int:
    """Bytes of the values that the header of a .npy file announces."""
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = headers[npy.read_magic(stream)](stream)
    return math.prod(shape) * int(dtype.itemsize)


def _pairs(value: Any) -> Sequence[tuple[Any, Any]]:
    return [(key, item) for key, item in value]


def send(stream: io.BufferedIOBase, data: bytes) -> None:
    """One frame: eight bytes of length, and the bytes."""
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


def receive(stream: io.BufferedIOBase) -> bytes | None:
    """The next frame; None at the end of the stream. Raises SiloBenchError where it is too long or cut short."""
    head = stream.read(8)
    if not head:
        return None
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > MAX_BYTES:
        raise SiloBenchError("a message between processes has an impossible length")
    data = stream.read(size)
    if len(data) < size:
        raise SiloBenchError("a message between processes was cut short")
    return data
