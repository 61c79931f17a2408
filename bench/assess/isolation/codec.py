"""Values as bytes for another process, without pickle: one npz archive of arrays, and JSON that refers to them.

Only plain values, arrays and the named dataclasses of the attack interface can be written or read. A ``View`` is
written as the number of a directory that both sides know, a ``Reading`` as its place in one of these.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.attack import attack as interface
from bench.core import tokens as tokenised
from bench.core.errors import SiloBenchError
from bench.core.npy import promised
from bench.view.view import Reading, View

#: most bytes of one value
MAX_BYTES = 4 * 2**30
_MAX_DEPTH = 30


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
        except SiloBenchError:
            raise
        except Exception as error:  # zipfile, numpy and the constructors meet hostile bytes with errors of many types
            why = f"{type(error).__name__}: {error}"
            raise SiloBenchError(f"a message between processes is malformed ({why!r:.100})") from None

    def _value(self, plain: Any, arrays: Mapping[str, NDArray[Any]], depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")
        if plain is None or isinstance(plain, bool | int | float | str):
            return plain
        if set(plain) == {"data", "fields"}:
            fields = dict(plain["fields"])
            return self._known[plain["data"]](**{k: self._value(v, arrays, depth + 1) for k, v in fields.items()})
        ((form, inner),) = dict(plain).items()
        match form:
            case "array":
                return arrays[inner]
            case "view":
                return self._view(inner)
            case "reading":
                return self._reading(*inner)
            case "list":
                return tuple(self._value(v, arrays, depth + 1) for v in inner)
            case "map":
                return {self._value(k, arrays, depth + 1): self._value(v, arrays, depth + 1) for k, v in inner}
        raise ValueError(f"{form!r:.40} is no form of a value")

    def _view(self, number: int) -> View:
        if type(number) is not int or not 0 <= number < len(self._views):
            raise SiloBenchError("a message between processes names a view that is not there")
        return self._views[number]

    def _reading(self, number: int, place: int) -> Reading:
        readings = self._view(number).readings
        if not 0 <= place < len(readings):
            raise SiloBenchError("a message between processes names a reading that its view does not have")
        return readings[place]


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """What ``numpy.savez`` wrote. Raises ValueError where an entry is compressed, or promises more bytes than were
    sent, before anything is allocated for it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries) or sum(e.file_size for e in entries) > len(data):
            raise ValueError("compressed, or overlapping")
        for entry in entries:
            with archive.open(entry) as stream:
                if promised(stream)[2] > entry.file_size:
                    raise ValueError("more values than bytes")
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


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
