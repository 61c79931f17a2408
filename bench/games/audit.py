"""The audit game: of which canaries was each coin heads? From scores and coins to lower bounds on epsilon.

A canary is trained on by the toss of its own fair coin (``bench.variants.audit``). One score per canary, fixed before
the coins are known, is turned into guesses: the highest are said to be in, the lowest out, the others are abstained
from. How many guesses are made is fixed too (``SHARES``). All figures are pure functions of an ``AuditSheet``.

Coalitions are bounded one by one. The theorems speak of one mechanism's output and guesses made from it; a silo that
asks about its neighbour knows its own coins, and hits that several such coalitions score are no independent trials (two
silos with one canary each that guess each other's coin from their own are both right half the time, having seen
nothing). So each coalition's guesses give a bound of their own, and the largest is corrected for their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench import stats
from bench.errors import SiloBenchError, UsageError
from bench.games import text as form
from bench.games.membership import VOID_P, Scored
from bench.games.text import SHEET
from bench.result import Claim, Leakage

GAME = "audit"
VERSION = 1
#: the score that guesses are made from; whatever else an attack returns is for information
COUNTED = "audit"
#: shares of a coalition's canaries that are guessed, half of them "in", half "out": fixed beforehand, all corrected for
SHARES = (0.1, 0.3, 1.0)
SIGNIFICANCE = 0.05
#: a delta at which the claim's mechanism is accounted for too. A mechanism that gives everything away with a chance of
#: delta keeps (0, delta), so no test whose significance is below a claim's delta can refute it; at this one it can
TAIL = 1e-8
#: units of claims that a canary in or out is a neighbour's difference of, and the adjacency under which it is one
UNITS, ADJACENCY = frozenset({"record", "group"}), "add-remove"
PROVEN = "proven: above the true epsilon in at most {:g} of audits"
ASSUMED = "an estimate that rests on an assumption, no bound: scores are normal, and the canaries the worst case"
GAUSSIAN = "bound under an assumption: the mechanism is Gaussian; proves nothing against a bare (epsilon, delta) claim"
OVER = "coins of this run's canaries"

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AuditSheet:
    """n canaries, sorted by coalition and id. ``coalitions``: the number of the coalition that guessed. ``member``:
    (n,) bool, the coins. ``scores``, ``baseline``: name to (n,); ``scores`` has ``COUNTED``.

    ``delta`` at which epsilon is bounded; ``significance`` of every bound; ``shares`` of canaries that were guessed;
    ``repeat``: how often a canary that is in stands among its silo's records. Above 1 the bounds are of groups of that
    size.
    """

    ids: tuple[str, ...]
    coalitions: tuple[int, ...]
    member: NDArray[np.bool_]
    scores: Mapping[str, Floats]
    baseline: Mapping[str, Floats]
    delta: float
    significance: float = SIGNIFICANCE
    shares: tuple[float, ...] = SHARES
    repeat: int = 1

    def to_json(self) -> str:
        """Canonical text: the same whatever order the canaries came in."""
        rows = zip(self.ids, self.coalitions, (int(m) for m in self.member), strict=True)
        tables = {"scores": self.scores, "baseline": self.baseline}
        return form.write(
            {
                "format": SHEET,
                "version": VERSION,
                "game": GAME,
                "delta": float(self.delta),
                "significance": float(self.significance),
                "shares": [float(share) for share in self.shares],
                "repeat": self.repeat,
                "canaries": [list(row) for row in rows],
                **{key: {name: v.tolist() for name, v in table.items()} for key, table in tables.items()},
            }
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of ``to_json()`` in hexadecimal: the name of the committed scores."""
        return form.sha256(self.to_json())

    @classmethod
    def from_json(cls, text: str) -> AuditSheet:
        """Parse text from anybody. Raises UsageError on anything that ``to_json`` does not write."""
        value = form.parse(text, SHEET, VERSION)
        rows = [form.entries(row, "canaries", 3) for row in form.entries(form.field(value, "canaries"), "canaries")]
        member = [form.integer(row[2], "member") for row in rows]
        if not set(member) <= {0, 1}:
            raise UsageError("'member' must be 0 or 1.")
        tables = []
        for key in ("scores", "baseline"):
            table = form.mapping(form.field(value, key), key)
            tables.append({form.name(n, key): np.array(form.numbers(v, n, len(rows))) for n, v in table.items()})
        delta, significance = form.numbers([form.field(value, key) for key in ("delta", "significance")], "levels", 2)
        shares = form.entries(form.field(value, "shares"), "shares")
        try:
            sheet = make_sheet(
                [form.label(row[0], "id") for row in rows],
                [form.integer(row[1], "coalition") for row in rows],
                np.array(member, dtype=np.bool_),
                *tables,
                delta=delta,
                significance=significance,
                shares=form.numbers(shares, "shares", len(shares)),
                repeat=form.integer(form.field(value, "repeat"), "repeat"),
            )
        except SiloBenchError as error:
            raise UsageError(f"The {SHEET} contradicts itself: {error}.") from None
        form.require_canonical(text, sheet.to_json(), SHEET)
        return sheet

    def scored(self) -> Scored:
        """All figures (docs/metrics.md); void where a guesser without any view beats the coins (p < 1e-6)."""
        p = _p_without_a_view(self)
        note = (
            f"void: without any view the canaries that are in are told from others (p = {p:.1g}), so they differed "
            "before training"
        )
        return Scored(tuple(_figures(self)), p < VOID_P, note if p < VOID_P else "")


