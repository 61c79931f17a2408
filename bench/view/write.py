"""Writes a view directory: readings one by one, the manifest last, under a temporary name until all of it is there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.adversaries import Assignment
from bench.core.files import opened, private_folder
from bench.core.update import Terms
from bench.defense.public import Public
from bench.transcript.manifest import public_json
from bench.view.ledger import Row
from bench.view.view import FORMAT, VERSION, Kind, View, reading_path

_SEED = re.compile(r"(^|[_.\-])seeds?$", re.IGNORECASE)


class ViewWriter:
    """``add`` readings, then ``commit``; ``abandon`` leaves nothing behind."""

    def __init__(
        self, directory: Path, adversary: str, assignment: Assignment, public: Public, spec: Mapping[str, Any]
    ) -> None:
        self.directory = directory
        self.partial = directory.with_name(directory.name + ".partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        private_folder(self.partial / "readings", self.partial.parent)
        self._entries: list[dict[str, Any]] = []
        self._files = 0
        self._initial: int | None = None
        self._head = {
            "format": FORMAT,
            "version": VERSION,
            "adversary": adversary,
            "coalition": sorted(assignment.coalition),
            "victims": list(assignment.victims),
            "public": public_json(public),
            "spec": without_seeds(spec),
        }

    def add(
        self,
        kind: Kind,
        round: int,
        silos: frozenset[str],
        how: str,
        *,
        terms: Terms = (),
        values: NDArray[Any] | None = None,
        adapter: NDArray[np.floating] | None = None,
        support: NDArray[np.int64] | None = None,
        before: int | None = None,
        handle: str = "",
        unchecked: bool = False,
    ) -> int:
        """Write one reading and return the number of its file. ``before``: the file of the adapter its round started
        from."""
        tensors: dict[str, NDArray[Any]] = {}
        if values is not None:
            tensors["values"] = np.ascontiguousarray(values)
        if adapter is not None:
            tensors["adapter"] = np.ascontiguousarray(adapter, dtype=np.float32)
        if support is not None:
            tensors["support"] = np.ascontiguousarray(support, dtype=np.int64)
        number = self._file(tensors)
        self._entries.append(
            {
                "kind": kind,
                "round": round,
                "silos": sorted(silos),
                "how": how,
                "terms": [list(term) for term in terms],
                "handle": handle,
                "unchecked": unchecked,
                "file": number if tensors else None,
                "before": before,
            }
        )
        return number

    def set_initial(self, adapter: NDArray[np.floating]) -> int:
        """Write the adapter that the federation started from: no reading, since nobody trained it."""
        self._initial = self.keep(adapter)
        return self._initial

    def keep(self, adapter: NDArray[np.floating]) -> int:
        """Write an adapter that readings may have started from and that is no reading itself; the file's number."""
        return self._file({"adapter": np.ascontiguousarray(adapter, dtype=np.float32)})

    def _file(self, tensors: dict[str, NDArray[Any]]) -> int:
        number = self._files
        if tensors:
            from safetensors.numpy import save

            with opened(reading_path(self.partial, number), private=True) as file:
                file.write(save(tensors))
            self._files += 1
        return number

    def commit(
        self,
        thinned: tuple[tuple[int, str, str], ...] = (),
        lost: tuple[tuple[int, str], ...] = (),
        untried: tuple[str, ...] = (),
    ) -> View:
        """Make the view count, in place of what was there."""
        missed = {"thinned": thinned, "lost": lost, "untried": untried}
        manifest = {**self._head, "initial": self._initial, **missed, "readings": self._entries}
        with opened(self.partial / "manifest.json", private=True) as file:
            file.write(json.dumps(manifest, indent=1).encode())
        shutil.rmtree(self.directory, ignore_errors=True)
        self.partial.rename(self.directory)
        return View.load(self.directory)

    def abandon(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)


def add_partial(writer: ViewWriter, row: Row, before: int | None) -> None:
    """Write some coordinates of a summand or sum. ``before``: the file of the adapter that its silos started from."""
    assert row.support is not None
    round = max(term[0] for term in row.terms)
    writer.add(
        "partial",
        round,
        frozenset(silo for _, silo, _ in row.terms),
        row.how,
        terms=row.terms,
        values=row.load().astype(np.float32),
        support=np.load(row.support, allow_pickle=False),
        before=before,
        unchecked=row.unchecked,
    )


def without_seeds(spec: Any) -> Any:
    """``spec`` without any entry whose name is or ends in "seed" or "seeds"."""
    if isinstance(spec, Mapping):
        return {key: without_seeds(value) for key, value in spec.items() if not _SEED.search(str(key))}
    if isinstance(spec, (list, tuple)):
        return [without_seeds(value) for value in spec]
    return spec
