"""What the harness lends an attack: forward passes memoised by adapter and tokens, the population, randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.attack import Tools
from bench.errors import SiloBenchError
from bench.materials import Materials
from bench.tokens import Tokens, TokenStats
from bench.view import Reading, adapter_handle

Adapter = NDArray[np.float32]


class Memo:
    """Token statistics by (adapter, tokens). Shared by all adversaries and attacks of a run; the base model's passes
    by all runs of the same model."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], TokenStats] = {}
        self.passes = 0

    def get(self, adapter: str, tokens: Tokens, make: Callable[[], TokenStats]) -> TokenStats:
        key = (adapter, tokens.digest)
        if key not in self._known:
            self._known[key] = make()
            self.passes += 1
        return self._known[key]


class LentTools(Tools):
    """The tools of one attack on one view. ``released`` resolves the handles of ``query`` readings."""

    def __init__(
        self, materials: Materials, memo: Memo, rng: np.random.Generator, released: Mapping[str, Adapter]
    ) -> None:
        ids = materials.pool.population
        self.model = materials.model
        self.rng = rng
        self.population = materials.tokens(ids)
        self.population_texts = materials.texts(ids)
        self._memo, self._released = memo, released

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        if source is not None and source.kind == "query":
            stats = self._stats(self._resolve(source.handle), tokens)
            return replace(stats, mean=None, sd=None, choices=None)
        return self._stats(None if source is None else source.adapter, tokens)

    def _resolve(self, handle: str) -> Adapter:
        if handle not in self._released:
            raise SiloBenchError("a query reading names a model that was not released")
        return self._released[handle]

    def _stats(self, adapter: Adapter | None, tokens: Tokens) -> TokenStats:
        name = "base" if adapter is None else adapter_handle(adapter)

        def make() -> TokenStats:
            self.model.set_adapter(adapter)
            return self.model.stats(tokens)

        return self._memo.get(name, tokens, make)
