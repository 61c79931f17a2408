"""Plain numbers in messages: raw arrays in the usual formats at plausible offsets, and arrays in containers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.parties import is_silo
from bench.core.update import Layout, Terms
from bench.defense.channel import Candidate, Knowledge, Message
from bench.view.openers.base import MIN_VALUES, Guess, Hints, sealed, terms_of
from bench.view.openers.containers import MAX_DEPTH, expand
from bench.view.openers.layouts import Source, Stream, layouts

#: First look: whether the sampled values at (spans, in order) may be what is looked for.
Look = Callable[[NDArray[np.floating]], bool]


@dataclass(frozen=True)
class Format:
    """A number format. ``rough``: fewer than 20 significant bits, or steps of unknown size."""

    name: str
    dtype: np.dtype[np.generic]
    rough: bool
    floating: bool
    decode: Callable[[NDArray[np.generic]], NDArray[np.floating]]

    @property
    def width(self) -> int:
        return self.dtype.itemsize

    def tells_noise(self, size: int) -> bool:
        """Whether ``size`` random bit patterns would show by themselves: integers never do, and of half floats, which
        span few orders of magnitude, only one in 32 is infinite or no number."""
        return self.floating and size >= (1024 if self.name.startswith("float16") else MIN_VALUES)

    def values(self, data: bytes) -> NDArray[np.floating]:
        """``data`` as real values. Bytes left over are ignored."""
        raw = np.frombuffer(data, dtype=self.dtype, count=len(data) // self.width)
        return self.decode(raw)


def _float(raw: NDArray[np.generic]) -> NDArray[np.floating]:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(raw, dtype=np.float64 if raw.dtype.itemsize == 8 else np.float32)


def _bfloat16(raw: NDArray[np.generic]) -> NDArray[np.floating]:
    return (raw.astype("<u4") << np.uint32(16)).view("<f4")


def _integer(raw: NDArray[np.generic]) -> NDArray[np.floating]:
    return raw.astype(np.float64)


def _centred(raw: NDArray[np.generic]) -> NDArray[np.floating]:
    """Unsigned integers around the middle of their range."""
    return raw.astype(np.float64) - 2.0 ** (8 * raw.dtype.itemsize - 1)


def _formats() -> Iterator[Format]:
    for name, code in (("float32", "f4"), ("float64", "f8"), ("float16", "f2")):
        for order in "<>":
            yield Format(f"{name} {order}", np.dtype(order + code), code == "f2", True, _float)
    yield Format("bfloat16 <", np.dtype("<u2"), True, True, _bfloat16)
    for width in (1, 2, 4, 8):
        yield Format(f"int{8 * width}", np.dtype(f"<i{width}"), True, False, _integer)
        yield Format(f"uint{8 * width}", np.dtype(f"<u{width}"), True, False, _centred)


FORMATS = tuple(_formats())


def numeric(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """Uploads and sums that travel as plain numbers, packed or compressed or not."""
    for message in sealed(knowledge):
        if hints.targets(message):
            yield from read_message(message, Source.of(message), knowledge, hints, "")


def read_message(message: Message, source: Source, knowledge: Knowledge, hints: Hints, prefix: str) -> Iterator[Guess]:
    """Candidates for ``message`` from its frames, or from what was decrypted of them (``source``).

    ``prefix`` begins each candidate's ``how``. Stops trying once the view has what the message may hold.
    """
    layout = knowledge.public.layout
    for silos in hints.targets(message):
        if silos not in hints.targets(message):
            continue
        for values, rough, name in decode(source, layout, terms_of(message.round, silos), hints):
            origin = f"stage '{message.stage}' from {message.sender}"
            how = f"{prefix}{name} in {origin}"
            yield Guess(message.round, silos, values, how, rough=rough, factor=True)
            if silos not in hints.targets(message):
                break
        if is_silo(message.sender) and not hints.targets(message):
            return


def decode(
    source: Source, layout: Layout, terms: Terms, hints: Hints, depth: int = 0
) -> Iterator[tuple[NDArray[np.floating], bool, str]]:
    """(values, rough, name) of every way to read ``layout.size`` numbers from ``source`` that stands a first look."""
    size = layout.size
    spans = hints.spans(terms)

    def look(sample: NDArray[np.floating]) -> bool:
        return hints.fits(terms, spans, sample)

    for fmt in FORMATS:
        if not (hints.checked or fmt.tells_noise(size)):
            continue
        for stream, offset in layouts(source, size * fmt.width):
            if look(sample_values(stream, offset, spans, fmt)):
                yield fmt.values(stream.read(offset, offset + size * fmt.width)), fmt.rough, f"raw {fmt.name}"
    if depth < MAX_DEPTH:
        for name, content in expand(source, layout):
            if isinstance(content, Source):
                for values, rough, inner in decode(content, layout, terms, hints, depth + 1):
                    yield values, rough, f"{name} of {inner}"
            elif look(at_spans(content, spans)):
                yield content, True, name


def sample_values(stream: Stream, offset: int, spans: tuple[tuple[int, int], ...], fmt: Format) -> NDArray[np.floating]:
    """The values at ``spans`` if numbers of ``fmt`` begin at ``offset``."""
    width = fmt.width
    return np.concatenate([fmt.values(stream.read(offset + a * width, offset + b * width)) for a, b in spans])


def at_spans(values: NDArray[np.floating], spans: tuple[tuple[int, int], ...]) -> NDArray[np.floating]:
    return np.concatenate([values[a:b] for a, b in spans])
