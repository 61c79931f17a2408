"""Two messages sealed with one keystream: their XOR, or their difference modulo 2^8..2^64, is free of it.

With a plaintext of its own beside the reused keystream a coalition opens the others; without one it still learns the
difference (additive pads) or the XOR (bitwise pads) of two updates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.defense.channel import Candidate, Knowledge, Message
from bench.view.openers.base import Guess, Hints, Spans, even_spans, plausible, sealed_by_silos, terms_of
from bench.view.openers.layouts import Source, Stream, layouts
from bench.view.openers.numeric import FORMATS, Format, sample_values
from bench.view.openers.uniform import EVEN, UNEVEN, Bytes, middle, surprise, surprises

_MAX_PAIRS = 1024
Words = NDArray[np.unsignedinteger[Any]]
_BITWISE = tuple(f for f in FORMATS if f.floating and not f.name.endswith(">"))


@dataclass(frozen=True)
class _Sealed:
    """A message, some bytes from its middle, and its plaintext where the coalition sent it.

    ``closed``: not read yet. ``even``: a stream cipher may have made it. ``masked``: it decodes to sane floats, so a
    float pad may hide it.
    """

    message: Message
    sample: Bytes
    closed: bool
    even: bool
    masked: bool
    own: NDArray[np.floating] | None

    @property
    def term(self) -> tuple[int, str]:
        return self.message.round, self.message.sender

    @property
    def target(self) -> tuple[int, frozenset[str]]:
        return self.message.round, frozenset({self.message.sender})


def reused_keystream(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """Differences, XORs and uploads out of messages of one stage and equal lengths that share a keystream."""
    size = knowledge.public.layout.size
    for messages in _groups(knowledge):
        if not any(hints.targets(m) for m in messages):
            continue
        group = [_sealed(m, knowledge, hints) for m in messages]
        for reference, other in _related(group, size, hints):
            yield from _combine(_Pair(reference, other, size), hints)


def _groups(knowledge: Knowledge) -> Iterator[list[Message]]:
    found: dict[tuple[str, tuple[int, ...]], list[Message]] = {}
    for message in sealed_by_silos(knowledge):
        if sum(message.lengths):
            found.setdefault((message.stage, message.lengths), []).append(message)
    for messages in found.values():
        if len(messages) > 1:
            yield sorted(messages, key=lambda m: (m.round, m.sender))


def _sealed(message: Message, knowledge: Knowledge, hints: Hints) -> _Sealed:
    sample = middle(Source.of(message).whole())
    even = surprise(sample) > EVEN
    own = knowledge.contributions.get((message.round, message.sender)) if message.sender in knowledge.parties else None
    closed = bool(hints.targets(message))
    masked = not even and (closed or own is not None) and hints.checked and _sane(message, knowledge.public.layout.size)
    return _Sealed(message, sample, closed, even, masked, own)


def _sane(message: Message, size: int) -> bool:
    source = Source.of(message)
    spans = even_spans(size)
    for fmt in FORMATS:
        for stream, offset in layouts(source, size * fmt.width) if fmt.floating else ():
            if plausible(sample_values(stream, offset, spans, fmt)):
                return True
    return False


def _related(group: Sequence[_Sealed], size: int, hints: Hints) -> Iterator[tuple[_Sealed, _Sealed]]:
    """Pairs that share a keystream: of all that share one, each with a reference, which is the coalition's own where
    there is one."""
    parent = list(range(len(group)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    pairs, left = _pairs(group)
    if left:
        hints.untried(f"{left} pairs of '{group[0].message.stage}' messages for one keystream, those far apart")
    for i, j in pairs:
        if root(i) != root(j) and _share(_Pair(group[i], group[j], size), hints):
            parent[root(j)] = root(i)
    for r in {root(i) for i in range(len(group))}:
        kin = [entry for i, entry in enumerate(group) if root(i) == r]
        reference = next((entry for entry in kin if entry.own is not None), kin[0])
        yield from ((reference, entry) for entry in kin if entry is not reference and entry.closed)


def _pairs(group: Sequence[_Sealed]) -> tuple[list[tuple[int, int]], int]:
    """All pairs up to a bound, and how many more there are; first those of one round, or of one sender in neighbouring
    rounds, then those near each other, of two as near the newer ones."""

    def far(pair: tuple[int, int]) -> tuple[bool, int, int]:
        a, b = group[pair[0]].message, group[pair[1]].message
        near = (a.round == b.round) or (a.sender == b.sender and abs(a.round - b.round) == 1)
        return not near, pair[1] - pair[0], -pair[1]

    n = len(group)
    if n > 4 * _MAX_PAIRS:
        chosen = [(i, i + 1) for i in reversed(range(n - 1))]
    else:
        window = max(1, 8 * _MAX_PAIRS // n)
        close = [(i, j) for i in range(n) for j in range(i + 1, min(n, i + window + 1))]
        chosen = sorted(close, key=far)[:_MAX_PAIRS]
    return chosen, n * (n - 1) // 2 - len(chosen)


def _share(pair: _Pair, hints: Hints) -> bool:
    """Two even messages whose XOR or bytewise or wordwise difference is uneven, or two float arrays whose difference
    is that of the updates."""
    a, b = pair.a, pair.b
    if not (a.closed or b.closed):
        return False
    if a.masked and b.masked:
        return next(iter(pair.differences(hints)), None) is not None
    if not (a.even and b.even):
        return False
    n = len(a.sample) // 16 * 16
    words = b.sample[:n].view("<u2") - a.sample[:n].view("<u2")
    mixed = np.stack([a.sample[:n] ^ b.sample[:n], b.sample[:n] - a.sample[:n], words.view(np.uint8)])
    # both halves, so that a header that two messages have in common is no keystream
    halves = np.stack([surprises(mixed[:, : n // 2]), surprises(mixed[:, n // 2 :])])
    return bool(((halves.sum(0) < UNEVEN) & (halves.max(0) < EVEN)).any())


def _combine(pair: _Pair, hints: Hints) -> Iterator[Guess]:
    """Everything that the pair may give, best first; the bare fact where no number format fits."""
    ways = [pair.differences(hints)]
    if pair.a.even:
        ways.append(pair.bitwise() if pair.a.own is None else pair.with_own(pair.a.own, hints))
    for way in ways:
        for guess in way:
            yield guess
            if hints.read(guess.terms):
                return
    if pair.a.even and hints.targets(pair.b.message):
        how = f"{pair.b.message.stage!r} is sealed with the keystream of {pair.a.term[1]} in round {pair.a.term[0]}"
        yield Guess(*pair.b.target, np.empty(0), how, form="metadata")


class _Pair:
    """Two messages of equal lengths, and what comes out where their pads cancel."""

    def __init__(self, a: _Sealed, b: _Sealed, size: int) -> None:
        self.a, self.b, self.size = a, b, size
        self._sources = Source.of(a.message), Source.of(b.message)
        self._all: Spans = ((0, size),)

    def _streams(self, width: int) -> Iterator[tuple[Stream, Stream, int]]:
        left, right = (layouts(source, self.size * width) for source in self._sources)
        for (a, offset), (b, _) in zip(left, right, strict=True):
            yield a, b, offset

    def differences(self, hints: Hints) -> Iterator[Guess]:
        """b - a: modulo the word for integers (even messages), as it is for floats (masked ones)."""
        terms = terms_of(*self.b.target, self.a.term)
        spans = hints.spans(terms)
        for fmt in FORMATS:
            if fmt.floating != self.a.masked or fmt.name.startswith("uint") or not hints.checked:
                continue
            for left, right, offset in self._streams(fmt.width):
                if hints.fits(terms, spans, _subtract(left, right, offset, spans, fmt)):
                    values = _subtract(left, right, offset, self._all, fmt)
                    how = f"one additive pad ({fmt.name}) on two messages of '{self.b.message.stage}'"
                    yield Guess(
                        *self.b.target, values, how, form="difference", minus=self.a.term, rough=True, factor=True
                    )

    def bitwise(self) -> Iterator[Guess]:
        """The XOR of the two plaintexts' words, where nothing more can be had."""
        for fmt in _BITWISE:
            for left, right, offset in self._streams(fmt.width):
                values: Any = _words(left, offset, self._all, fmt) ^ _words(right, offset, self._all, fmt)
                if surprise(values[: 2**12].view(np.uint8)) < UNEVEN:
                    how = f"one XOR pad ({fmt.name}) on two messages of '{self.b.message.stage}'"
                    yield Guess(*self.b.target, values, how, form="xor", minus=self.a.term)

    def with_own(self, own: NDArray[np.floating], hints: Hints) -> Iterator[Guess]:
        """b's plaintext: its bytes XOR those of a, the coalition's own, XOR a's plaintext."""
        terms = terms_of(*self.b.target)
        spans = hints.spans(terms)
        for fmt in _BITWISE:
            plain = _encode(own, fmt)
            for left, right, offset in self._streams(fmt.width):
                if hints.fits(terms, spans, _unmask(left, right, offset, plain, spans, fmt)):
                    values = _unmask(left, right, offset, plain, self._all, fmt)
                    how = f"its own message's keystream opens that of {self.b.message.sender} ({fmt.name})"
                    yield Guess(*self.b.target, values, how, rough=fmt.rough, factor=True)


