"""The reconstruction game: what did the records hold that a silo trained on in a round?

A target is one silo's records of one round. Truth is what carries gradient: of each record all tokens but the last,
which is only ever predicted. An answer that is missing counts as a failure, that is zero (for the ranking: chance),
never as missing. Beside every figure stands that of a baseline that saw no update.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.clusters import UnionFind
from bench.games.matching import Rouge, assign
from bench.games.membership import Scored
from bench.games.reconstruction_sheet import GAME, Answer, Ids, ReconstructionSheet, Trained, make_sheet
from bench.result import Leakage

RECORD_FIGURES = ("token_recall", *Rouge.NAMES, "exact", "exact_order")
TARGET_FIGURES = ("token_precision", "token_auc")
BASELINE = ":baseline"


def leakage(sheet: ReconstructionSheet) -> Scored:
    """Every figure of the attack, then the same of the baseline (``...:baseline``).

    ``RECORD_FIGURES`` are means over records, with intervals over records given these targets (a record that comes back
    in another round is the same one). ``TARGET_FIGURES`` are means over targets, with intervals over groups of targets
    that share no record: a silo's rounds are one group, so few silos give wide intervals.
    """
    rouge = Rouge()
    rows = []
    for answers, suffix in ((sheet.answers, ""), (sheet.baseline, BASELINE)):
        rows += _figures(sheet.targets, answers, rouge, suffix)
    return Scored(tuple(rows))


def _figures(targets: Sequence[Trained], answers: Sequence[Answer | None], rouge: Rouge, suffix: str) -> list[Leakage]:
    pairs = list(zip(targets, answers, strict=True))
    records = [ids for target in targets for ids in target.tokens]
    missing = sum(answer is None for answer in answers)
    n = {"targets": len(targets), "records": len(records), "answered": len(targets) - missing}
    note = f"{missing} of {len(targets)} targets unanswered: failures" if missing else ""
    of_record = np.concatenate([_record_figures(target, answer, rouge) for target, answer in pairs])
    of_target = np.array([_target_figures(target, answer) for target, answer in pairs])
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


def _target_figures(target: Trained, answer: Answer | None) -> tuple[float, float]:
    """Precision of the claimed tokens, and AUC of the scores of tokens that were there against all others'."""
    if answer is None:
        return 0.0, 0.5
    held = target.held
    m, n = len(held), answer.vocabulary - len(held)
    # a vocabulary of which every token was there leaves nothing to rank against
    area = (sum(answer.ranks) - m * (m + 1) / 2) / (m * n) if n else 0.5
    return len(set(held) & set(answer.held)) / len(answer.held) if answer.held else 0.0, area


def _record_figures(target: Trained, answer: Answer | None, rouge: Rouge) -> NDArray[np.float64]:
    """(records, 6): share of the record's tokens that were claimed; ROUGE-1, -2, -L, exact text and exact tokens of the
    guess assigned to it, zeros where it got none."""
    found = np.zeros((len(target.tokens), len(RECORD_FIGURES)))
    if answer is None:
        return found
    claimed = set(answer.held)
    for row, (carriers, guess) in enumerate(
        zip(target.carriers, assign(target.carriers, answer.sequences), strict=True)
    ):
        found[row, 0] = len(claimed & set(carriers)) / len(set(carriers))
        if guess is None:
            continue
        text = target.texts[row]
        # the last token can't be read from an update, so a guess may have it or not
        in_order = answer.sequences[guess] in (carriers, target.tokens[row])
        exact = in_order or answer.texts[guess].strip() == text.strip()
        found[row, 1:] = (*rouge.f1(text, answer.texts[guess]), exact, in_order)
    return found


def _groups(targets: Sequence[Trained]) -> list[int]:
    """A number per target, equal where targets share a record, directly or through others."""
    union, first = UnionFind(len(targets)), dict[Ids, int]()
    for number, target in enumerate(targets):
        for ids in target.tokens:
            union.join(number, first.setdefault(ids, number))
    return [union.find(number) for number in range(len(targets))]


__all__ = ["BASELINE", "GAME", "RECORD_FIGURES", "TARGET_FIGURES", "ReconstructionSheet", "leakage", "make_sheet"]
