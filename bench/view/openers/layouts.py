"""Random access to the bytes of a message, and the ways in which ``n`` values may lie in its frames."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from bench.defense.channel import Message

#: (frame, start, stop)
Piece = tuple[int, int, int]
#: lengths of headers, nonces and tags that values may lie behind
HEADERS = (0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 44, 48, 64, 96, 128, 256)
MAX_HEADER = 4096
#: bytes of a frame, and frames of a message, whose values may give something away
HEAD = 64
_MAX_HEADS = 3
_KEEP = 16 * 2**20  # bytes of recently read frames


class Source:
    """Frames by index; the last read ones are kept, 16 MiB in all or a single larger one."""

    def __init__(self, lengths: Sequence[int], fetch: Callable[[int], bytes]) -> None:
        self.lengths = tuple(lengths)
        self._fetch = fetch
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    @classmethod
    def of(cls, message: Message) -> Source:
        """The frames of ``message`` after those that are JSON: headers in clear, which hold no values."""
        skip = 0
        while skip < min(_MAX_HEADS, len(message.lengths) - 1) and _is_json(message, skip):
            skip += 1
        return cls(message.lengths[skip:], lambda index: message.frame(index + skip))

    @classmethod
    def of_frames(cls, frames: Sequence[bytes]) -> Source:
        return cls([len(frame) for frame in frames], lambda index: frames[index])

    @property
    def size(self) -> int:
        return sum(self.lengths)

    def frame(self, index: int) -> bytes:
        if index not in self._kept:
            data = self._fetch(index)
            while self._kept and sum(map(len, self._kept.values())) + len(data) > _KEEP:
                self._kept.popitem(last=False)
            self._kept[index] = data
        self._kept.move_to_end(index)
        return self._kept[index]

    def whole(self) -> Stream:
        return Stream(self, [(i, 0, n) for i, n in enumerate(self.lengths)])


def heads(message: Message) -> bytes:
    """The first ``HEAD`` bytes of each of the first frames, zero-padded: where headers are looked for."""
    count = min(_MAX_HEADS, len(message.lengths))
    return b"".join(message.frame(i)[:HEAD].ljust(HEAD, b"\0") for i in range(count)).ljust(_MAX_HEADS * HEAD, b"\0")


def _is_json(message: Message, index: int) -> bool:
    if not 2 <= message.lengths[index] <= MAX_HEADER:
        return False
    try:
        return isinstance(json.loads(message.frame(index)), dict | list)
    except (ValueError, RecursionError):
        return False


class Stream:
    """Pieces of frames, one after the other, as one run of bytes."""

    def __init__(self, source: Source, pieces: Sequence[Piece]) -> None:
        self._source = source
        self._pieces = pieces
        self._ends = list(accumulate(stop - start for _, start, stop in pieces))

    @property
    def size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop``; fewer where the stream ends before."""
        parts = []
        begin = 0
        for (frame, first, last), end in zip(self._pieces, self._ends, strict=True):
            if end > start and begin < stop:
                low, high = max(start - begin, 0), min(stop - begin, last - first)
                parts.append(self._source.frame(frame)[first + low : first + high])
            begin = end
            if begin >= stop:
                break
        return b"".join(parts)


def bodies(count: int) -> Iterator[range]:
    """The frames that may hold the values: all; all but a header frame; all but a trailing frame."""
    yield range(count)
    if count > 1:
        yield range(1, count)
        yield range(count - 1)


def layouts(source: Source, payload: int) -> Iterator[tuple[Stream, int]]:
    """(stream, offset) at which ``payload`` bytes of values may lie: contiguous behind a header, or with a header
    and a trailer of equal length in every frame."""
    for body in bodies(len(source.lengths)):
        extra = sum(source.lengths[i] for i in body) - payload
        if extra < 0:
            continue
        stream = Stream(source, [(i, 0, source.lengths[i]) for i in body])
        # a header before the values is the commonest
        for offset in dict.fromkeys([extra, *(h for h in HEADERS if h <= extra)]):
            yield stream, offset
        yield from _framed(source, body, extra)


def _framed(source: Source, body: range, extra: int) -> Iterator[tuple[Stream, int]]:
    each, rest = divmod(extra, len(body))
    if len(body) == 1 or rest or not 0 < each <= MAX_HEADER or min(source.lengths[i] for i in body) < each:
        return
    for head in dict.fromkeys([each, *(h for h in HEADERS if h <= each)]):
        tail = each - head
        yield Stream(source, [(i, head, source.lengths[i] - tail) for i in body]), 0
