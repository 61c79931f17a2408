"""What every opener of the harness is given, and what it answers with.

An opener is a function ``(Knowledge, Hints) -> Iterable[Candidate]``. Wrong candidates do no harm: the view keeps only
what agrees with what was sent. No defense controls an opener.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.core.parties import SERVER, is_silo
from bench.core.update import Terms
from bench.defense.channel import Candidate, Knowledge, Message

#: Ranges of positions in the flat adapter.
Spans = tuple[tuple[int, int], ...]
#: Stages whose messages are adapters, decoded before any opener runs.
ADAPTER_STAGES = frozenset({"broadcast", "release"})
#: With fewer values than this, noise read in many ways, or times a free factor, may agree by chance. No adapter is so
#: small; the harness's openers leave such ones alone.
MIN_VALUES = 64


@dataclass(frozen=True)
class Guess(Candidate):
    """A candidate with what an opener knows about its form.

    ``form``: "sum" of the summands of ``silos`` in ``round``; "difference" of that and the summand ``minus``; "xor" of
    the two plaintexts' bits (``values`` are unsigned words of the plaintexts' width); "metadata", where ``values`` may
    be empty and ``how`` says what shows. ``rough``: read from a number format of few digits. ``factor``: known up to
    one factor only (a scale or a weight).
    """

    form: Literal["sum", "difference", "xor", "metadata"] = "sum"
    minus: tuple[int, str] | None = None
    rough: bool = False
    factor: bool = False

    @property
    def terms(self) -> Terms:
        return terms_of(self.round, self.silos, self.minus)


@dataclass(frozen=True)
class Traits:
    """What two chosen updates showed about a channel's sealing (``bench.view.openers.distinguish``), per stage.

    ``deterministic``: equal updates give equal bytes. ``lengths``: the lengths depend on the update. ``headers``: these
    positions in ``bench.view.openers.layouts.heads`` depend on the update.
    """

    deterministic: frozenset[str] = frozenset()
    lengths: frozenset[str] = frozenset()
    headers: tuple[tuple[str, tuple[int, ...]], ...] = ()


class Hints(Protocol):
    """Help for openers that would otherwise have to read everything in every way."""

    def targets(self, message: Message) -> Sequence[frozenset[str]]:
        """Sets of silos whose summed summands the message may hold and that are not read yet, in order of likelihood.
        Empty for messages that carry none, or about the coalition's own silos only."""

    def read(self, terms: Terms) -> bool:
        """Whether the view already holds a reading of these terms, or the coalition its own plaintext of them."""

    def spans(self, terms: Terms) -> Spans:
        """A few hundred positions at which a guess at ``terms`` is worth a first look."""

    def fits(self, terms: Terms, spans: Spans, sample: NDArray[np.floating]) -> bool:
        """Whether values at ``spans`` could be those of ``terms``, up to a factor. A first look, cheap and lenient."""

    @property
    def checked(self) -> bool:
        """False for an imported transcript without truth: then only floating-point formats are told from noise."""

    def traits(self) -> Traits: ...

    def untried(self, what: str) -> None:
        """Note, as part of a sentence, what was left out where work must be bounded: it is said beside every row."""


Opener = Callable[[Knowledge, Hints], Iterable[Candidate]]


def terms_of(round: int, silos: Iterable[str], minus: tuple[int, str] | None = None) -> Terms:
    """The terms of a sum of ``silos`` in ``round``, less the summand ``minus``."""
    plus = [(round, silo, 1) for silo in silos]
    return tuple(sorted([*plus, (*minus, -1)] if minus else plus))


def sealed_by_silos(knowledge: Knowledge) -> list[Message]:
    """The messages of rounds that silos sent and that are no adapters: where uploads are looked for."""
    return [m for m in knowledge.messages if m.round >= 0 and is_silo(m.sender) and m.stage not in ADAPTER_STAGES]


def sealed(knowledge: Knowledge) -> list[Message]:
    """Messages of rounds from silos and the server that are no adapters."""
    return [
        m
        for m in knowledge.messages
        if m.round >= 0 and (is_silo(m.sender) or m.sender == SERVER) and m.stage not in ADAPTER_STAGES
    ]


def even_spans(size: int, count: int = 4, width: int = 64) -> Spans:
    """``count`` ranges of ``width`` positions spread evenly over ``size``, or all of it where that is little more."""
    if size <= 2 * count * width:
        return ((0, size),)
    starts = np.linspace(0, size - width, count).astype(int)
    return tuple((int(start), int(start) + width) for start in starts)


def plausible(sample: NDArray[np.floating]) -> bool:
    """Whether floats look like an update rather than like noise read as floats: finite, not all 0, the median size of
    the non-zero ones within [1e-12, 1e4] and all of them within [1e-20, 1e6] times it. Uniform bits read as floats of
    32 bits fail all but surely from 64 values on, the least that is looked at."""
    if len(sample) < MIN_VALUES or not np.isfinite(sample).all():
        return False
    sizes = np.abs(sample[sample != 0]).astype(np.float64)
    if len(sizes) == 0:
        return False
    median = float(np.median(sizes))
    return 1e-12 < median < 1e4 and float(sizes.max()) <= 1e6 * median and float(sizes.min()) >= 1e-20 * median
