"""The reconstruction game: what did the records hold that a silo trained on in a round?

A target is one silo's records of one round. Truth is what carries gradient: of each record all tokens but the last,
which is only ever predicted. An answer that is missing counts as a failure, that is zero (for the ranking: chance),
never as missing. Beside every figure stands that of a baseline that saw no update.

``grade`` needs the records; ``leakage`` is a pure function of the grades, so anybody can recompute a result from its
committed sheet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench import stats
from bench.corpus.clusters import UnionFind
from bench.games.membership import Scored
from bench.games.reconstruction_grading import Graded, grade
from bench.games.reconstruction_sheet import (
    RECORD_FAILURE,
    RECORD_FIGURES,
    TARGET_FAILURE,
    TARGET_FIGURES,
    GradedTarget,
    Grades,
    ReconstructionSheet,
)
from bench.spec.result import Leakage

BASELINE = ":baseline"


def leakage(sheet: ReconstructionSheet) -> Scored:
    """Every figure of the attack, then the same of the baseline (``...:baseline``).

    ``RECORD_FIGURES`` are means over records, with intervals over records given these targets (a record that comes back
    in another round is the same one). ``TARGET_FIGURES`` are means over targets, with intervals over groups of targets
    that share no record: a silo's rounds are one group, so few silos give wide intervals.
    """
    answers = _figures(sheet.targets, [t.answer for t in sheet.targets], "")
    return Scored((*answers, *_figures(sheet.targets, [t.baseline for t in sheet.targets], BASELINE)))


def _figures(targets: Sequence[GradedTarget], answers: Sequence[Grades | None], suffix: str) -> list[Leakage]:
    records = [unit for target in targets for unit in target.units]
    missing = sum(answer is None for answer in answers)
    n = {"targets": len(targets), "records": len(records), "answered": len(targets) - missing}
    note = f"{missing} of {len(targets)} targets unanswered: failures" if missing else ""
    whole = [
        answer if answer is not None else Grades((RECORD_FAILURE,) * len(target.units), TARGET_FAILURE)
        for target, answer in zip(targets, answers, strict=True)
    ]
    of_record = np.array([row for answer in whole for row in answer.records])
    of_target = np.array([answer.target for answer in whole])
    rows = []
    for names, values, unit in (
        (RECORD_FIGURES, of_record, records),
        (TARGET_FIGURES, of_target, _groups(targets)),
    ):
        for column, name in enumerate(names):
            mean = stats.mean_interval(values[:, column], unit)
            counts = n | {"units": len(set(unit))}
            rows.append(
                Leakage(name=name + suffix, value=mean.value, low=mean.low, high=mean.high, n=counts, note=note)
            )
    return rows


def _groups(targets: Sequence[GradedTarget]) -> list[int]:
    """A number per target, equal where targets share a record, directly or through others."""
    union, first = UnionFind(len(targets)), dict[int, int]()
    for number, target in enumerate(targets):
        for unit in target.units:
            union.join(number, first.setdefault(unit, number))
    return [union.find(number) for number in range(len(targets))]


__all__ = ["BASELINE", "Graded", "grade", "leakage"]
