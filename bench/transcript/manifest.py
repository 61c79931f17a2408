"""Reads a transcript's files as what they are: bytes from somebody else. Everything is bounded and checked here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, FailFast, Field, model_validator

from bench.core.errors import UsageError
from bench.core.npy import promised
from bench.core.parties import DEALER, PUBLIC, SERVER, silo
from bench.core.update import Layout
from bench.corpus.organisations import MAX_NAME
from bench.defense.channel import MAX_FRAME
from bench.defense.public import Layouts, Public
from bench.spec.foreign import Foreign, Integer, Json, parsed, read

FORMAT = "silobench-transcript"
VERSION = 1
MAX_FRAMES_PER_MESSAGE = 1_000_000
#: bytes of a line of messages.jsonl: the most frames, at some 100 bytes each
MAX_LINE = 128 * 2**20
#: as in ``FederationSpec``
MAX_SILOS = MAX_ROUNDS = 10_000
#: bytes of one round's frames; no file system's limit is below
MAX_OFFSET = 2**43
#: values of an adapter, and dimensions of one of its tensors
MAX_VALUES, MAX_DIMENSIONS = 2**36, 32

Round = Annotated[int, Field(ge=-1, le=MAX_ROUNDS)]
Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET)]
Length = Annotated[int, Field(ge=0, le=MAX_FRAME)]
Count = Annotated[int, Field(ge=0, le=2**53)]


def _bounded(layout: Layout) -> Layout:
    for shape in layout.shapes:
        if len(shape) > MAX_DIMENSIONS or not all(1 <= size <= MAX_VALUES for size in shape):
            raise ValueError(f"a shape has at most {MAX_DIMENSIONS} sizes, each from 1 to {MAX_VALUES}")
    if not len(layout.names) == len(layout.shapes) > 0 or sum(map(math.prod, layout.shapes)) > MAX_VALUES:
        raise ValueError(f"it needs a shape for every name, at least one, and at most {MAX_VALUES} values in all")
    return layout


Bounded = Annotated[Layout, AfterValidator(_bounded)]


class Known(Foreign):
    """``Public`` as it stands in a manifest."""

    layout: Bounded
    silos: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_SILOS)]
    weights: dict[str, Annotated[int, Field(ge=1, le=2**62)]]
    rounds: Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
    participants: tuple[tuple[str, ...], ...]
    nonce: Annotated[int, Field(ge=0, le=2**64)] = 0
    #: empty: not known
    sizes: dict[str, Annotated[int, Field(ge=1, le=2**62)]] = Field(default_factory=dict)
    #: empty: none
    names: dict[str, Annotated[str, Field(min_length=1, max_length=MAX_NAME)]] = Field(default_factory=dict)
    #: empty: as ``layout``
    adapter: Bounded = Layout((), ())
    state: Bounded = Layout((), ())

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        silos, public = set(self.silos), self.public()
        if self.silos != tuple(silo(i) for i in range(len(self.silos))):
            raise ValueError("'silos' must be silo-0, silo-1, and so on")
        for field, values in (("weights", self.weights), ("sizes", self.sizes), ("names", self.names)):
            if set(values) != silos and (values or field == "weights"):
                raise ValueError(f"'{field}' must name every silo once")
        sound = [set(names) <= silos and len(set(names)) == len(names) for names in self.participants]
        if len(sound) != self.rounds or not all(sound):
            raise ValueError("'participants' must name silos for every round, each once")
        count = len(public.adapter.names)
        if Layout(public.state.names[:count], public.state.shapes[:count]) != public.adapter:
            raise ValueError("'state' must begin with the tensors of 'adapter'")
        return self

    def public(self) -> Public:
        adapter, state = (one if one.names else self.layout for one in (self.adapter, self.state))
        layouts = Layouts(adapter, self.layout, state)
        about = self.rounds, self.participants, self.nonce, self.sizes, self.names
        return Public(layouts, self.silos, self.weights, *about)


def public_json(public: Public) -> dict[str, Any]:
    """The inverse of ``Known.public``."""
    further = {"adapter": public.adapter, "state": public.state}
    return {
        "layout": public.layout.to_json(),
        **{name: layout.to_json() for name, layout in further.items() if layout != public.layout},
        "silos": list(public.silos),
        "weights": dict(public.weights),
        "rounds": public.rounds,
        "participants": [list(names) for names in public.participants],
        "nonce": public.nonce,
        **{key: dict(values) for key, values in (("sizes", public.sizes), ("names", public.names)) if values},
    }


class Manifest(Foreign):
    """``spec``: of the training, without seeds."""

    format: Literal["silobench-transcript"]
    version: Literal[1]
    public: Known
    spec: dict[str, Json]


def read_manifest(root: Path) -> Manifest:
    """Raises UsageError naming the file and what is wrong."""
    found = read(Manifest, root / "manifest.json")
    if found is None:
        raise UsageError(f"{root} is no transcript: it has no manifest.json.")
    return found


class Line(Foreign):
    """One line of messages.jsonl. ``frames``: (offset and length in bytes, SHA-256) of each."""

    round: Round
    stage: str
    sender: str
    receivers: tuple[str, ...]
    frames: Annotated[tuple[tuple[Offset, Length, str], ...], Field(max_length=MAX_FRAMES_PER_MESSAGE), FailFast()]


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
    if len(raw) > MAX_LINE:
        raise UsageError(f"{where} is malformed: the line has more than {MAX_LINE} bytes.")
    line, parties = parsed(Line, raw, where), {*public.silos, SERVER, DEALER}
    if line.round != round:
        raise UsageError(f"{where} is malformed: 'round' is {line.round}, and the folder is that of round {round}.")
    if line.sender not in parties:
        raise UsageError(f"{where} is malformed: 'sender' is no party of this federation.")
    if not set(line.receivers) <= {*parties, PUBLIC} or len(set(line.receivers)) < len(line.receivers):
        raise UsageError(f"{where} is malformed: 'receivers' must name parties of this federation, each once.")
    return line


class Did(Foreign):
    """A ``Mechanism``, as the harness noted it."""

    kind: str
    params: dict[str, Integer | float]
    round: Round = -1


class TrainingNote(Foreign):
    """What one silo's trainer did in a round (``Training``), and the norm ``bound`` that its summand stated."""

    steps: Count
    tokens: Count
    #: those of a training that diverged are NaN
    losses: tuple[Annotated[float, Field(allow_inf_nan=True)], ...]
    batches: tuple[tuple[Count, ...], ...]
    mechanisms: tuple[Did, ...] = ()
    bound: float | None = None


