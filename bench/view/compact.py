"""Rounds with a public support, shown to the openers as if the adapter had only the coordinates that travelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Layout, Terms
from bench.defense.channel import Candidate, Knowledge, Message
from bench.view.openers.base import Hints, Spans, Traits, even_spans

Support = NDArray[np.int64]


class _OnSupport(Mapping[tuple[int, str], NDArray[np.floating]]):
    """Contributions of the rounds of one support, on it."""

    def __init__(self, inner: Mapping[tuple[int, str], NDArray[np.floating]], support: Support, rounds: set[int]):
        self._inner, self._support, self._rounds = inner, support, rounds

    def __getitem__(self, key: tuple[int, str]) -> NDArray[np.floating]:
        if key[0] not in self._rounds:
            raise KeyError(key)
        return self._inner[key][self._support]

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return (key for key in self._inner if key[0] in self._rounds)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _CompactHints:
    """Hints whose positions are those on the support."""

    def __init__(self, inner: Hints, support: Support) -> None:
        self._inner, self._support = inner, support

    def targets(self, message: Message) -> Sequence[frozenset[str]]:
        return self._inner.targets(message)

    def read(self, terms: Terms) -> bool:
        return self._inner.read(terms)

    def spans(self, terms: Terms) -> Spans:
        return even_spans(len(self._support))

    def fits(self, terms: Terms, spans: Spans, sample: NDArray[np.floating]) -> bool:
        there = tuple((int(p), int(p) + 1) for a, b in spans for p in self._support[a:b])
        return self._inner.fits(terms, there, sample)

    @property
    def checked(self) -> bool:
        return self._inner.checked

    def traits(self) -> Traits:
        return self._inner.traits()

    def untried(self, what: str) -> None:
        self._inner.untried(what)


class World:
    """What the openers are shown of the rounds of one support (None: of the dense ones), set-up included."""

    def __init__(self, knowledge: Knowledge, hints: Hints, support: Support | None, rounds: set[int]) -> None:
        messages = tuple(m for m in knowledge.messages if m.round < 0 or m.round in rounds)
        self._support, self._size = support, knowledge.public.layout.size
        if support is None:
            self.hints, self.knowledge = hints, replace(knowledge, messages=messages)
            return
        layouts = replace(knowledge.public.layouts, summed=Layout(("support",), ((len(support),),)))
        public = replace(knowledge.public, layouts=layouts)
        own = _OnSupport(knowledge.contributions, support, rounds)
        self.hints = _CompactHints(hints, support)
        self.knowledge = replace(knowledge, public=public, messages=messages, contributions=own, supports={})

    @property
    def size(self) -> int:
        return self.knowledge.public.layout.size

    def whole(self, candidate: Candidate) -> Candidate:
        """A candidate over the whole layout, 0 where nothing was sent."""
        if self._support is None or candidate.values.shape != (self.size,):
            return candidate
        full = np.zeros(self._size, dtype=candidate.values.dtype)
        full[self._support] = candidate.values
        claimed = candidate.support
        return replace(candidate, values=full, support=None if claimed is None else self._support[claimed])


def worlds(knowledge: Knowledge, hints: Hints) -> Iterator[World]:
    """One for the dense rounds, and one for each support that some round had."""
    dense = set(range(knowledge.public.rounds)) - set(knowledge.supports)
    if dense:
        yield World(knowledge, hints, None, dense)
    by_support: dict[bytes, set[int]] = {}
    for round, support in knowledge.supports.items():
        by_support.setdefault(support.tobytes(), set()).add(round)
    for rounds in by_support.values():
        yield World(knowledge, hints, knowledge.supports[min(rounds)], rounds)