def make_sheet(
    ids: Sequence[str],
    coalitions: Sequence[int],
    member: Sequence[bool] | NDArray[np.bool_],
    scores: Mapping[str, ArrayLike],
    baseline: Mapping[str, ArrayLike] = MappingProxyType({}),
    *,
    delta: float,
    significance: float = SIGNIFICANCE,
    shares: Sequence[float] = SHARES,
    repeat: int = 1,
) -> AuditSheet:
    """The sheet of canaries (parallel sequences of length n, any order) and of an attack's named scores, each (n,).

    Raises SiloBenchError for what an attack did wrong (no score called ``COUNTED``, a score that is not one finite
    number per canary), a canary that stands twice with one coalition or with two coins, and levels out of range.
    """
    if not len(ids) == len(coalitions) == len(member):
        raise ValueError("ids, coalitions and member must have the same length")
    if not ids:
        raise SiloBenchError("there is no canary")
    pairs = list(zip((int(c) for c in coalitions), ids, strict=True))
    if len(set(pairs)) < len(pairs):
        raise SiloBenchError("a canary stands twice")
    coins = dict(zip(ids, (bool(m) for m in member), strict=True))
    if any(coins[i] != bool(m) for i, m in zip(ids, member, strict=True)):
        raise SiloBenchError("a canary has two coins")
    if COUNTED not in scores:
        raise SiloBenchError(f"the attack returned no score called '{COUNTED}', from which guesses are made")
    if not (0 <= delta < 1 and 0 < significance < 1):
        raise SiloBenchError(f"delta {delta:g} or significance {significance:g} is out of range")
    if not 0 < len(shares) <= 20 or len(set(shares)) < len(shares) or not all(0 < s <= 1 for s in shares):
        raise SiloBenchError("the shares to guess must be 1 to 20 distinct numbers in (0, 1]")
    if not 1 <= repeat <= 10_000:
        raise SiloBenchError(f"a canary can't stand {repeat} times")
    order = sorted(range(len(ids)), key=lambda i: pairs[i])
    return AuditSheet(
        tuple(ids[i] for i in order),
        tuple(pairs[i][0] for i in order),
        np.asarray(member, dtype=np.bool_)[order],
        _table(scores, order),
        _table(baseline, order),
        delta=float(delta),
        significance=float(significance),
        shares=tuple(float(s) for s in shares),
        repeat=repeat,
    )


@dataclass(frozen=True)
class Counts:
    """Of one coalition: its ``canaries``, and (guesses, correct) for every share."""

    canaries: int
    outcomes: tuple[tuple[int, int], ...]


def counts(sheet: AuditSheet, values: Floats) -> tuple[Counts, ...]:
    """What guessing by ``values`` (n,) gets right, by coalition. Equal values stand in the order of ids, which are
    given to canaries before their coins are tossed."""
    found = []
    numbers = np.array(sheet.coalitions)
    for number in np.unique(numbers):
        rows = numbers == number
        total = int(rows.sum())
        halves = [_half(total, share) for share in sheet.shares]
        outcomes = tuple(stats.one_run_guesses(values[rows], sheet.member[rows], half, half) for half in halves)
        found.append(Counts(total, outcomes))
    return tuple(found)


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
    values, numbers = sheet.scores[COUNTED], np.array(sheet.coalitions)
    made = []
    for number in np.unique(numbers):
        sides = [values[(numbers == number) & (sheet.member == side)] for side in (True, False)]
        if min(map(len, sides)) < 2 or min(float(side.std()) for side in sides) == 0 or sheet.delta == 0:
            return row("epsilon_gaussian", None, f"too few canaries, or scores all alike, to fit; {ASSUMED}")
        (mean_in, sd_in), (mean_out, sd_out) = ((float(s.mean()), float(s.std(ddof=1))) for s in sides)
        made.append(stats.gaussian_epsilon(mean_in, sd_in, mean_out, sd_out, sheet.delta))
    return row("epsilon_gaussian", float(np.mean(made)), ASSUMED)


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


def _table(table: Mapping[str, ArrayLike], order: Sequence[int]) -> dict[str, Floats]:
    return {name: _column(name, table[name], order) for name in sorted(table)}


def _column(name: str, values: ArrayLike, order: Sequence[int]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not name or not name.isprintable() or len(name) > form.MAX_NAME or ":" in name:
        raise SiloBenchError(f"a score can't be called '{name:.80}'")
    if array.shape != (len(order),):
        raise SiloBenchError(f"score '{name}' has shape {array.shape}, expected one number for each of {len(order)}")
    if not np.isfinite(array).all():
        raise SiloBenchError(f"score '{name}' is NaN or infinite for {int((~np.isfinite(array)).sum())} canaries")
    column: Floats = array[list(order)]
    return column


__all__ = ["COUNTED", "GAME", "SHARES", "AuditSheet", "comparable", "make_sheet", "refutes", "summary"]