def _subtract(left: Stream, right: Stream, offset: int, spans: Spans, fmt: Format) -> NDArray[np.floating]:
    if fmt.floating:
        with np.errstate(over="ignore", invalid="ignore"):
            return sample_values(right, offset, spans, fmt) - sample_values(left, offset, spans, fmt)
    difference = _words(right, offset, spans, fmt) - _words(left, offset, spans, fmt)
    return np.asarray(difference.view(fmt.dtype), dtype=np.float64)


def _unmask(left: Stream, right: Stream, offset: int, plain: Words, spans: Spans, fmt: Format) -> NDArray[np.floating]:
    own = np.concatenate([plain[start:stop] for start, stop in spans])
    return fmt.values((_words(left, offset, spans, fmt) ^ _words(right, offset, spans, fmt) ^ own).tobytes())


def _words(stream: Stream, offset: int, spans: Spans, fmt: Format) -> Words:
    """The unsigned words at ``spans``."""
    parts = [stream.read(offset + a * fmt.width, offset + b * fmt.width) for a, b in spans]
    return np.frombuffer(b"".join(parts), dtype=f"<u{fmt.width}")


def _encode(values: NDArray[np.floating], fmt: Format) -> Words:
    """The words that ``values`` have in ``fmt``."""
    if fmt.name.startswith("bfloat16"):
        bits = np.asarray(values, dtype="<f4").view("<u4")
        return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=fmt.dtype).view(f"<u{fmt.width}")
