"""The accountant: from what privacy mechanisms really did to epsilon, per adversary.

Mechanisms are composed as privacy loss distributions (Koskela et al. 2020; ``dp_accounting``'s pessimistic estimate,
an upper bound), with Renyi DP (Mironov 2017) beside them. Known kinds:

- ``poisson-gaussian`` (``rate``, ``sigma``, ``steps``): ``steps`` times, every record joins independently with
  probability ``rate``, and Gaussian noise of ``sigma`` times the L2 sensitivity is added to the sum. Adjacency
  add-remove or zero-out.
- ``shuffled-gaussian`` (``sigma``, ``epochs``): batches cut from a permutation. That is not Poisson sampling and gets
  no amplification: one Gaussian release per epoch for a record. Only under zero-out adjacency, since removing a record
  would move all others between batches (Chua et al. 2024).

A person's records are in one silo, so a release over all silos costs no more than the largest of the silos' epsilons
(parallel composition, McSherry 2009); within a silo all rounds add up, adaptively.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from bench.defense import Mechanism, Promise
from bench.errors import UsageError
from bench.result import Claim

#: beyond this, a calibration is refused: such an epsilon promises nothing, and a sigma can be fixed instead
MAX_CALIBRATED_EPSILON = 10_000.0
#: Renyi orders. Below 2 the series for sampled Gaussians often fails to converge; leaving orders out only loosens
_ORDERS = (*(x / 10 for x in range(20, 110)), *range(11, 64), 128, 256, 512, 1024)

#: (rate, sigma, steps): one entry per distinct (rate, sigma)
Composition = tuple[tuple[float, float, int], ...]


class Refused(Exception):
    """No epsilon can be computed; the message says why."""


def default_delta(n: int) -> float:
    """1 / (10 n), rounded down to one significant digit: 0.003 for 30 records. ``n`` is a positive count."""
    if n < 1:
        raise ValueError(f"delta needs a positive number of records, not {n}")
    exponent = len(str(10 * n - 1))
    return float(f"{10**exponent // (10 * n)}e-{exponent}")


def composition(mechanisms: Sequence[Mechanism], adjacency: str) -> Composition:
    """The mechanisms of one silo, in any order, gathered by rate and sigma. Raises Refused for what is not known."""
    steps: dict[tuple[float, float], int] = {}
    for mechanism in mechanisms:
        rate, sigma, count = _sampled_gaussian(mechanism, adjacency)
        if count:
            steps[rate, sigma] = steps.get((rate, sigma), 0) + count
    return tuple((rate, sigma, count) for (rate, sigma), count in sorted(steps.items()))


def _sampled_gaussian(mechanism: Mechanism, adjacency: str) -> tuple[float, float, int]:
    allowed = {"poisson-gaussian": ("add-remove", "zero-out"), "shuffled-gaussian": ("zero-out",)}
    if mechanism.kind not in allowed:
        raise Refused(f"the accountant knows no mechanism '{mechanism.kind}'")
    if adjacency not in allowed[mechanism.kind]:
        raise Refused(f"the accountant has no '{adjacency}' bound for the mechanism '{mechanism.kind}'")
    try:
        sigma = float(mechanism.params["sigma"])
        rate = float(mechanism.params["rate"]) if mechanism.kind == "poisson-gaussian" else 1.0
        count = float(mechanism.params["steps" if mechanism.kind == "poisson-gaussian" else "epochs"])
    except KeyError as error:
        raise Refused(f"a logged '{mechanism.kind}' lacks {error}") from None
    if not 0 < rate <= 1 or not 0 <= sigma < math.inf or count < 0 or count != int(count):
        raise Refused(f"a logged '{mechanism.kind}' is out of range: {dict(mechanism.params)}")
    if sigma == 0 and count:
        raise Refused(f"a logged '{mechanism.kind}' added no noise")
    return rate, sigma, int(count)


def _event(steps: Composition) -> Any:
    import dp_accounting

    def one(rate: float, sigma: float, count: int) -> Any:
        release = dp_accounting.GaussianDpEvent(sigma)
        sampled = release if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, release)
        return dp_accounting.SelfComposedDpEvent(sampled, count)

    return dp_accounting.ComposedDpEvent([one(*entry) for entry in steps])


@lru_cache(maxsize=256)
def epsilon_rdp(steps: Composition, delta: float) -> float:
    """Epsilon at ``delta`` by Renyi DP: an upper bound, looser than ``epsilon`` and quick."""
    from dp_accounting.rdp import RdpAccountant

    if not steps:
        return 0.0
    accountant = RdpAccountant(orders=_ORDERS)
    accountant.compose(_event(steps))
    return float(accountant.get_epsilon(delta))


# memoised because every adversary asks again about the same few compositions, at up to a second each
@lru_cache(maxsize=256)
def epsilon(steps: Composition, delta: float, coarse: bool = False) -> float:
    """Epsilon at ``delta`` by privacy loss distributions: an upper bound in any case.

    The losses are discretised in steps of about 1/50,000 of epsilon (``coarse``: 1/5,000) and rounded against us: the
    time then does not grow with epsilon, as it would with steps of one size (minutes near 1,000).
    """
    from dp_accounting.pld import PLDAccountant

    rough = epsilon_rdp(steps, delta)
    if rough == 0:
        return 0.0
    interval = 10.0 ** max(math.floor(math.log10(rough / 2)) - 4, -7)
    accountant = PLDAccountant(value_discretization_interval=interval * (10 if coarse else 1))
    accountant.compose(_event(steps))
    return float(accountant.get_epsilon(delta))


def calibrate(epsilon_target: float, delta: float, rate: float, steps: int) -> float:
    """The smallest sigma, to 1 in 1,000, whose ``steps`` Poisson-sampled Gaussian releases cost ``epsilon_target``.

    The result never costs more than the target. Raises UsageError above ``MAX_CALIBRATED_EPSILON``, where only a
    sigma can be given, and ValueError for arguments out of range.
    """
    if not 0 < rate <= 1 or steps < 1 or not 0 < delta < 1:
        raise ValueError(f"can't calibrate for rate {rate}, {steps} steps, delta {delta}")
    if not 0 < epsilon_target <= MAX_CALIBRATED_EPSILON:
        raise UsageError(
            f"No noise is calibrated to epsilon {epsilon_target:g}: "
            f"give one above 0 and at most {MAX_CALIBRATED_EPSILON:g}, or fix sigma instead."
        )

    def cost(sigma: float) -> float:
        return epsilon(((rate, sigma, steps),), delta, coarse=True)

    high = 0.5
    while epsilon_rdp(((rate, high, steps),), delta) > epsilon_target:
        high *= 1.5
    low = high / 1.5
    while cost(low) <= epsilon_target:
        low, high = low / 1.5, low
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        if cost(middle) <= epsilon_target:
            high = middle
        else:
            low = middle
    # printed with 4 digits after the point at most, so that the figure is the sigma
    sigma = math.ceil(high * 1e4) / 1e4
    while epsilon(((rate, sigma, steps),), delta) > epsilon_target:
        sigma = math.ceil(sigma * 1.001 * 1e4) / 1e4
    return sigma


def claim(
    logged: Mapping[str, Sequence[Mechanism]],
    promises: Sequence[Promise],
    coalition: frozenset[str],
    victims: Sequence[str],
    sizes: Mapping[str, int],
    delta: float | None = None,
    *,
    simulated: bool = False,
    absent: Collection[str] = (),
) -> Claim:
    """What the defense's parts promise to the records of ``victims`` against ``coalition``, as one Claim.

    logged: every mechanism of every round, by silo; what a silo logged without any is no zero but a broken promise,
    unless it is in ``absent`` (silos that no round's public schedule called). sizes: public nominal sizes. delta:
    None for each silo's own: the smaller of 1/(10 n) and what a mechanism was calibrated to; the largest is shown.
    simulated: the secrets came from a number that others may know. Epsilon is None, with the reason in ``note``, where
    nothing is promised or nothing can be computed.
    """
    if simulated:
        return Claim(note="the run's secrets come from --secret-seed, which others may know: no claim")
    if not victims:
        return Claim(note="the adversary has no victim")
    try:
        promise = _common_promise(promises, coalition, victims)
    except Refused as refusal:
        return Claim(note=str(refusal))
    unit = {"unit": promise.unit, "adjacency": promise.adjacency}
    try:
        spent = [_spent(v, logged, promise, sizes[v], delta) for v in victims if v not in absent]
    except Refused as refusal:
        return Claim(**unit, note=str(refusal))
    if not spent:
        return Claim(epsilon=0.0, epsilon_rdp=0.0, delta=0.0, **unit, note="no victim took part in any round")
    worst, rdp, deltas = (max(column) for column in zip(*spent, strict=True))
    notes = [promise.note] if promise.note else []
    if len({d for _, _, d in spent}) > 1:
        notes.append("each silo at its own delta; the largest is shown")
    return Claim(epsilon=worst, epsilon_rdp=rdp, delta=deltas, **unit, note="; ".join(notes))


def _common_promise(promises: Sequence[Promise], coalition: frozenset[str], victims: Sequence[str]) -> Promise:
    if not promises:
        raise Refused("no part of the defense makes a promise")
    kinds: dict[tuple[str, str], Promise] = {}
    for victim in victims:
        holding = [p for p in promises if p.against(coalition, victim)]
        if not holding:
            raise Refused(f"nothing is promised to the records of {victim} against this adversary")
        kinds.update({(p.unit, p.adjacency): p for p in holding})
    if len(kinds) > 1:
        raise Refused("parts of the defense promise different units or adjacencies, which do not add up to one epsilon")
    return next(iter(kinds.values()))


def _spent(
    silo: str, logged: Mapping[str, Sequence[Mechanism]], promise: Promise, size: int, delta: float | None
) -> tuple[float, float, float]:
    """(epsilon, epsilon by RDP, delta) of one silo. Raises Refused."""
    mechanisms = logged.get(silo, ())
    if not mechanisms:
        raise Refused(f"{silo} logged no mechanism, so its promise can't be counted")
    if delta is None:
        calibrated = [float(m.params["delta"]) for m in mechanisms if "delta" in m.params]
        delta = min([default_delta(size), *calibrated])
    if not 0 < delta <= 1 / (10 * size):
        raise Refused(f"delta {delta:g} is not in (0, 1/(10 n)] for the {size} records of {silo}")
    steps = composition(mechanisms, promise.adjacency)
    return epsilon(steps, delta), epsilon_rdp(steps, delta), delta
