"""What sparse messages of a view show: which coordinates silos sent, and how long the messages are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attacks import supports
from attacks.supports import Floats, Support
from bench.core.update import Array

if TYPE_CHECKING:
    from bench.view.view import Reading, View

#: how the harness's opener words a reading of lengths (bench.view.openers.lengths)
_LENGTHS = "the lengths of "


@dataclass(frozen=True)
class Message:
    """A support that is read. ``at``: the adapter at which gradients are taken. ``offset``: where the silo sparsified
    whole weights, the adapter that it started from, else None. ``moves``: by how much it moved."""

    round: int
    silos: frozenset[str]
    support: Support
    at: Array | None
    what: str
    offset: Array | None = None
    moves: Array | None = None
    records: int = 1


def messages(view: View, silo: str) -> Iterator[Message]:
    """The supports that concern ``silo``."""
    bounds = view.public.adapter.offsets
    yield from _uploads(view, silo, bounds)
    yield from _partials(view, silo, bounds)


def stated_size(view: View, silo: str) -> int | None:
    """Records that a silo trains on, by public sizes or settings; None where neither says."""
    pool = view.spec.get("pool", {})
    if silo in view.public.sizes or "candidates" not in pool or "share" not in pool:
        return view.public.sizes.get(silo)
    return max(1, round(float(pool["candidates"]) * float(pool["share"])))


def nominal_size(view: View, silo: str) -> int:
    """``stated_size``; else by the silo's weight, where weights are sizes."""
    return stated_size(view, silo) or view.public.weights.get(silo, 1)


def _start(reading: Reading, view: View) -> Array | None:
    """The adapter that the reading's round started from."""
    before = reading.before
    return view.initial if before is None and reading.round == 0 else before


def sums_updates(view: View) -> bool:
    """False where summands are something else than updates of the adapter (products of factors, stacks)."""
    return view.public.layout == view.public.adapter


def _trained(values: Array | None, size: int) -> Array:
    """The values that silos train, which an adapter begins with."""
    return np.zeros(size, dtype=np.float32) if values is None else values[:size]


def _uploads(view: View, silo: str, bounds: Sequence[int]) -> Iterator[Message]:
    for reading in view.uploads(silo):
        values: NDArray[np.floating] = reading.values
        if not sums_updates(view):  # what the silo's own factors tell
            values = _trained(reading.adapter, bounds[-1]) - _trained(reading.before, bounds[-1])
        support, at = supports.sent(values, bounds), _start(reading, view)
        if not support.empty and at is not None:
            message = Message(reading.round, reading.silos, support, at, "zeros of the upload")
            yield _of_weights(message, reading)


def _of_weights(message: Message, reading: Reading) -> Message:
    """Where what was left out are whole weights, the silo's own adapter is zero there, and did not start so."""
    if reading.adapter is None or reading.before is None:
        return message
    adapter, before = (_trained(values, len(message.support.told)) for values in (reading.adapter, reading.before))
    unsent = message.support.told & ~message.support.there & (before != 0)
    if not unsent.any() or np.median(np.abs(adapter[unsent])) > 1e-3 * np.median(np.abs(before[unsent])):
        return message
    return replace(message, offset=before, moves=np.abs(adapter - before), what="pruned weights of the upload")


def _partials(view: View, silo: str, bounds: Sequence[int]) -> Iterator[Message]:
    """Zeros among the coordinates that are read; and which are not, where these are the fewer: what is kept back is
    chosen by size, once, by the silos' first sum."""
    kept_back: dict[bytes, Message] = {}
    for reading in view.readings:
        where = reading.support if silo in reading.silos else None
        if where is None or not sums_updates(view):
            continue
        visible = np.zeros(view.public.layout.size, dtype=np.bool_)
        visible[where] = True
        inside, at = supports.sent(reading.values, bounds, visible), _start(reading, view)
        if not inside.empty and at is not None and len(reading.silos) == 1:
            yield Message(reading.round, reading.silos, inside, at, "zeros of what is read of the upload")
        if 0 < (~visible).sum() < len(where) and view.initial is not None:
            hidden = Support(~visible, np.ones(len(visible), dtype=np.bool_))
            silos = frozenset(view.public.participants[0])
            message = Message(0, silos, hidden, view.initial, "coordinates that are kept back")
            kept_back.setdefault(visible.tobytes(), message)
    yield from (message for message in kept_back.values() if silo in message.silos)


def lengths(view: View) -> dict[tuple[int, str], Floats]:
    """By (round, silo) the lengths of the frames of messages, joined over stages, where they depend on the update."""
    found: dict[tuple[int, str], list[Floats]] = {}
    for reading in view.readings:
        if reading.kind == "metadata" and reading.how.startswith(_LENGTHS) and len(reading.silos) == 1:
            (silo,) = reading.silos
            found.setdefault((reading.round, silo), []).append(reading.values)
    joined = {key: np.concatenate(parts) for key, parts in found.items()}
    frames = max((len(v) for v in joined.values()), default=0)
    return {key: values for key, values in joined.items() if len(values) == frames}


def starts(view: View) -> Mapping[int, Array]:
    """Known adapters by the round that starts from them."""
    found = {} if view.initial is None else {0: view.initial}
    return found | {r.round + 1: r.adapter for r in view.adapters() if r.adapter is not None}
