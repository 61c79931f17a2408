"""Reads a transcript's files as what they are: bytes from somebody else. Everything is bounded and checked here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.parties import DEALER, PUBLIC, SERVER, silo
from bench.core.update import Layout
from bench.defense.channel import MAX_FRAME
from bench.defense.public import Public

FORMAT = "silobench-transcript"
VERSION = 1
MAX_FRAMES_PER_MESSAGE = 1_000_000
#: bytes of a line of messages.jsonl: the most frames, at some 100 bytes each
MAX_LINE = 128 * 2**20
#: as in ``FederationSpec``
MAX_SILOS = MAX_ROUNDS = 10_000
#: bytes of one round's frames; no file system's limit is below
MAX_OFFSET = 2**43
#: values of an adapter
MAX_VALUES = 2**36
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Line:
    """One line of messages.jsonl. ``frames``: (offset and length in bytes, SHA-256) of each."""

    round: int
    stage: str
    sender: str
    receivers: tuple[str, ...]
    frames: tuple[tuple[int, int, str], ...]


def read_manifest(root: Path) -> tuple[dict[str, Any], Public]:
    """The manifest and what every party knows. Raises UsageError naming the file and what is wrong."""
    path = root / "manifest.json"
    if not path.is_file():
        raise UsageError(f"{root} is no transcript: it has no manifest.json.")
    value = json_object(path)
    if value.get("format") != FORMAT:
        raise UsageError(f"{path} is no manifest of a transcript: 'format' is not '{FORMAT}'.")
    if value.get("version") != VERSION:
        raise UsageError(f"{path} has version {value.get('version')!r}; this silobench reads version {VERSION}.")
    try:
        return value, _public(value["public"])
    except _MALFORMED as error:
        raise UsageError(f"{path} is malformed: {type(error).__name__} in 'public' ({error}).") from None


def _public(value: dict[str, Any]) -> Public:
    silos = tuple(value["silos"])
    if not 1 <= len(silos) <= MAX_SILOS or silos != tuple(silo(i) for i in range(len(silos))):
        raise ValueError("'silos' are not silo-0, silo-1, and so on")
    weights = {str(name): _whole(weight, 1, 2**62) for name, weight in value["weights"].items()}
    if set(weights) != set(silos):
        raise ValueError("'weights' do not name every silo once")
    rounds = _whole(value["rounds"], 0, MAX_ROUNDS)
    participants = tuple(tuple(names) for names in value["participants"])
    if len(participants) != rounds or any(not set(names) <= set(silos) for names in participants):
        raise ValueError("'participants' do not name silos of every round")
    nonce = _whole(value.get("nonce", 0), 0, 2**64)
    layout = _layout(value["layout"])
    adapter, state = (_layout(value[name]) if name in value else layout for name in ("adapter", "state"))
    if state.names[: len(adapter.names)] != adapter.names or state.shapes[: len(adapter.shapes)] != adapter.shapes:
        raise ValueError("'state' does not begin with the tensors of 'adapter'")
    return Public(layout, silos, weights, rounds, participants, nonce, adapter, state)


def _layout(value: dict[str, Any]) -> Layout:
    shapes = [[_whole(size, 1, MAX_VALUES) for size in shape] for shape in value["shapes"]]
    if not shapes or len(shapes) != len(value["names"]) or sum(math.prod(shape) for shape in shapes) > MAX_VALUES:
        raise ValueError("'layout' has no shape for every name, or too many values")
    return Layout.from_json({"names": list(value["names"]), "shapes": list(shapes)})


def _whole(value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"expected a whole number from {least} to {most}")
    return value


def message_lines(path: Path, round: int, public: Public) -> Iterator[Line]:
    """The lines of a round's messages.jsonl. Raises UsageError naming the line that is malformed."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE + 1):
                number += 1
                yield _line(raw, f"{path} line {number}", round, public)
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}).") from None


def _line(raw: bytes, where: str, round: int, public: Public) -> Line:
    try:
        if len(raw) > MAX_LINE:
            raise ValueError(f"the line has more than {MAX_LINE} bytes")
        value = json.loads(raw)
        if _whole(value["round"], -1, MAX_ROUNDS) != round:
            raise ValueError(f"the round is {value['round']}, and the folder is that of round {round}")
        parties = {*public.silos, SERVER, DEALER}
        sender, receivers, stage = value["sender"], tuple(value["receivers"]), value["stage"]
        if sender not in parties or not set(receivers) <= {*parties, PUBLIC} or len(set(receivers)) < len(receivers):
            raise ValueError("sender or receivers are no parties of this federation")
        if not isinstance(stage, str):
            raise ValueError("'stage' is no string")
        return Line(round, stage, sender, receivers, _frames(value["frames"]))
    except _MALFORMED as error:
        raise UsageError(f"{where} is malformed: {error}.") from None


def _frames(value: Any) -> tuple[tuple[int, int, str], ...]:
    if not isinstance(value, list) or len(value) > MAX_FRAMES_PER_MESSAGE:
        raise ValueError("'frames' is no list of acceptable length")
    return tuple((_whole(offset, 0, MAX_OFFSET), _whole(size, 0, MAX_FRAME), str(sha)) for offset, size, sha in value)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UsageError where it is none or can't be read."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is malformed: it holds no JSON object.")
    return value


def array(path: Path, shape: tuple[int, ...] | None = None, dtype: type[np.generic] | None = None) -> NDArray[Any]:
    """An array from a .npy file, mapped read-only, so that a header that promises more than the file holds allocates
    nothing. Raises UsageError where it is damaged, or has not the ``shape`` or ``dtype`` expected."""
    try:
        values = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError, OverflowError, RecursionError) as error:
        raise UsageError(f"{path} is no readable .npy file ({error}).") from None
    if not isinstance(values, np.ndarray):
        raise UsageError(f"{path} is no readable .npy file (it is an archive).")
    if (shape is not None and values.shape != shape) or (dtype is not None and values.dtype != dtype):
        wanted = f"{np.dtype(dtype).name if dtype else 'values'} {shape if shape is not None else ''}".strip()
        raise UsageError(f"{path} holds {values.dtype} {values.shape}, expected {wanted}.")
    return values
