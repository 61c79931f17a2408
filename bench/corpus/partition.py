"""Who holds what: clusters of records divided among silos.

* ``iid``: at random.
* ``silo``: a silo is an organisation that records name, and holds its records only, as many as its size gives it
  (``bench.corpus.organisations``); under the others every silo holds the same number.
* ``field``: the values of the records' ``field`` are divided into one group per silo, of nearly equal size; a silo
  holds records of its own values only.
* ``dirichlet``: a silo's shares of the values of ``field`` (of ``label`` where no record has a field) are drawn from a
  Dirichlet distribution with parameter ``alpha`` times their shares in the whole (Hsu, Qi and Brown 2019): the smaller
  alpha, the more the silos differ.

A cluster lies wholly in one silo, with the value that most of its records have (of several, the first in alphabetical
order). A silo holds exactly as many records as asked, and no cluster of more than half of them, so that a game always
has one to train on and one to leave out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.core.errors import UsageError
from bench.spec.run import FederationSpec


@dataclass(frozen=True)
class Unit:
    """One cluster: its number, the ids of its records, and the value that the partition looks at (None for iid)."""

    cluster: int
    ids: tuple[str, ...]
    value: str | None = None


@dataclass(frozen=True)
class Partition:
    """``silos[i]``: the units of silo i. ``rest``: what no silo took, in one list per population of values (one for
    iid, silo and dirichlet; one per silo for field), each in random order."""

    silos: tuple[tuple[Unit, ...], ...]
    rest: tuple[tuple[Unit, ...], ...]


def partition(units: Sequence[Unit], federation: FederationSpec, size: int, rng: np.random.Generator) -> Partition:
    """Give every silo ``size`` records out of ``units``, which are in random order already.

    Raises UsageError where there are too few values or records, or where clusters don't add up to ``size``.
    """
    if federation.partition == "field":
        return _by_field(units, federation.silos, size, rng)
    if federation.partition == "dirichlet":
        return _dirichlet(units, federation.silos, size, federation.dirichlet_alpha, rng)
    order = deque(units)
    silos = tuple(_filled(order, size, i) for i in range(federation.silos))
    return Partition(silos, (tuple(order),))


def by_organisation(units: Sequence[Unit], sizes: Mapping[str, int]) -> Partition:
    """Give the i-th organisation, by the units' values, as many records as ``sizes`` says. Raises UsageError."""
    own: dict[str, deque[Unit]] = {name: deque() for name in sizes}
    for unit in units:
        own[_value(unit)].append(unit)
    advice = "lower pool.candidates, or pool.min_tokens where records are short"
    held = [_filled(own[name], size, i, f" ('{name}')", advice) for i, (name, size) in enumerate(sizes.items())]
    taken = {unit.cluster for silo in held for unit in silo}
    return Partition(tuple(held), (tuple(unit for unit in units if unit.cluster not in taken),))


def take(order: deque[Unit], count: int, largest: int | None = None) -> list[Unit] | None:
    """Remove units of exactly ``count`` records in all, each of at most ``largest``, from ``order`` and return them.

    The rule: walk in order and take every unit that still fits. Where that leaves a gap, take the first choice in
    order that adds up: a unit is passed over only where the units after it could not fill what it leaves. None, and
    ``order`` as it was, where nothing adds up.
    """
    walked: list[Unit] = []
    fits: list[bool] = []
    room, largest = count, count if largest is None else largest
    while room and order:
        unit = order.popleft()
        walked.append(unit)
        fits.append(len(unit.ids) <= min(room, largest))
        room -= len(unit.ids) * fits[-1]
    if room:  # nothing is left in order: walked is all there was
        fits = _adding_up([len(unit.ids) for unit in walked], count, largest)
    order.extendleft(unit for unit, taken in zip(reversed(walked), reversed(fits), strict=True) if not taken)
    return [unit for unit, taken in zip(walked, fits, strict=True) if taken] if any(fits) or not count else None


def _adding_up(sizes: Sequence[int], count: int, largest: int) -> list[bool]:
    """Which sizes to take for ``count`` in all, none above ``largest`` (subset sum); none where it can't be done.

    Bit s of ``reachable[i]`` says that some of sizes[i:] make s.
    """
    limit = (1 << (count + 1)) - 1
    reachable = [1]
    for size in reversed(sizes):
        reachable.append((reachable[-1] | (reachable[-1] << size if size <= largest else 0)) & limit)
    reachable.reverse()
    room = count if reachable[0] >> count & 1 else 0
    taken = []
    for i, size in enumerate(sizes):
        gap = room - size
        taken.append(size <= largest and gap >= 0 and bool(reachable[i + 1] >> gap & 1))
        room = gap if taken[-1] else room
    return taken


