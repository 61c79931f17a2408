"""The sheet of games that are asked in trials: each one a question, a grade for the answer, a grade for the baseline's.

``source``, ``participation``, ``property`` and ``extraction`` use it. A trial has no text and no truth in it: grades in
[0, 1] by figure, and which unit (person, silo, cluster) it belongs to; trials of one unit are resampled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bench import stats
from bench.core.errors import SiloBenchError
from bench.games.membership import Scored
from bench.spec import canonical as form
from bench.spec.canonical import SHEET
from bench.spec.foreign import Integer
from bench.spec.result import Leakage

VERSION = 1
BASELINE = ":baseline"
Grades = Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """One question. ``answer``: figure to grade in [0, 1], None where the attack gave none (a failure, which
    counts as 0). ``baseline``: the same of a guesser that sees no view. ``kind``: a part that is also
    reported by itself (``name``, ``date``), or empty."""

    unit: int
    kind: str
    answer: Grades | None
    baseline: Grades


@dataclass(frozen=True)
class TrialSheet:
    """``game``: whose. ``figures``: names, the headline first. ``trials``: in canonical order."""

    game: str
    figures: tuple[str, ...]
    trials: tuple[Trial, ...]
    over: str = "records of this model"

    #: games whose sheets these are; a game of this kind adds itself to the catalogue, not here
    version: ClassVar[int] = VERSION

    def to_json(self) -> str:
        """Canonical text: the same whatever order the trials came in."""
        return form.write(
            {
                "format": SHEET,
                "version": VERSION,
                "game": self.game,
                "over": self.over,
                "figures": list(self.figures),
                "trials": [_row(trial, self.figures) for trial in self.trials],
            }
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of ``to_json()`` in hexadecimal."""
        return form.sha256(self.to_json())

    @classmethod
    def from_json(cls, text: str) -> TrialSheet:
        """Parse text from anybody. Raises UsageError on anything that ``to_json`` does not write."""
        return form.read(_Text, text, SHEET, _understood)


_Grades = tuple[float, ...]


class _Text(form.SheetText):
    version: Literal[1]
    over: form.Name
    figures: form.Many[form.Name]
    #: unit, kind, grades of the answer and of the baseline
    trials: form.Many[
        tuple[Integer, Annotated[str, Field(max_length=form.MAX_NAME, pattern="^[^:]*$")], _Grades | None, _Grades]
    ]


def _understood(value: _Text) -> TrialSheet:
    def graded(grades: _Grades) -> Grades:
        if len(grades) != len(value.figures):
            raise SiloBenchError(f"a trial has {len(grades)} grades, and there are {len(value.figures)} figures")
        return dict(zip(value.figures, grades, strict=True))

    trials = [Trial(u, k, None if a is None else graded(a), graded(b)) for u, k, a, b in value.trials]
    return make_sheet(value.game, value.figures, trials, value.over)


def leakage(sheet: TrialSheet) -> Scored:
    """Means over trials of every figure, of each kind by itself (``figure:kind``), then the baseline's."""
    answers, baseline = [t.answer for t in sheet.trials], [t.baseline for t in sheet.trials]
    return Scored((*_means(sheet, answers, ""), *_means(sheet, baseline, BASELINE)))


def _means(sheet: TrialSheet, side: Sequence[Grades | None], suffix: str) -> list[Leakage]:
    kinds = sorted({t.kind for t in sheet.trials} - {""})
    rows = []
    for kind in ("", *(kinds if len(kinds) > 1 else ())):
        chosen = [i for i, t in enumerate(sheet.trials) if kind in ("", t.kind)]
        units = [sheet.trials[i].unit for i in chosen]
        missing = sum(side[i] is None for i in chosen)
        note = f"{missing} of {len(chosen)} unanswered: failures" if missing else ""
        for figure in sheet.figures:
            grades = [0.0 if (one := side[i]) is None else one[figure] for i in chosen]
            mean = stats.mean_interval(np.array(grades), units)
            name = f"{figure}:{kind}" if kind else figure
            n = {"trials": len(chosen), "units": len(set(units)), "answered": len(chosen) - missing}
            found = {"value": mean.value, "low": mean.low, "high": mean.high, "over": sheet.over}
            rows.append(Leakage(name=name + suffix, n=n, note=note, **found))
    return rows


def make_sheet(
    game: str, figures: Sequence[str], trials: Sequence[Trial], over: str = "records of this model"
) -> TrialSheet:
    """The sheet of ``trials`` in any order. Raises SiloBenchError without a figure or a trial, where a trial lacks a
    figure or has another, and on a grade outside [0, 1]."""
    if not figures or len(set(figures)) < len(figures) or any(":" in f for f in figures):
        raise SiloBenchError("a sheet has distinct figures, at least one, without ':' in their names")
    if not trials:
        raise SiloBenchError("there was nothing to ask")
    for trial in trials:
        for side in (trial.answer, trial.baseline):
            if side is None:
                continue
            if set(side) != set(figures):
                raise SiloBenchError(f"a trial has grades {sorted(side)}, expected {sorted(figures)}")
            if not all(0.0 <= grade <= 1.0 for grade in side.values()):
                raise SiloBenchError("a grade lies outside [0, 1]")
    order = tuple(figures)
    return TrialSheet(game, order, tuple(sorted(trials, key=lambda t: form.write({"t": _row(t, order)}))), over)


def _row(trial: Trial, figures: Sequence[str]) -> list[Any]:
    answer = None if trial.answer is None else [float(trial.answer[f]) for f in figures]
    return [trial.unit, trial.kind, answer, [float(trial.baseline[f]) for f in figures]]
