"""Which coordinates a message sends, and how well a record's gradient foretells them: pure functions of arrays.

``bounds``: where each LoRA tensor begins in the flat adapter, and its size last (``Layout.offsets``); sparsifiers work
tensor by tensor, so ranks and sizes are taken within tensors. ``told``: the coordinates whose being sent or not is
known and tells something; ``there``: those of them that are sent. Both (size,) bool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: share of zeros from which a tensor counts as sparse
FEW = 0.01
#: ratio of neighbouring magnitudes that parts noise on zeros from values
GAP = 4.0


@dataclass(frozen=True)
class Support:
    """See the module."""

    there: Mask
    told: Mask

    @property
    def empty(self) -> bool:
        return not self.told.any()

    def tensors(self, bounds: Sequence[int]) -> Iterator[tuple[NDArray[np.int64], Mask]]:
        """(told coordinates, which of them are sent) of each tensor that has any."""
        for start, stop in pairwise(bounds):
            where = start + np.flatnonzero(self.told[start:stop])
            if len(where):
                yield where, self.there[where]


def sent(values: NDArray[np.floating], bounds: Sequence[int], visible: Mask | None = None) -> Support:
    """The support of an opened message: where it is not zero.

    A tensor is told where at least ``FEW`` of its ``visible`` values (None: all), and not all, are zero. Values that
    opened with noise (CKKS) have no exact zeros: there zero is what lies below the widest gap between neighbouring
    magnitudes, if these differ by ``GAP`` or more and at least ``FEW`` of all lie below.
    """
    size = np.abs(np.asarray(values, dtype=np.float64))
    seen = np.ones(len(size), dtype=np.bool_) if visible is None else visible
    there = size > _noise(size[seen])
    told = np.zeros(len(size), dtype=np.bool_)
    for start, stop in pairwise(bounds):
        inside = np.arange(start, stop)[seen[start:stop]]
        zeros = int((~there[inside]).sum())
        if FEW * len(inside) <= zeros < len(inside):
            told[inside] = True
    return Support(there & told, told)


def _noise(size: Floats) -> float:
    """The magnitude up to which a value counts as zero."""
    least = int(np.ceil(FEW * len(size)))
    if not least or (size == 0).sum() >= least:
        return 0.0
    order = np.sort(size[size > 0])
    if len(order) <= least:
        return 0.0
    ratios = order[least:] / order[least - 1 : -1]
    widest = int(np.argmax(ratios))
    return float(order[least - 1 + widest]) if ratios[widest] >= GAP else 0.0


def largest(values: NDArray[np.floating], share: float, bounds: Sequence[int]) -> Support:
    """What would be sent if each tensor kept its max(1, round(share n)) largest; tensors of zeros tell nothing."""
    there = np.zeros(len(values), dtype=np.bool_)
    told = np.zeros(len(values), dtype=np.bool_)
    for start, stop in pairwise(bounds):
        size = np.abs(values[start:stop])
        if stop > start and size.any():
            there[start:stop] = top(size, max(1, round(share * (stop - start))))
            told[start:stop] = not there[start:stop].all()
    return Support(there & told, told)


def ascending(size: NDArray[np.floating]) -> NDArray[np.int64]:
    """(n,) where the magnitudes (n,), none negative, lie in ascending order as float32; of equal ones the first first.

    A float32 that is not negative sorts as its bits do. Bits and index make one integer, which sorts several times
    faster than a stable sort of indices.
    """
    bits = np.ascontiguousarray(size, dtype=np.float32).view(np.uint32).astype(np.uint64)
    keys = (bits << np.uint64(32)) | np.arange(len(bits), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def top(size: NDArray[np.floating], count: int) -> Mask:
    """Where the ``count`` largest are; of equal ones the last."""
    mask = np.zeros(len(size), dtype=np.bool_)
    if count > 0:
        mask[ascending(size)[-count:]] = True
    return mask


def savage(size: NDArray[np.floating]) -> Floats:
    """Exponential scores of n magnitudes: that of rank r is the mean r-th smallest of n standard exponentials, the sum
    of 1/i for i from n - r + 1 to n (Savage 1956); their mean is 1. All 1 where the magnitudes are all equal."""
    n = len(size)
    scores = np.ones(n)
    if n and size.min() < size.max():
        scores[ascending(size)] = np.cumsum(1.0 / np.arange(n, 0, -1))
    return scores


def scored(size: NDArray[np.floating], support: Support, bounds: Sequence[int]) -> NDArray[np.float32]:
    """(told coordinates,) ``savage`` of the magnitudes (size,), within each tensor."""
    parts = [savage(size[where]) for where, _ in support.tensors(bounds)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def lift(scores: NDArray[np.floating], support: Support) -> float:
    """How much higher ``scores`` (told coordinates,) are where something was sent than where nothing was."""
    there = support.there[support.told]
    return float(scores[there].mean(dtype=np.float64) - scores[~there].mean(dtype=np.float64))


def jaccard(size: NDArray[np.floating], support: Support, bounds: Sequence[int]) -> float:
    """|S and P| / |S or P|: S what was sent, P as many of the largest magnitudes (size,) in each tensor. Tensors whose
    magnitudes are all equal foretell nothing and are left out; 0 where all are."""
    both = either = 0
    for where, there in support.tensors(bounds):
        values = size[where]
        if values.min() < values.max():
            foretold = top(values, int(there.sum()))
            both += int((there & foretold).sum())
            either += int((there | foretold).sum())
    return both / either if either else 0.0


def profile(size: NDArray[np.floating], cuts: Sequence[int]) -> Floats:
    """(frames,) log of the root mean square of the magnitudes between successive ``cuts``."""
    means = [float(np.mean(np.square(size[a:b], dtype=np.float64))) if b > a else 0.0 for a, b in pairwise(cuts)]
    return 0.5 * np.log(np.array(means) + 1e-30)


@dataclass(frozen=True)
class Chance:
    """How likely coordinates are to be sent, with and without one record's part: the normal model of ``chance``.

    ``centre``, ``spread``, ``cut``: (told coordinates,) mean and deviation of the value X before sparsification, and
    the magnitude from which it is sent. ``pull``: (told coordinates,) what one unit of a record's gradient, less
    ``mean``, moves X by if the silo trained on it, as one of ``records``.
    """

    there: Mask
    mean: Floats
    centre: Floats
    spread: Floats
    cut: Floats
    pull: Floats
    records: int

    def ratio(self, gradient: NDArray[np.floating], mean: Floats | None = None) -> float:
        """sum over told coordinates of log P(sent or not | the record is there) - log P(sent or not | it is not).

        ``gradient``: (told coordinates,). ``mean``: in place of the model's own, for a record that is part of it.
        """
        if mean is None:
            return self._total(self.centre + self.pull * (gradient - self.mean)) - self._without
        centre = self.centre + self.records * self.pull * (mean - self.mean)
        return self._total(centre + self.pull * (gradient - mean)) - self._total(centre)

    @cached_property
    def _without(self) -> float:
        """The same for every record that the model was not made of."""
        return self._total(self.centre)

    def _total(self, centre: Floats) -> float:
        return float(self._log(centre).sum())

    def _log(self, centre: Floats) -> Floats:
        p = _sent(centre, self.spread, self.cut)
        found: Floats = np.log(np.clip(np.where(self.there, p, 1 - p), 1e-9, None))
        return found


def _sent(centre: Floats, spread: Floats, cut: Floats | float) -> Floats:
    """P(|X| > cut) of a normal X."""
    from scipy.special import ndtr

    found: Floats = ndtr((centre - cut) / spread) + ndtr((-centre - cut) / spread)
    return found


def chance(
    gradients: NDArray[np.floating],
    records: int,
    support: Support,
    bounds: Sequence[int],
    offset: NDArray[np.floating] | None = None,
    moves: NDArray[np.floating] | None = None,
) -> Chance | None:
    """The model of a silo that trains on ``records`` records of the population's kind, from ``gradients`` (m, told
    coordinates) of m >= 2 of them.

    X is, up to a scale, minus the mean of the records' gradients, normal with the population's mean and its deviation
    over sqrt(records); or, where whole weights are pruned, ``offset`` (size,) plus that, scaled so that its median
    magnitude where something was sent is that of ``moves`` (size,). In each tensor the cut is where the expected number
    of coordinates that are sent is the number that was. None where no gradient differs from zero.
    """
    mean, deviation = gradients.mean(axis=0, dtype=np.float64), gradients.std(axis=0, ddof=1, dtype=np.float64)
    start = np.zeros(len(mean)) if offset is None else np.asarray(offset[support.told], dtype=np.float64)
    pull, spread, cut = np.zeros(len(mean)), np.ones(len(mean)), np.zeros(len(mean))
    live = np.zeros(len(mean), dtype=np.bool_)
    first = 0
    for where, there in support.tensors(bounds):
        part = slice(first, first := first + len(where))
        if not deviation[part].any():
            continue
        scale = 1.0
        if moves is not None:
            typical = float(np.median(np.abs(mean[part][there]))) if there.any() else 0.0
            scale = float(np.median(moves[where][there])) / typical if typical > 0 else 0.0
        if scale <= 0:
            continue
        least = 1e-3 * float(deviation[part].mean())
        spread[part] = scale * np.maximum(deviation[part], least) / records**0.5
        pull[part] = -scale / records
        cut[part] = _cut(start[part] - scale * mean[part], spread[part], int(there.sum()))
        start[part] -= scale * mean[part]
        live[part] = True
    if not live.any():
        return None
    return Chance(support.there[support.told], mean, start, spread, cut, pull, records)


def _cut(centre: Floats, spread: Floats, count: int) -> float:
    """Where the expected number of larger magnitudes is ``count``, by bisection."""
    low, high = 0.0, float((np.abs(centre) + 10 * spread).max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float(_sent(centre, spread, middle).sum()) > count else (low, middle)
    return (low + high) / 2
