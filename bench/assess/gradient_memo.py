"""Gradients of a run, each taken once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from bench.core.tokens import Tokens
from bench.core.update import Array
from bench.model.gradients import Told, record_gradients
from bench.view.view import adapter_handle

if TYPE_CHECKING:
    from bench.model.lora import LoraModel


def record_digests(tokens: Tokens) -> list[bytes]:
    """One digest per record, of what a pass over it depends on: its tokens and which of them are predicted."""
    found = []
    for ids, n, predicted in zip(tokens.ids, tokens.lengths, tokens.predicted, strict=True):
        state = hashlib.sha256(np.ascontiguousarray(ids[:n], dtype="<i4").tobytes())
        state.update(np.packbits(predicted[:n]).tobytes())
        found.append(state.digest())
    return found


class GradientMemo:
    """Gradients that were taken already, by adapter and record, so that all attacks and adversaries of a run share
    every backward pass, whatever they ask of it.

    They lie in one unnamed file in ``directory`` (None: the system's own for temporary files) of at most ``budget``
    bytes, the least recently used giving way; memory holds a key per record. ``computed``: records that went through
    the model.
    """

    def __init__(self, directory: Path | None = None, budget: int = 4 * 2**30) -> None:
        self.directory, self.budget = directory, budget
        self.computed = 0
        self._file: BinaryIO | None = None
        self._slots: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        self._size = 0

    def gradients(
        self, model: LoraModel, at: Array | None, tokens: Tokens, told: Told | None = None
    ) -> Iterator[Array]:
        """As ``record_gradients``; each record that is not known yet is computed once."""
        self._fit(model.layout.size)
        name = "zero" if at is None else adapter_handle(at)
        keys = [(name, digest) for digest in record_digests(tokens)]
        if len(set(keys)) > self.budget // (4 * self._size):
            self.computed += len(keys)
            yield from record_gradients(model, at, tokens, told=told)
            return
        for key in keys:
            if key in self._slots:
                self._slots.move_to_end(key)
        fresh = {key: row for row, key in enumerate(keys) if key not in self._slots}
        # those of like length together: less padding
        rows = sorted(fresh.values(), key=lambda row: int(tokens.lengths[row]))
        made = record_gradients(model, at, tokens.take(rows), told=told)
        for row, values in zip(rows, made, strict=True):
            self._keep(keys[row], values)
        self.computed += len(rows)
        for row, key in enumerate(keys):
            if key in self._slots:
                yield self._read(self._slots[key])
            else:  # another question came between and took its place
                self.computed += 1
                yield from record_gradients(model, at, tokens.take([row]))

    def _fit(self, size: int) -> None:
        if size != self._size:
            self._slots.clear()
            self._size = size

    def _keep(self, key: tuple[str, bytes], values: Array) -> None:
        if self._file is None:
            import tempfile

            self._file = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 - lives as long as the memo
        full = len(self._slots) >= self.budget // (4 * self._size)
        slot = self._slots.popitem(last=False)[1] if full else len(self._slots)
        self._slots[key] = slot
        self._file.seek(4 * self._size * slot)
        self._file.write(np.ascontiguousarray(values, dtype="<f4").tobytes())

    def _read(self, slot: int) -> Array:
        if self._file is None:
            raise AssertionError("a slot without a file")
        self._file.seek(4 * self._size * slot)
        return np.frombuffer(self._file.read(4 * self._size), dtype="<f4").astype(np.float32)
