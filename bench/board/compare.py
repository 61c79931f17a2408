"""Two defenses on the same candidates: paired by planting, attack and adversary, from stored or committed scores.

One pair of runs compares two models on these records; only five seeds or more speak of defenses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.board.rows import flatten
from bench.board.words import ability, figure, preset
from bench.core.errors import UsageError, unknown_name
from bench.spec.result import Result

if TYPE_CHECKING:
    from bench.games.membership import MembershipSheet
    from bench.stats import Difference

Read = Callable[[Result], str | None]


@dataclass(frozen=True)
class Paired:
    """``first`` less ``second`` in AUC, on shared candidates. ``seed`` None: over all ``seeds``."""

    attack: str
    adversary: str
    seed: int | None
    seeds: int
    candidates: int
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    note: str
    least: float | None

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def compare(results: Iterable[Result], read: Read, first: str, second: str, name: str | None = None) -> list[Paired]:
    """Every pair that the results give, by adversary, attack and seed, and one over seeds for each that has several.

    ``read`` gives a result's scores. ``name``: only this preset. Raises UsageError for a defense without results.
    """
    chosen = [r for r in results if r.status == "ok" and r.scores_sha256 and (name is None or preset(r) == name)]
    if not chosen:
        where = "" if name is None else f" of preset '{name}'"
        raise UsageError(f"There are no scored results{where} to compare: run both defenses, or name their --folder.")
    known = sorted({r.defense for r in chosen})
    for defense in (first, second):
        if defense not in known:
            raise unknown_name("defense", defense, known)
    sides: dict[tuple[str, str, str, str], dict[int, dict[str, Result]]] = {}
    for result in chosen:
        if result.defense in (first, second) and figure(result, "auc") is not None:
            key = (result.task, preset(result), result.adversary, result.attack)
            side = sides.setdefault(key, {}).setdefault(result.seed, {})
            _only_one(side.get(result.defense), result)
            side[result.defense] = result
    found: list[Paired] = []
    for key in sorted(sides, key=lambda k: (k[0], k[1], ability(k[2]), k[3])):
        pairs = {s: (p[first], p[second]) for s, p in sorted(sides[key].items()) if len(p) == 2 or first == second}
        found += _of_cell(key[3], key[2], pairs, read)
    if not found:
        raise UsageError(f"'{first}' and '{second}' share no attack, adversary and seed that were scored.")
    return found


def _only_one(former: Result | None, result: Result) -> None:
    """Raises UsageError where one defense, attack, adversary and seed has two rows: which of them would be compared?"""
    if former is None:
        return
    specs = [dict(flatten(one.spec)) for one in (former, result)]
    told = sorted(key for key in {*specs[0], *specs[1]} if specs[0].get(key) != specs[1].get(key))
    raise UsageError(
        f"'{result.defense}' has two results for {result.attack} as {result.adversary}, seed {result.seed} "
        f"({former.result}, {result.result}); they differ in {', '.join(told[:3]) or 'nothing that is recorded'}: "
        "compare a store or folder that holds one of them, or name a --preset."
    )


def _of_cell(attack: str, adversary: str, pairs: Mapping[int, tuple[Result, Result]], read: Read) -> list[Paired]:
    from bench.games.membership import paired
    from bench.stats import Interval, across_seeds

    def row(seed: int | None, seeds: int, candidates: int, found: Difference, least: float | None) -> Paired:
        i = found.interval
        return Paired(attack, adversary, seed, seeds, candidates, i.value, i.low, i.high, found.p, i.note, least)

    found = []
    for seed, (one, other) in pairs.items():
        first, second = _sheet(one, read), _sheet(other, read)
        found.append(row(seed, 1, len(first.ids), paired(first, second), _least(first)))
    if len(pairs) > 1:
        figures = [[figure(r, "auc") for r in side] for side in zip(*pairs.values(), strict=True)]
        mine, theirs = ([Interval(f.value, f.low, f.high) if f else None for f in side] for side in figures)
        found.append(row(None, len(pairs), 0, across_seeds(mine, theirs), None))
    return found


def _least(sheet: MembershipSheet) -> float | None:
    """The smallest difference from the best score of ``sheet`` that so many records show."""
    from bench.stats import auc, least_auc_difference

    members = int(sheet.member.sum())
    best = max(float(auc(v, sheet.member, sheet.clusters).value or 0.5) for v in sheet.scores.values())
    return least_auc_difference(members, len(sheet.ids) - members, min(best, 0.999))


def _sheet(result: Result, read: Read) -> MembershipSheet:
    from bench.games.membership import MembershipSheet

    text = read(result)
    if text is None:
        raise UsageError(f"The scores of result {result.result} are not there: run it again with --refresh.")
    return MembershipSheet.from_json(text)


def lines(rows: Sequence[Paired]) -> list[list[str]]:
    """Cells of a table for people."""
    return [
        [
            row.adversary,
            row.attack,
            "all" if row.seed is None else str(row.seed),
            str(row.candidates or f"{row.seeds} runs"),
            "refused" if row.value is None else f"{row.value:+.3f}",
            "" if row.low is None or row.high is None else f"[{row.low:+.3f}, {row.high:+.3f}]",
            "" if row.p is None else f"{row.p:.2g}",
            "" if row.least is None else f"{row.least:.2f}",
            row.note,
        ]
        for row in rows
    ]