class SumNote(Foreign):
    """A sum that was opened: ``noise`` is the opener's own."""

    round: Round
    silos: tuple[str, ...]
    noise: Did | None


class SumNotes(Foreign):
    sums: tuple[SumNote, ...]


class Spent(Foreign):
    """A phase as ``Meter`` writes it."""

    wall_s: Annotated[float, Field(ge=0)]
    process_s: Annotated[float, Field(ge=0)]
    calls: Count
    peak_bytes: Count


class HarnessNotes(Foreign):
    """What the harness must know to go on: ``pending``, by party, (round, index) of messages under way."""

    pending: dict[str, tuple[tuple[Round, Count], ...]] = Field(default_factory=dict)
    phases: dict[str, Spent] = Field(default_factory=dict)


def array(path: Path, shape: tuple[int, ...] | None = None, dtype: type[np.generic] | None = None) -> NDArray[Any]:
    """An array from a .npy file, mapped read-only. Raises UsageError where it is damaged, promises more than the file
    holds, or has not the ``shape`` or ``dtype`` expected."""
    try:
        with path.open("rb") as file:
            found, kind, size = promised(file)
            if file.tell() + size != path.stat().st_size:
                raise ValueError("its header promises another number of bytes than it has")
        if (shape is not None and found != shape) or (dtype is not None and kind != dtype):
            wanted = f"{np.dtype(dtype).name if dtype else 'values'} {shape if shape is not None else ''}".strip()
            raise UsageError(f"{path} holds {kind} {found}, expected {wanted}.")
        values: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
    except UsageError:
        raise
    except Exception as error:  # as in ``promised``
        raise UsageError(f"{path} is no readable .npy file ({error}).") from None
    return values
