"""The mechanisms that the accountant knows, each reduced to Gaussian releases; others are refused, not guessed.

- ``poisson-gaussian`` (``rate``, ``sigma``, ``steps``): ``steps`` times, every record joins independently with
  probability ``rate``, and Gaussian noise of ``sigma`` times the L2 sensitivity is added to the sum. Adjacency
  add-remove or zero-out.
- ``poisson-gaussian-counts`` (``rate``, ``sigma``, ``sigma_count``, ``steps``): the same, and beside each sum, over the
  same batch, the noisy sum of plus or minus one half per record, with noise of standard deviation ``sigma_count``. The
  two together are one Gaussian release of multiplier (sigma^-2 + (2 sigma_count)^-2)^(-1/2) (Andrew et al. 2021,
  theorem 1). Adjacency add-remove only: under zero-out, what a blank record counts would have to be said.
- ``gaussian`` (``sigma``): one unsampled release of a whole silo's update, with Gaussian noise of ``sigma`` times its
  norm bound. Adjacency zero-out: the update is replaced by zero.
- ``shuffled-gaussian`` (``sigma``, ``epochs``): batches cut from a permutation. That is not Poisson sampling and gets
  no amplification: one Gaussian release per epoch for a record. Only under zero-out adjacency, since removing a record
  would move all others between batches (Chua et al. 2024).
- ``banded-gaussian`` (``sigma``, ``bands``, ``separation``, ``steps``): correlated noise (``bench.privacy.banded``) of
  ``sigma`` clips per value before correlation, in a fixed order in which a record's participations are ``separation``
  steps apart or more. All entries of a silo continue one sequence of steps and are one release; the sensitivity is
  computed here. No sampling is assumed. Only under zero-out adjacency, as a removed record would move others.

Integer noise, ``skellam``, is no Gaussian release: see ``bench.privacy.skellam``. What a silo or an opener logs as
``skellam-share`` or ``opener-gaussian`` becomes ``skellam`` or ``gaussian`` for one adversary in
``bench.privacy.shares``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.defense.parts import Mechanism
from bench.privacy.accountant import Composition
from bench.privacy.banded import sensitivity

Params = Mapping[str, float]
Release = tuple[float, float, int]
#: beyond any run; bands are an array's length
_MAX_STEPS = 10_000_000


class Refused(Exception):
    """No epsilon can be computed; the message says why."""


@dataclass(frozen=True)
class Kind:
    """One kind of mechanism. ``counts``: parameters that are whole numbers. ``releases``: from the parameters of all
    of a silo's entries of this kind, checked to be in range, to (rate, sigma, how often)."""

    adjacencies: frozenset[str]
    params: tuple[str, ...]
    counts: frozenset[str]
    releases: Callable[[Sequence[Params]], Iterable[Release]]


def composition(mechanisms: Sequence[Mechanism], adjacency: str) -> Composition:
    """The mechanisms of one silo, in any order, gathered by rate and sigma. Raises Refused for what is not known."""
    entries: dict[str, list[Params]] = {}
    for mechanism in mechanisms:
        entries.setdefault(mechanism.kind, []).append(_checked(mechanism, adjacency))
    steps: dict[tuple[float, float], int] = {}
    for kind, params in entries.items():
        for rate, sigma, count in KINDS[kind].releases(params):
            if count:
                steps[rate, sigma] = steps.get((rate, sigma), 0) + count
    return tuple((rate, sigma, count) for (rate, sigma), count in sorted(steps.items()))


def _checked(mechanism: Mechanism, adjacency: str) -> Params:
    """The parameters as numbers in their ranges. Raises Refused."""
    kind = KINDS.get(mechanism.kind)
    if kind is None:
        raise Refused(f"the accountant knows no mechanism '{mechanism.kind}'")
    if adjacency not in kind.adjacencies:
        raise Refused(f"the accountant has no '{adjacency}' bound for the mechanism '{mechanism.kind}'")
    try:
        params = {name: float(mechanism.params[name]) for name in kind.params}
    except KeyError as error:
        raise Refused(f"a logged '{mechanism.kind}' lacks {error}") from None
    if not all(_in_range(name, value, kind) for name, value in params.items()):
        raise Refused(f"a logged '{mechanism.kind}' is out of range: {dict(mechanism.params)}")
    if any(value == 0 for name, value in params.items() if name.startswith("sigma")) and params.get("steps", 1):
        raise Refused(f"a logged '{mechanism.kind}' added no noise")
    return params


def _in_range(name: str, value: float, kind: Kind) -> bool:
    if name in kind.counts:
        return 0 <= value <= _MAX_STEPS and value == int(value)
    return 0 < value <= 1 if name == "rate" else 0 <= value < math.inf


def _poisson(entries: Sequence[Params]) -> Iterable[Release]:
    return ((p["rate"], p["sigma"], int(p["steps"])) for p in entries)


def _with_counts(entries: Sequence[Params]) -> Iterable[Release]:
    for p in entries:
        if p["steps"]:
            yield p["rate"], joint_sigma(p["sigma"], p["sigma_count"]), int(p["steps"])


def joint_sigma(sigma: float, sigma_count: float) -> float:
    """The multiplier of one Gaussian release that is worth a sum with ``sigma`` and a count of halves with
    ``sigma_count`` together (Andrew et al. 2021, theorem 1, solved for z)."""
    return float((sigma**-2 + (2 * sigma_count) ** -2) ** -0.5)


def _gaussian(entries: Sequence[Params]) -> Iterable[Release]:
    return ((1.0, p["sigma"], 1) for p in entries)


def _shuffled(entries: Sequence[Params]) -> Iterable[Release]:
    return ((1.0, p["sigma"], int(p["epochs"])) for p in entries)


def _banded(entries: Sequence[Params]) -> Iterable[Release]:
    matrices = {(p["sigma"], int(p["bands"]), int(p["separation"])) for p in entries}
    if len(matrices) > 1:
        raise Refused("the entries of 'banded-gaussian' differ, so they are no single release")
    sigma, bands, separation = next(iter(matrices))
    steps = sum(int(p["steps"]) for p in entries)
    if not 1 <= bands <= separation:
        raise Refused(f"{bands} bands reach over participations that are {separation} steps apart")
    if not 0 < steps <= _MAX_STEPS:
        return ()
    return ((1.0, sigma / sensitivity(bands, separation, steps), 1),)


KINDS: Mapping[str, Kind] = {
    "poisson-gaussian": Kind(
        frozenset({"add-remove", "zero-out"}), ("rate", "sigma", "steps"), frozenset({"steps"}), _poisson
    ),
    "poisson-gaussian-counts": Kind(
        frozenset({"add-remove"}), ("rate", "sigma", "sigma_count", "steps"), frozenset({"steps"}), _with_counts
    ),
    "gaussian": Kind(frozenset({"zero-out"}), ("sigma",), frozenset(), _gaussian),
    "shuffled-gaussian": Kind(frozenset({"zero-out"}), ("sigma", "epochs"), frozenset({"epochs"}), _shuffled),
    "banded-gaussian": Kind(
        frozenset({"zero-out"}),
        ("sigma", "bands", "separation", "steps"),
        frozenset({"bands", "separation", "steps"}),
        _banded,
    ),
}
