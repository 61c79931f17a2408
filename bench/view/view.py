"""What one coalition can read of a transcript: a versioned directory, read lazily.

    DIR/manifest.json              format, version, adversary, coalition, victims, public, spec (no seeds), readings
    DIR/readings/NNNNN.safetensors one per reading that has values: tensors ``values``, ``adapter``

A view holds no seed, no truth, no key and no secret of the game. How it is computed: ``bench.view.build``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import FailFast, Field

from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Array, Terms
from bench.defense.public import Public
from bench.spec.foreign import Foreign, Integer, Json, read
from bench.transcript.manifest import Known, Round

FORMAT = "silobench-view"
VERSION = 1
MAX_READINGS = 1_000_000
Kind = Literal["query", "adapter", "upload", "sum", "difference", "xor", "partial", "records", "metadata"]


@dataclass(frozen=True)
class Reading:
    """One thing that the coalition reads, always about silos outside of it. Values stay on disk until asked for.

    ``kind``: "query", the released model behind its interface (``handle`` only); "adapter", the global adapter after
    ``round``; "upload", one silo's summand of ``round``; "sum", of several silos; "difference", a
    combination with signs; "xor", that of two plaintexts' words; "partial", some coordinates of an upload or sum
    (``support``); "records", a silo's records themselves, where they travel in clear (``values``: (n, length) int32
    token ids, -1 after a record's end); "metadata", what shows without opening anything.
    ``terms``: (round, silo, coefficient) of the summands in it. ``handle``: SHA-256 of the adapter (``adapter_handle``)
    that a query, adapter or upload stands for. ``unchecked``: the transcript holds no truth to compare with.
    """

    kind: Kind
    round: int
    silos: frozenset[str]
    how: str
    terms: Terms = ()
    handle: str = ""
    unchecked: bool = False
    path: Path | None = None
    before_path: Path | None = None

    @property
    def values(self) -> NDArray[Any]:
        """(public.layout.size,) float32 of an upload, sum or difference, unsigned words of an xor; an adapter
        as ``adapter`` gives it; what metadata shows, of any length. Raises SiloBenchError for a query."""
        values = self.adapter if self.kind == "adapter" else _tensor(self.path, "values")
        if values is None:
            raise SiloBenchError(f"a reading of kind '{self.kind}' holds no values")
        return values

    @property
    def support(self) -> NDArray[np.int64] | None:
        """Sorted indices of the coordinates that a reading of kind "partial" holds (its values are 0 elsewhere); None
        for all other kinds."""
        return _tensor(self.path, "support") if self.kind == "partial" else None

    @property
    def adapter(self) -> Array | None:
        """(public.state.size,) float32: the global adapter, or the uploading silo's own after training; None where the
        reading is of another kind, or the adapter that the round started from is not known. The values that a silo
        trains are the first public.adapter.size of it; what follows them, under aggregators that fold something into
        the frozen weights, belongs to the model that the silo trained on."""
        return _tensor(self.path, "adapter") if self.kind in ("adapter", "upload") else None

    @property
    def before(self) -> Array | None:
        """(public.state.size,) float32: the global adapter that the round started from, where the coalition knows
        it."""
        return _tensor(self.before_path, "adapter")


@dataclass(frozen=True)
class View:
    """All readings of one coalition. ``thinned``: (round, stage, sender) of messages that it saw and whose bytes the
    transcript no longer holds. ``lost``: (round, server step) of sums that the adapters around them would give, had the
    step an inverse there. ``untried``: what openers left out where their work is bounded. ``initial_path``: the file of
    the adapter that the federation started from, where the coalition knows it; nobody trained it, so it is no
    reading."""

    adversary: str
    coalition: frozenset[str]
    victims: tuple[str, ...]
    public: Public
    spec: Mapping[str, Any]
    readings: tuple[Reading, ...]
    thinned: tuple[tuple[int, str, str], ...]
    directory: Path
    initial_path: Path | None = None
    lost: tuple[tuple[int, str], ...] = ()
    untried: tuple[str, ...] = ()

    @property
    def initial(self) -> Array | None:
        """(public.state.size,) float32: the adapter before round 0, or None where the coalition does not know it."""
        return _tensor(self.initial_path, "adapter")

    def uploads(self, silo: str | None = None, round: int | None = None) -> tuple[Reading, ...]:
        """Opened single updates, by round and silo."""
        return tuple(
            r
            for r in self.readings
            if r.kind == "upload" and silo in (None, *r.silos) and (round is None or r.round == round)
        )

    def adapters(self) -> tuple[Reading, ...]:
        """Known global adapters after a round, by round."""
        return tuple(r for r in self.readings if r.kind == "adapter")

    def last_adapter(self, victim: str) -> Reading | None:
        """The victim's own adapter after its last opened update; else the last global or released adapter; else the
        released model's query interface; else None."""
        own = [r for r in self.uploads(victim) if r.handle]
        queries = [r for r in self.readings if r.kind == "query"]
        return next((found[-1] for found in (own, self.adapters(), queries) if found), None)

    @classmethod
    def load(cls, directory: Path) -> View:
        """Read a view's manifest. Raises UsageError where it is none, is malformed or of another version."""
        found = read(Manifest, directory / "manifest.json")
        if found is None:
            raise UsageError(f"{directory} is no view: it has no manifest.json.")

        def path(number: int | None) -> Path | None:
            return None if number is None else reading_path(directory, number)

        def reading(file: int | None, before: int | None, **values: Any) -> Reading:
            return Reading(path=path(file), before_path=path(before), **values)

        return cls(
            **{name: getattr(found, name) for name in _AS_WRITTEN},
            public=found.public.public(),
            readings=tuple(reading(**dict(entry)) for entry in found.readings),
            directory=directory,
            initial_path=path(found.initial),
        )


def adapter_handle(values: NDArray[np.floating]) -> str:
    """SHA-256 (hexadecimal) of an adapter's values as little-endian float32."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


def _tensor(path: Path | None, name: str) -> NDArray[Any] | None:
    """One tensor of a reading's file; only its own bytes are read."""
    if path is None:
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return np.asarray(file.get_tensor(name)) if name in file.keys() else None  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:  # of other types too
        raise SiloBenchError(f"{path} can't be read ({error}); remove the view and build it again.") from None


#: fields of a view that stand in its manifest as they are
_AS_WRITTEN = ("adversary", "coalition", "victims", "spec", "thinned", "lost", "untried")
FileNumber = Annotated[int, Field(ge=0, lt=MAX_READINGS)]


class Entry(Foreign):
    """A reading as it stands in a manifest. Files are named by number only, so that none lies outside its directory."""

    kind: Kind
    round: Round
    silos: frozenset[str]
    how: str
    terms: tuple[tuple[Round, str, Integer], ...]
    handle: str
    unchecked: bool
    file: FileNumber | None
    before: FileNumber | None


class Manifest(Foreign):
    """A view's manifest. ``initial``: the number of a file."""

    format: Literal["silobench-view"]
    version: Literal[1]
    adversary: str
    coalition: frozenset[str]
    victims: tuple[str, ...]
    public: Known
    spec: dict[str, Json]
    initial: FileNumber | None
    thinned: tuple[tuple[Round, str, str], ...]
    lost: tuple[tuple[Round, str], ...] = ()
    untried: tuple[str, ...] = ()
    readings: Annotated[tuple[Entry, ...], Field(max_length=MAX_READINGS), FailFast()]


def reading_path(directory: Path, number: int) -> Path:
    return directory / "readings" / f"{number:05d}.safetensors"
