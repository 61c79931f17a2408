"""The reconstruction game's sheet: how well each record was guessed, and nothing of what it holds.

A sheet can be committed where the records are private. It holds grades, and numbers that say which records are the same
one; no token, no text, no digest of either, and not the order in which a silo holds its records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from bench.games.matching import Rouge
from bench.spec import canonical as form
from bench.spec.canonical import SHEET
from bench.spec.foreign import Integer

GAME = "reconstruction"
#: version 1 held the token ids and the texts of records and guesses
VERSION = 2
#: what each record, and each target, is graded in; all in [0, 1], higher = more was recovered
RECORD_FIGURES = ("token_recall", *Rouge.NAMES, "exact", "exact_order")
TARGET_FIGURES = ("token_precision", "token_auc")
#: grades of a target without an answer: nothing was recovered, and the ranking is chance
RECORD_FAILURE, TARGET_FAILURE = (0.0,) * len(RECORD_FIGURES), (0.0, 0.5)
_EXACT, _IN_ORDER = RECORD_FIGURES.index("exact"), RECORD_FIGURES.index("exact_order")

Row = tuple[float, ...]
_Grade = Annotated[float, Field(ge=0, le=1)]
_Natural = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Grades:
    """How one answer did on one target. ``records``: per record its ``RECORD_FIGURES``, of which the exact ones are 0
    or 1. ``target``: the ``TARGET_FIGURES``.
    """

    records: tuple[Annotated[tuple[_Grade, ...], Field(min_length=6, max_length=6)], ...]
    target: Annotated[tuple[_Grade, ...], Field(min_length=2, max_length=2)]


@dataclass(frozen=True)
class GradedTarget:
    """The grades of ``silo``'s records of ``round``. ``units``: a number per record, equal where it is the same record,
    here or in another target. ``answer``, ``baseline``: None where none was given, which is a failure.
    """

    round: _Natural
    silo: form.Label
    steps: _Natural
    units: Annotated[tuple[Integer, ...], Field(min_length=1)]
    answer: Grades | None
    baseline: Grades | None

    def rows(self) -> list[tuple[Row, Row]]:
        """Per record its grades, answer then baseline; empty where there was none."""
        sides = [
            (side.records if side is not None else ((),) * len(self.units)) for side in (self.answer, self.baseline)
        ]
        return list(zip(*sides, strict=True))


@dataclass(frozen=True)
class ReconstructionSheet:
    """The grades of all targets; ``arranged`` makes one."""

    game: ClassVar[str] = GAME

    targets: tuple[GradedTarget, ...]

    def to_json(self) -> str:
        """Canonical text."""
        rows = [
            {
                "round": t.round,
                "silo": t.silo,
                "steps": t.steps,
                "units": list(t.units),
                "answer": _grades_json(t.answer),
                "baseline": _grades_json(t.baseline),
            }
            for t in self.targets
        ]
        return form.write({"format": SHEET, "version": VERSION, "game": GAME, "targets": rows})

    @property
    def sha256(self) -> str:
        """SHA-256 of ``to_json()`` in hexadecimal: the name of the committed scores."""
        return form.sha256(self.to_json())

    @classmethod
    def from_json(cls, text: str) -> ReconstructionSheet:
        """Parse text from anybody. Raises UsageError on anything that ``to_json`` does not write."""
        return form.read(_Text, text, SHEET, lambda value: arranged(value.targets))


def _agrees(target: GradedTarget) -> GradedTarget:
    sides = [side for side in (target.answer, target.baseline) if side is not None]
    if any(len(side.records) != len(target.units) for side in sides):
        raise ValueError("it needs grades for each of its 'units'")
    exact = {(row[_EXACT], row[_IN_ORDER]) for side in sides for row in side.records}
    if not exact <= {(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)}:
        raise ValueError("'exact' and 'exact_order' must be 0 or 1, and a guess that is exact in order is exact")
    return target


def _each_once(targets: tuple[GradedTarget, ...]) -> tuple[GradedTarget, ...]:
    if len({(t.round, t.silo) for t in targets}) < len(targets):
        raise ValueError("a silo stands twice in a round")
    return targets


class _Text(form.SheetText):
    version: Literal[2]
    targets: Annotated[
        form.Many[Annotated[GradedTarget, AfterValidator(_agrees)]], Field(min_length=1), AfterValidator(_each_once)
    ]


def arranged(targets: Iterable[GradedTarget]) -> ReconstructionSheet:
    """The sheet of ``targets``, each of another round or silo, in its one canonical order.

    Targets are sorted by round and silo, a target's records by their grades, and the records' numbers are drawn anew in
    the order of all their grades. So neither order nor numbers say more of a record than its grades do.
    """
    ordered = sorted(targets, key=lambda t: (t.round, t.silo))
    found: dict[int, list[tuple[int, tuple[Row, Row]]]] = defaultdict(list)
    for place, target in enumerate(ordered):
        for unit, row in zip(target.units, target.rows(), strict=True):
            found[unit].append((place, row))
    everywhere = {unit: sorted(rows) for unit, rows in found.items()}
    numbers = {unit: number for number, unit in enumerate(sorted(everywhere, key=everywhere.__getitem__))}
    return ReconstructionSheet(tuple(_sorted(target, [numbers[unit] for unit in target.units]) for target in ordered))


def _sorted(target: GradedTarget, units: Sequence[int]) -> GradedTarget:
    rows = target.rows()
    order = sorted(range(len(units)), key=lambda i: (rows[i], units[i]))
    answer, baseline = (
        side and Grades(tuple(side.records[i] for i in order), side.target) for side in (target.answer, target.baseline)
    )
    return replace(target, units=tuple(units[i] for i in order), answer=answer, baseline=baseline)


def _grades_json(grades: Grades | None) -> dict[str, Any] | None:
    if grades is None:
        return None
    return {"records": [list(row) for row in grades.records], "target": list(grades.target)}
