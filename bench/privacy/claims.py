"""What a defense's parts promise to whom, as one epsilon.

A person's records are in one silo, so a release over all silos costs no more than the largest of the silos' epsilons
(parallel composition, McSherry 2009); within a silo all rounds add up, adaptively.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bench.defense.parts import Mechanism, Promise
from bench.privacy.accountant import default_delta, epsilon, epsilon_rdp
from bench.privacy.kinds import Refused, composition
from bench.privacy.shares import Exposure
from bench.privacy.skellam import Skellam, epsilon_skellam
from bench.spec.result import Claim

_OWN_DELTAS = "each silo at its own delta, of which the largest is shown"


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
    exposure: Exposure | None = None,
) -> Claim:
    """What the defense's parts promise to the records of ``victims`` against ``coalition``, as one Claim.

    logged: every mechanism of every round, by silo; what a silo logged without any is no zero but a broken promise,
    unless it is in ``absent`` (silos that no round's public schedule called). sizes: public nominal sizes. delta:
    None for each silo's own: the smaller of 1/(10 n) and what a mechanism was calibrated to; the largest is shown.
    simulated: the secrets came from a number that others may know. exposure: what the coalition reads, without which
    noise that is not a silo's own alone does not count. For the unit ``silo`` the n of delta are the silos. Epsilon is
    None, with the reason in ``note``, where nothing is promised or nothing can be computed.
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
        present = [v for v in victims if v not in absent]
        protecting = {v: _protecting(v, logged, promise, exposure) for v in present}
        spent = [_spent(v, protecting[v], promise, _protected(promise, v, sizes), delta) for v in present]
    except Refused as refusal:
        return Claim(**unit, note=str(refusal))
    if not spent:
        return Claim(epsilon=0.0, epsilon_rdp=0.0, delta=0.0, **unit, note="no victim took part in any round")
    worst, rdp, deltas = (max(column) for column in zip(*spent, strict=True))
    notes = [promise.note] if promise.note else []
    if len({d for _, _, d in spent}) > 1:
        notes.append(_OWN_DELTAS)
    if any(m.kind == "skellam" for ms in protecting.values() for m in ms):
        notes.append("integer noise, by Renyi DP")
    return Claim(epsilon=worst, epsilon_rdp=rdp, delta=deltas, **unit, note="; ".join(notes))


def worst(claims: Sequence[Claim]) -> Claim | None:
    """What holds wherever one of ``claims`` does (of several coalitions, say); None of none."""
    unbounded = [one for one in claims if one.epsilon is None]
    if unbounded or not claims:
        return unbounded[0] if unbounded else None
    first = max(claims, key=lambda one: one.epsilon or 0.0)
    if len({one.delta for one in claims if one.delta}) < 2:
        return first
    largest = {name: max(getattr(one, name) or 0.0 for one in claims) for name in ("delta", "epsilon_rdp")}
    note = first.note if _OWN_DELTAS in first.note else "; ".join(filter(None, (first.note, _OWN_DELTAS)))
    return first.model_copy(update={**largest, "note": note})


def _common_promise(promises: Sequence[Promise], coalition: frozenset[str], victims: Sequence[str]) -> Promise:
    if not promises:
        raise Refused("no part of the defense makes a promise")
    kinds: dict[tuple[str, str], Promise] = {}
    for victim in victims:
        holding = [p for p in promises if p.against(coalition, victim)]
        if not holding:
            notes = "".join(f" ({note})" for note in sorted({p.note for p in promises if p.note}))
            raise Refused(f"nothing is promised to the records of {victim} against this adversary{notes}")
        kinds.update({(p.unit, p.adjacency): p for p in holding})
    if len(kinds) > 1:
        raise Refused("parts of the defense promise different units or adjacencies, which do not add up to one epsilon")
    return next(iter(kinds.values()))


def _protecting(
    silo: str, logged: Mapping[str, Sequence[Mechanism]], promise: Promise, exposure: Exposure | None
) -> Sequence[Mechanism]:
    """Raises Refused where nothing was noted; for whole silos that depends on the sums that were opened."""
    found = logged.get(silo, ()) if exposure is None else exposure.protecting(silo, logged, promise.unit)
    if not found and (exposure is None or promise.unit != "silo"):
        raise Refused(f"{silo} logged no mechanism, so its promise can't be counted")
    return found


def _protected(promise: Promise, silo: str, sizes: Mapping[str, int]) -> int:
    """How many of the promise's unit there are: records of the silo, or silos."""
    return len(sizes) if promise.unit == "silo" else sizes[silo]


def _spent(
    silo: str, mechanisms: Sequence[Mechanism], promise: Promise, n: int, delta: float | None
) -> tuple[float, float, float]:
    """(epsilon, epsilon by RDP, delta) of one silo. Raises Refused."""
    if delta is None:
        calibrated = [float(m.params["delta"]) for m in mechanisms if "delta" in m.params]
        delta = min([default_delta(n), *calibrated])
    if not 0 < delta <= 1 / (10 * n):
        what = "silos" if promise.unit == "silo" else f"records of {silo}"
        raise Refused(f"delta {delta:g} is not in (0, 1/(10 n)] for the {n} {what}")
    return (*_cost(mechanisms, promise.adjacency, delta), delta)


def _cost(mechanisms: Sequence[Mechanism], adjacency: str, delta: float) -> tuple[float, float]:
    """(epsilon, epsilon by RDP); with integer noise, twice the latter. Raises Refused."""
    whole = [Skellam.of(m) for m in mechanisms if m.kind == "skellam"]
    steps = composition([m for m in mechanisms if m.kind != "skellam"], adjacency)
    if not whole:
        return epsilon(steps, delta), epsilon_rdp(steps, delta)
    if adjacency != "zero-out" or any(rate != 1 for rate, _, _ in steps):
        raise Refused("integer noise has a bound under zero-out adjacency and beside unsampled releases only")
    found = epsilon_skellam(whole, delta, steps)
    return found, found
