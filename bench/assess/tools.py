"""What the harness lends an attack: forward passes memoised by adapter and tokens, the population, randomness."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.assess.gradient_memo import GradientMemo, record_digests
from bench.attack.attack import Tools, until
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Layout
from bench.training.materials import Materials
from bench.view.view import Reading, adapter_handle

Adapter = NDArray[np.float32]


T = TypeVar("T")
Row = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]


class Memo:
    """What all adversaries and attacks of a run share: gradients, what ``Tools.once`` computed, and token statistics by
    adapter and record, however questions are grouped and ordered. ``forwarded``: records that went through the model
    for their statistics."""

    def __init__(self) -> None:
        self.gradients = GradientMemo()
        self.made: dict[Hashable, Any] = {}
        self._known: dict[tuple[str, bytes], Row] = {}
        self.forwarded = 0

    def stats(self, adapter: str, tokens: Tokens, forward: Callable[[Tokens], TokenStats]) -> TokenStats:
        """Statistics of ``tokens`` under ``adapter``; ``forward`` is called once, for the records not known yet."""
        digests = record_digests(tokens)
        fresh = {d: row for row, d in enumerate(digests) if (adapter, d) not in self._known}
        if fresh:
            part = tokens.take(list(fresh.values()))
            self.note(adapter, part, forward(part))
            self.forwarded += len(fresh)
        logp, mean, sd = (np.zeros(tokens.ids.shape, dtype=np.float32) for _ in range(3))
        first = np.zeros(tokens.ids.shape, dtype=bool)
        for row, (d, n) in enumerate(zip(digests, tokens.lengths, strict=True)):
            logp[row, :n], mean[row, :n], sd[row, :n], first[row, :n] = self._known[adapter, d]
        return TokenStats(logp, tokens.predicted, mean, sd, first=first)

    def note(self, adapter: str, tokens: Tokens, made: TokenStats) -> None:
        """Keep the statistics ``made`` of ``tokens``, where none are known yet. Raises SiloBenchError unless they hold
        moments and first choices."""
        if made.mean is None or made.sd is None or made.first is None:
            raise SiloBenchError("a forward pass gave no moments or first choices")
        for row, (digest, n) in enumerate(zip(record_digests(tokens), tokens.lengths, strict=True)):
            if (adapter, digest) not in self._known:
                logp, mean, sd = (part[row, :n].copy() for part in (made.logp, made.mean, made.sd))
                self._known[adapter, digest] = (logp, mean, sd, made.first[row, :n].copy())


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
        stats = self._stats(self._adapter(source), tokens)
        if source is not None and source.kind == "query":
            # It prices text and writes text: a token's log-probability, and whether it would have come next.
            return replace(stats, mean=None, sd=None, choices=None)
        return stats

    def record_gradients(self, at: Adapter | None, tokens: Tokens) -> Iterator[Adapter]:
        name = self._name(at)
        return self._memo.gradients.gradients(
            self.model, at, tokens, lambda part, stats: self._memo.note(name, part, stats)
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._memo.made:
            self._memo.made[key] = make()
        found: T = self._memo.made[key]
        return found

    def stats_under(self, adapter: Adapter, tokens: Tokens) -> TokenStats:
        return self._stats(np.asarray(adapter, dtype=np.float32), tokens)

    def word_logp(
        self, source: Reading | None, tokens: Tokens, at: NDArray[np.integer], words: Sequence[int]
    ) -> NDArray[np.float64]:
        adapter, whole = self._adapter(source), np.array_equal(at, tokens.answer)
        name, asked = self._name(adapter), tokens if whole else until(tokens, at)

        def forward() -> NDArray[np.float64]:
            self.model.set_adapter(adapter)
            stats = self.model.stats(asked, words)
            if whole:  # nothing was cut off that anybody else may ask for
                self._memo.note(name, tokens, stats)
            return np.zeros((len(asked), 0)) if stats.choices is None else stats.choices.astype(np.float64)

        return self.once(("words", name, *words, *record_digests(asked)), forward)

    def _adapter(self, source: Reading | None) -> Adapter | None:
        """What the model runs for ``source``."""
        if source is not None and source.kind == "query":
            return self._resolve(source.handle)
        return None if source is None else source.adapter

    def _resolve(self, handle: str) -> Adapter:
        if handle not in self._released:
            raise SiloBenchError("a query reading names a model that was not released")
        return self._released[handle]

    def _stats(self, adapter: Adapter | None, tokens: Tokens) -> TokenStats:
        name = self._name(adapter)

        def forward(part: Tokens) -> TokenStats:
            self.model.set_adapter(adapter)
            return self.model.stats(part)

        return self._memo.stats(name, tokens, forward)

    def _name(self, adapter: Adapter | None) -> str:
        """What the memo calls the model under ``adapter``: with every lora_B zero, and nothing on the frozen weights,
        it is the base model."""
        return "base" if adapter is None or not _adds(adapter, self.model.layout) else adapter_handle(adapter)


def _adds(adapter: Adapter, layout: Layout) -> bool:
    """Whether anything comes of an adapter."""
    trained = adapter[: layout.size]
    return bool(adapter[layout.size :].any()) or any(
        tensor.any() for name, tensor in layout.tensors(trained) if "lora_A" not in name
    )