def too_few(what: str, units: Iterable[Unit], count: int, advice: str) -> UsageError:
    """The error where ``units`` can't give ``count`` records, either because they are too few or too coarse."""
    sizes = [len(unit.ids) for unit in units]
    have = sum(sizes)
    if have < count:
        return UsageError(f"{what}: {count} records are asked for and {have} are left; {advice}.")
    return UsageError(
        f"{what}: {count} records are asked for, and the {have} that are left come in {len(sizes)} clusters of "
        f"near-duplicates or groups (of up to {max(sizes)}) that don't add up to it, where a silo takes none of more "
        f"than half its records; {advice}."
    )


def _filled(
    order: deque[Unit],
    size: int,
    silo: int,
    holding: str = "",
    advice: str = "lower pool.candidates or federation.silos",
) -> tuple[Unit, ...]:
    units = take(order, size, largest=size // 2)
    if units is None:
        raise too_few(f"silo-{silo}{holding}", order, size, advice)
    return tuple(units)


def _by_field(units: Sequence[Unit], silos: int, size: int, rng: np.random.Generator) -> Partition:
    """Largest value first to the silo that has least (LPT scheduling); equal values in random order."""
    counts = _counts(units)
    if len(counts) < silos:
        raise UsageError(
            f"federation.partition=field needs a different field for each of {silos} silos, and the records have "
            f"{len(counts)}; lower federation.silos or use another partition."
        )
    values = [list(counts)[i] for i in rng.permutation(len(counts))]
    home: dict[str, int] = {}
    load = [0] * silos
    for value in sorted(values, key=lambda value: -counts[value]):
        home[value] = min(range(silos), key=lambda i: load[i])
        load[home[value]] += counts[value]
    shares: list[deque[Unit]] = [deque() for _ in range(silos)]
    for unit in units:
        shares[home[_value(unit)]].append(unit)
    held = tuple(_filled(share, size, i, _named(home, i)) for i, share in enumerate(shares))
    return Partition(held, tuple(tuple(share) for share in shares))


def _named(home: dict[str, int], silo: int) -> str:
    values = sorted(value for value, i in home.items() if i == silo)
    shown = ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")
    return f" (fields {shown})"


def _dirichlet(units: Sequence[Unit], silos: int, size: int, alpha: float, rng: np.random.Generator) -> Partition:
    """Silo after silo: draw its shares, then clusters one by one, the value by the shares, until it is full."""
    left = deque(units)
    counts = _counts(units)
    total = sum(counts.values())
    held = []
    for silo in range(silos):
        shares = {value: _log_gamma_draw(alpha * n / total, rng) for value, n in counts.items()}
        order = deque(_drawn(left, shares, rng))
        held.append(_filled(order, size, silo))
        kept = {unit.cluster for unit in order}
        left = deque(unit for unit in left if unit.cluster in kept)
    return Partition(tuple(held), (tuple(left),))


def _log_gamma_draw(shape: float, rng: np.random.Generator) -> float:
    """The logarithm of a Gamma(shape, 1) variate; for shape far below 1 the variate itself would be 0.

    Gamma(a) is distributed as Gamma(a + 1) U^(1/a) (Marsaglia and Tsang 2000, section 6). Independent Gamma variates,
    divided by their sum, are Dirichlet; the sum cancels in ``_drawn``.
    """
    return float(np.log(rng.gamma(shape + 1)) + np.log1p(-rng.random()) / shape)


def _drawn(units: Iterable[Unit], log_shares: dict[str, float], rng: np.random.Generator) -> list[Unit]:
    """``units`` in the order in which draws by value, with probability by the shares of the values not yet used up,
    would take them: unit k of a value arrives at the k-th event of a Poisson process of the value's rate."""
    clock: dict[str, float] = dict.fromkeys(log_shares, 0.0)
    arrival: list[tuple[float, Unit]] = []
    for unit in units:
        clock[_value(unit)] += rng.standard_exponential()
        arrival.append((float(np.log(clock[_value(unit)])) - log_shares[_value(unit)], unit))
    return [unit for _, unit in sorted(arrival, key=lambda pair: pair[0])]


def _counts(units: Sequence[Unit]) -> dict[str, int]:
    """Records of every value, in the values' alphabetical order."""
    counts = dict.fromkeys(sorted({_value(unit) for unit in units}), 0)
    for unit in units:
        counts[_value(unit)] += len(unit.ids)
    return counts


def _value(unit: Unit) -> str:
    if unit.value is None:
        raise ValueError(f"cluster {unit.cluster} has no value to partition by")
    return unit.value
