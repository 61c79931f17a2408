"""The audit game: of which canaries was each coin heads? From scores and coins to lower bounds on epsilon.

A canary is trained on by the toss of its own fair coin (``bench.training.variants.audit``). One score per canary, fixed
before the coins are known, is turned into guesses: the highest are said to be in, the lowest out, the others are
abstained from. How many guesses are made is fixed too (``SHARES``). All figures are pure functions of an
``AuditSheet``.

Coalitions are bounded one by one. The theorems speak of one mechanism's output and guesses made from it; a silo that
asks about its neighbour knows its own coins, and hits that several such coalitions score are no independent trials (two
silos with one canary each that guess each other's coin from their own are both right half the time, having seen
nothing). So each coalition's guesses give a bound of their own, and the largest is corrected for their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.games.audit_sheet import COUNTED, AuditSheet, Floats
from bench.games.membership import VOID_P, Scored
from bench.spec.result import Claim, Leakage

#: a delta at which the claim's mechanism is accounted for too. A mechanism that gives everything away with a chance of
#: delta keeps (0, delta), so no test whose significance is below a claim's delta can refute it; at this one it can
TAIL = 1e-8
#: units of claims that a canary in or out is a neighbour's difference of, and the adjacency under which it is one
UNITS, ADJACENCY = frozenset({"record", "group"}), "add-remove"
PROVEN = "proven: above the true epsilon in at most {:g} of audits"
ASSUMED = "an estimate that rests on an assumption, no bound: scores are normal, and the canaries the worst case"
GAUSSIAN = "bound under an assumption: the mechanism is Gaussian; proves nothing against a bare (epsilon, delta) claim"
OVER = "coins of this run's canaries"


@dataclass(frozen=True)
class Counts:
    """Of one coalition: its ``canaries``, and (guesses, correct) for every share."""

    canaries: int
    outcomes: tuple[tuple[int, int], ...]


def counts(sheet: AuditSheet, values: Floats) -> tuple[Counts, ...]:
    """What guessing by ``values`` (n,) gets right, by coalition. Equal values stand in the order of ids, which are
    given to canaries before their coins are tossed."""
    found = []
    for rows in _coalitions(sheet):
        total = int(rows.sum())
        halves = [_half(total, share) for share in sheet.shares]
        outcomes = tuple(stats.one_run_guesses(values[rows], sheet.member[rows], half, half) for half in halves)
        found.append(Counts(total, outcomes))
    return tuple(found)


def _coalitions(sheet: AuditSheet) -> list[NDArray[np.bool_]]:
    """Of each coalition, which rows (n,) of the sheet are its canaries."""
    numbers = np.array(sheet.coalitions)
    return [numbers == number for number in np.unique(numbers)]


def refutes(sheet: AuditSheet, epsilon: float, delta: float, significance: float) -> bool:
    """Whether the coins prove, at ``significance``, that no mechanism of (``epsilon``, ``delta``)-DP gave these scores.

    By the counted score and the bound of ``epsilon`` (docs/metrics.md), at ``delta`` and not the sheet's own;
    never by an estimate.
    """
    return _bound(sheet, counts(sheet, sheet.scores[COUNTED]), delta, significance) > epsilon


def comparable(sheet_repeat: int, claim: Claim | None) -> str:
    """Why the bounds say nothing about ``claim``, or an empty string where they are of the same thing: one unit, added
    or removed. Groups of ``repeat`` records are not compared with a claim about one."""
    if claim is None or claim.epsilon is None or claim.delta is None:
        return "no finite epsilon is claimed"
    if sheet_repeat > 1:
        return f"it is about groups of {sheet_repeat}, and the claim about single records"
    if claim.unit not in UNITS or claim.adjacency != ADJACENCY:
        return f"canaries are added or removed, and the claim is per {claim.unit} under {claim.adjacency}"
    return ""


def summary(sheet: AuditSheet, claim: Claim | None, tail: Claim | None = None) -> dict[str, object]:
    """A result's field ``audit``: the proven bound, what it could have been, and what it is of. ``tail``: the claim at
    ``TAIL`` instead of its own delta."""
    found = counts(sheet, sheet.scores[COUNTED])
    claimed = [c for c in (claim, tail) if not comparable(sheet.repeat, c)]
    return {
        "epsilon": _bound(sheet, found, sheet.delta, sheet.significance),
        "limit": _limit(sheet, found),
        "delta": sheet.delta,
        "significance": sheet.significance,
        "canaries": len(set(sheet.ids)),
        "unit": "record" if sheet.repeat == 1 else f"group of {sheet.repeat}",
        "proven": True,
        "compared": not (reason := comparable(sheet.repeat, claim)),
        "claims": [[c.epsilon, c.delta] for c in claimed if c is not None],
        **({"not_compared": reason} if reason else {}),
    }


def _bound(
    sheet: AuditSheet, found: Sequence[Counts], delta: float, significance: float, bound: stats.Bound | None = None
) -> float:
    """The largest bound over coalitions, each at its share of ``significance``."""
    one = bound or partial(stats.one_run_epsilon_fdp, family="approximate")
    each = significance / len(found)
    return max(stats.one_run_epsilon_chosen(c.canaries, c.outcomes, delta, each, one) for c in found)


def _limit(sheet: AuditSheet, found: Sequence[Counts], bound: stats.Bound | None = None) -> float:
    perfect = [Counts(c.canaries, tuple((guesses, guesses) for guesses, _ in c.outcomes)) for c in found]
    return _bound(sheet, perfect, sheet.delta, sheet.significance, bound)


def leakage(sheet: AuditSheet) -> Scored:
    """All figures (docs/metrics.md); void where a guesser without any view beats the coins (p < 1e-6)."""
    p = _p_without_a_view(sheet)
    note = (
        f"void: without any view the canaries that are in are told from others (p = {p:.1g}), so they differed "
        "before training"
    )
    return Scored(tuple(_figures(sheet)), p < VOID_P, note if p < VOID_P else "")


def _figures(sheet: AuditSheet) -> list[Leakage]:
    found = counts(sheet, sheet.scores[COUNTED])
    n = {"canaries": len(set(sheet.ids)), "in": int(sheet.member.sum())} | _of_all(sheet, found)
    group = "" if sheet.repeat == 1 else f"; of groups of {sheet.repeat} records"
    proven = PROVEN.format(sheet.significance) + group

    def row(name: str, value: float | None, note: str) -> Leakage:
        finite = None if value is None or math.isinf(value) else float(value)
        return Leakage(name=name, value=finite, n=n, over=OVER, note=note)

    def bounds(one: stats.Bound | None) -> float:
        return _bound(sheet, found, sheet.delta, sheet.significance, one)

    gaussian = partial(stats.one_run_epsilon_fdp, family="gaussian")
    rows = [
        row("epsilon", bounds(None), f"{proven}; one run, f-DP (Mahloujifar et al. 2024) for (epsilon, delta)"),
        row("epsilon_limit", _limit(sheet, found), "the largest that epsilon could have been: every guess right"),
        row("epsilon_one_run", bounds(stats.one_run_epsilon), f"{proven}; one run (Steinke et al. 2023)"),
        row("epsilon_one_run_limit", _limit(sheet, found, stats.one_run_epsilon), "its limit: every guess right"),
        row("epsilon_gdp", None if sheet.delta == 0 else bounds(gaussian), GAUSSIAN + group),
        _estimate(sheet, row),
        _exposure(sheet, row),
    ]
    for name, values in sheet.scores.items():
        of = "canary_auc" if name == COUNTED else f"canary_auc:{name}"
        interval = stats.auc(values, sheet.member)
        note = "; ".join(p for p in ("of the score that is counted" if name == COUNTED else "", interval.note) if p)
        ends = {"value": interval.value, "low": interval.low, "high": interval.high}
        rows.append(Leakage(name=of, **ends, n=n, over=OVER, note=note))
    for values in sheet.baseline.values():
        blind = _bound(sheet, counts(sheet, values), sheet.delta, sheet.significance)
        rows.append(row("epsilon:baseline", blind, "the same bound from a score that sees no view"))
    return rows


def _of_all(sheet: AuditSheet, found: Sequence[Counts]) -> dict[str, int]:
    """How many guesses were made and right where most canaries were guessed, coalitions added up."""
    most = int(np.argmax(sheet.shares))
    return {
        "guesses": sum(c.outcomes[most][0] for c in found),
        "correct": sum(c.outcomes[most][1] for c in found),
        "coalitions": len(found),
    }


def _estimate(sheet: AuditSheet, row: Callable[[str, float | None, str], Leakage]) -> Leakage:
    """Epsilon between two normal distributions; the mean over coalitions, whose scores need not have one scale."""
    values, made = sheet.scores[COUNTED], []
    for rows in _coalitions(sheet):
        sides = [values[rows & (sheet.member == side)] for side in (True, False)]
        if min(map(len, sides)) < 2 or min(float(side.std()) for side in sides) == 0 or sheet.delta == 0:
            return row("epsilon_gaussian", None, f"too few canaries, or scores all alike, to fit; {ASSUMED}")
        (mean_in, sd_in), (mean_out, sd_out) = ((float(s.mean()), float(s.std(ddof=1))) for s in sides)
        made.append(stats.gaussian_epsilon(mean_in, sd_in, mean_out, sd_out, sheet.delta))
    return row("epsilon_gaussian", float(np.mean(made)), ASSUMED)


def _exposure(sheet: AuditSheet, row: Callable[[str, float | None, str], Leakage]) -> Leakage:
    """Mean exposure (Carlini et al. 2019, sec. 4.4) of the canaries that are in, each ranked among those that are out
    with the same coalition, which are draws from the same space."""
    values, coalitions, bits = sheet.scores[COUNTED], _coalitions(sheet), []
    for rows in coalitions:
        out, inside = values[rows & ~sheet.member], values[rows & sheet.member]
        if len(out):
            bits += [stats.exposure(stats.exposure_rank(float(score), out), len(out) + 1) for score in inside]
    if not bits:
        return row("canary_exposure", None, "every canary is in, or none")
    most = math.log2(1 + int((~sheet.member).sum() / len(coalitions)))
    note = f"bits, mean over canaries that are in, each ranked among those that are out; at most {most:.2f}"
    return row("canary_exposure", float(np.mean(bits)), note)


def _p_without_a_view(sheet: AuditSheet) -> float:
    """The chance that fair coins let a baseline guess as well as it does, for all baselines and guesses at once."""
    tested = [
        stats.one_run_p_value(c.canaries, guesses, correct, 0.0, 0.0)
        for values in sheet.baseline.values()
        for c in counts(sheet, values)
        for guesses, correct in c.outcomes
    ]
    return min(1.0, min(tested) * len(tested)) if tested else 1.0


def _half(canaries: int, share: float) -> int:
    """Guesses on each side, at least one where there are two canaries."""
    return min(max(1, round(canaries * share / 2)), canaries // 2)
