"""What a view tells of one silo along the rounds: models to take losses under, and steps to compare gradients with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from attacks.shadowing import describe
from bench.core.update import Array, Layout

if TYPE_CHECKING:
    from bench.view.view import Reading, View

Which = Literal["first", "last", "ends", "all"]


@dataclass(frozen=True)
class Step:
    """A known change of the adapter: from ``before()`` to ``after()``, flat and read when asked for.

    ``silo``: whose own training it was; None for a change of the global adapter. ``reached()``: the global adapter that
    came of it; where that is not known, ``after()``. ``start``, ``end``: the same ends as models to take losses under,
    None for the base model.
    """

    round: int
    silo: str | None
    before: Callable[[], Array]
    after: Callable[[], Array]
    reached: Callable[[], Array]
    start: Reading | None
    end: Reading
    reads: str

    def update(self, layout: Layout) -> NDArray[np.float64]:
        """(layout.size,) float64, the change of the values that silos train, which come first in an adapter."""
        return self.after()[: layout.size].astype(np.float64) - self.before()[: layout.size]


def track(view: View, silo: str) -> tuple[Reading, ...]:
    """The models that tell most about a silo, by round: its own after each opened upload; else ``global_track``."""
    own = tuple(sorted((r for r in view.uploads(silo) if r.handle), key=lambda r: r.round))
    return own or global_track(view)


def global_track(view: View) -> tuple[Reading, ...]:
    """The global models, by round: the adapters that are known; else the released ones behind their interface."""
    queries = tuple(r for r in view.readings if r.kind == "query")
    return tuple(sorted(view.adapters() or queries, key=lambda r: r.round))


def steps(view: View, silo: str, layout: Layout) -> tuple[Step, ...]:
    """The silo's own changes of the adapter, by round, where an upload opened and what it started from is known; else
    ``global_steps``. ``layout``: the model's."""
    return own_steps(view, silo) or global_steps(view, layout)


def own_steps(view: View, silo: str) -> tuple[Step, ...]:
    """One for each of the silo's opened uploads of which it is known what it started from, by round."""
    found = [step for r in view.uploads(silo) if (step := own_step(view, r)) is not None]
    return tuple(sorted(found, key=lambda s: s.round))


def own_step(view: View, reading: Reading) -> Step | None:
    """The step of an opened upload, or None where the adapter that it started from is not known."""
    if not reading.handle or reading.before_path is None:
        return None
    (silo,) = reading.silos
    adapters = {r.round: r for r in view.adapters()}
    after, start = _load(reading), adapters.get(reading.round - 1)
    reached = _load(adapters[reading.round]) if reading.round in adapters else after
    return Step(reading.round, silo, lambda: _known(reading.before), after, reached, start, reading, describe(reading))


def global_steps(view: View, layout: Layout) -> tuple[Step, ...]:
    """Changes from each known global adapter to the next known one, the initial one included.

    Where a single adapter is all that is known, it is ``whole``.
    """
    known = sorted(view.adapters(), key=lambda r: r.round)
    if not known:
        return ()
    starts: list[tuple[Callable[[], Array], Reading | None, Reading]]
    starts = [(_load(a), a, b) for a, b in pairwise(known)]
    if view.initial_path is not None:
        starts.insert(0, (lambda: _known(view.initial), None, known[0]))
    elif not starts:
        return whole(view, layout)
    return tuple(Step(r.round, None, at, _load(r), _load(r), start, r, describe(r)) for at, start, r in starts)


def whole(view: View, layout: Layout) -> tuple[Step, ...]:
    """All of training as one step, which whoever holds the last global adapter knows; none where nobody does.

    It is compared with itself before training as far as that can be told: the same A, and a B of zeros, under which the
    model is the base model.
    """
    known = view.adapters()
    if not known:
        return ()
    last = max(known, key=lambda r: r.round)
    after = _load(last)
    return (Step(last.round, None, lambda: untrained(layout, after()), after, after, None, last, describe(last)),)


def untrained(layout: Layout, adapter: Array) -> Array:
    """A copy in which every lora_B is zero, and nothing is added to frozen weights."""
    copy = np.array(adapter[: layout.size], dtype=np.float32)
    for name, tensor in layout.tensors(copy):
        if "lora_B" in name:
            tensor[...] = 0
    return copy


def chosen(known: Sequence[Step], which: Which) -> tuple[Step, ...]:
    """The ``first`` step, the ``last``, both (``ends``), or ``all``."""
    if which == "all" or len(known) < 2:
        return tuple(known)
    return {"first": (known[0],), "last": (known[-1],), "ends": (known[0], known[-1])}[which]


def listed(reads: Iterable[str]) -> tuple[str, ...]:
    """Each once, in order."""
    return tuple(dict.fromkeys(reads))


def _load(reading: Reading) -> Callable[[], Array]:
    return lambda: _known(reading.adapter)


def _known(values: Array | None) -> Array:
    if values is None:
        raise ValueError("a reading that names an adapter holds none")
    return values
