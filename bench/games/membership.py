"""The membership game: was this record trained on? From scores and the truth to leakage figures.

``leakage`` is a pure function of a ``MembershipSheet``, so anybody can recompute a result from its committed sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench import stats
from bench.core.errors import SiloBenchError, UsageError
from bench.games.noview import FITTED
from bench.spec import canonical as form
from bench.spec.canonical import SHEET
from bench.spec.foreign import Integer
from bench.spec.result import Leakage

GAME = "membership"
#: version of its sheets
VERSION = 1
FPRS = {"tpr@10%": 0.1, "tpr@1%": 0.01, "tpr@0.1%": 0.001}
#: in the name of a column, before the part of the coalition whose score it is
OF_PART = "@"
#: a figure's name, before the part that it is a difference from
OVER = "auc-over:"
#: a baseline this unlikely under a blind draw voids the result
VOID_P = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MembershipSheet:
    """Truth and scores of n candidates, sorted by id. ``member``: (n,) bool. ``scores``, ``baseline``: name to (n,).

    Every cluster lies in one silo and is wholly of members or wholly of others, as the game drew it.
    """

    game: ClassVar[str] = GAME

    ids: tuple[str, ...]
    silos: tuple[str, ...]
    clusters: tuple[int, ...]
    member: NDArray[np.bool_]
    scores: Mapping[str, Floats]
    baseline: Mapping[str, Floats]

    def to_json(self) -> str:
        """Canonical text: the same whatever order the candidates came in."""
        rows = zip(self.ids, self.silos, self.clusters, (int(m) for m in self.member), strict=True)
        tables = {"scores": self.scores, "baseline": self.baseline}
        return form.write(
            {
                "format": SHEET,
                "version": VERSION,
                "game": GAME,
                "candidates": [list(row) for row in rows],
                **{key: {name: v.tolist() for name, v in table.items()} for key, table in tables.items()},
            }
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of ``to_json()`` in hexadecimal: the name of the committed scores."""
        return form.sha256(self.to_json())

    @classmethod
    def from_json(cls, text: str) -> MembershipSheet:
        """Parse text from anybody. Raises UsageError on anything that ``to_json`` does not write."""
        return form.read(_Text, text, SHEET, _understood)


class _Text(form.SheetText):
    version: Literal[1]
    candidates: form.Many[tuple[form.Label, form.Label, Integer, Literal[0, 1]]]
    scores: form.Table
    baseline: form.Table


def _understood(value: _Text) -> MembershipSheet:
    ids, silos, clusters, member = form.columns(value.candidates, 4)
    return make_sheet(ids, silos, clusters, member, value.scores, value.baseline)


def make_sheet(
    ids: Sequence[str],
    silos: Sequence[str],
    clusters: Sequence[int] | NDArray[np.integer],
    member: Sequence[bool] | NDArray[np.bool_],
    scores: Mapping[str, ArrayLike],
    baseline: Mapping[str, ArrayLike] = MappingProxyType({}),
) -> MembershipSheet:
    """The sheet of candidates (parallel sequences of length n, any order) and of an attack's named scores, each (n,).

    Raises SiloBenchError for what an attack did wrong: no score, a score that is not one finite number per candidate, a
    name that is taken; and for an impossible truth: an id twice, a cluster in two silos or of both classes.
    """
    if not len(ids) == len(silos) == len(clusters) == len(member):
        raise ValueError("ids, silos, clusters and member must have the same length")
    if len(set(ids)) < len(ids):
        raise SiloBenchError("a candidate stands twice")
    if any(not 0 < len(label) <= form.MAX_NAME for label in (*ids, *silos)):
        raise SiloBenchError(f"ids of candidates and silos have 1 to {form.MAX_NAME} characters")
    if not scores:
        raise SiloBenchError("the attack returned no score")
    labels = np.asarray(member, dtype=np.bool_)
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    kind: dict[int, tuple[str, bool]] = {}
    for cluster, silo, label in zip(clusters, silos, labels, strict=True):
        if kind.setdefault(int(cluster), (silo, bool(label))) != (silo, bool(label)):
            raise SiloBenchError(f"cluster {cluster} is divided between silos, or between members and non-members")
    return MembershipSheet(
        tuple(ids[i] for i in order),
        tuple(silos[i] for i in order),
        tuple(int(clusters[i]) for i in order),
        labels[order],
        *({name: _column(name, table[name], order) for name in sorted(table)} for table in (scores, baseline)),
    )


@dataclass(frozen=True)
class Scored:
    """A sheet's leakage figures. ``void``: the baseline beats chance, ``note`` says how. ``best``: the score that was
    reported on fold 0 and on fold 1, for each cross-fitted figure. ``fault``: of which part less is reported than of
    the part alone, beyond the margin, or an empty string."""

    leakage: tuple[Leakage, ...]
    void: bool = False
    note: str = ""
    best: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    fault: str = ""


def leakage(sheet: MembershipSheet) -> Scored:
    """All figures of one sheet (docs/metrics.md): cross-fitted ones, every single score's AUC, the baseline's."""
    rows, best = _crossfitted(sheet)
    for name, values in sheet.scores.items():
        if OF_PART not in name:
            rows.append(_row(f"auc:{name}", stats.auc(values, sheet.member, sheet.clusters), _counts(sheet)))
    over = _over_parts(sheet)
    less = [one.name.removeprefix(OVER) for one in over if one.high is not None and one.high < 0]
    fault = f"a fault: less is reported than the coalition's part {' and '.join(less)} alone gives" if less else ""
    found, note = _baseline(sheet)
    return Scored(tuple(rows + over + found), bool(note), note, best, fault)


def _over_parts(sheet: MembershipSheet) -> list[Leakage]:
    """What the coalition's cross-fitted AUC has over that of each part alone, paired; as it is, below zero too."""
    columns: dict[str, dict[str, Floats]] = {}
    for name, values in sheet.scores.items():
        if OF_PART in name:
            columns.setdefault(name.rpartition(OF_PART)[2], {})[name] = values
    if not columns:
        return []
    try:
        folds = stats.split(sheet.clusters, sheet.member)
    except stats.TooFewClusters:
        return []
    return [
        _row(
            f"{OVER}{part}",
            stats.crossfit_paired(sheet.scores, own, sheet.member, sheet.clusters, folds).interval,
            _counts(sheet),
        )
        for part, own in sorted(columns.items())
    ]


def paired(first: MembershipSheet, second: MembershipSheet) -> stats.Difference:
    """AUC of the strongest score of ``first`` less that of ``second``, cross-fitted, on the candidates that both have.

    For two defenses under one planting: positive where the first leaks more. It compares two models on these records.
    Raises UsageError where the sheets share no candidates of both classes, or disagree about one's truth.
    """
    rows = [dict(zip(sheet.ids, range(len(sheet.ids)), strict=True)) for sheet in (first, second)]
    shared = [i for i in first.ids if i in rows[1]]
    index = [[row[i] for i in shared] for row in rows]
    truths = [
        [(sheet.clusters[k], bool(sheet.member[k])) for k in at]
        for sheet, at in zip((first, second), index, strict=True)
    ]
    if truths[0] != truths[1]:
        raise UsageError(
            "The two sheets disagree about which candidates were trained on: compare runs of one planting."
        )
    member, cluster = first.member[index[0]], [first.clusters[k] for k in index[0]]
    try:
        folds = stats.split(cluster, member)
    except stats.TooFewClusters as error:
        raise UsageError(f"The two sheets share too few candidates to be compared: {error}.") from None
    tables = [
        {name: values[at] for name, values in sheet.scores.items()}
        for sheet, at in zip((first, second), index, strict=True)
    ]
    return stats.crossfit_paired(tables[0], tables[1], member, cluster, folds)


def _crossfitted(sheet: MembershipSheet) -> tuple[list[Leakage], dict[str, tuple[str, str]]]:
    names = ["auc", *FPRS, "advantage"]
    try:
        folds = stats.split(sheet.clusters, sheet.member)
    except stats.TooFewClusters as error:
        nothing = stats.Interval(None, None, None, str(error))
        return [_row(name, nothing, _counts(sheet)) for name in names], {}
    choice = stats.crossfit_auc(sheet.scores, sheet.member, sheet.clusters, folds)
    rows = [_row("auc", choice.interval, _counts(sheet, scores=len(sheet.scores)), choice.chosen)]
    best = {"auc": choice.chosen}
    found = {n: stats.crossfit_tpr(sheet.scores, sheet.member, sheet.clusters, fpr, folds) for n, fpr in FPRS.items()}
    found["advantage"] = stats.crossfit_advantage(sheet.scores, sheet.member, sheet.clusters, folds)
    for name, rates in found.items():
        interval = rates.advantage if name == "advantage" else rates.tpr
        if interval.value is None:
            rows.append(_row(name, interval, _counts(sheet)))
            continue
        best[name] = rates.chosen
        positives = {"true_positives": rates.true_positives, "false_positives": rates.false_positives}
        rows.append(_row(name, interval, _counts(sheet, **positives), rates.chosen))
    return rows, best


def _baseline(sheet: MembershipSheet) -> tuple[list[Leakage], str]:
    """The baseline's figures, and why the result is void, or an empty string."""
    if not sheet.baseline:
        return [], ""
    names = list(sheet.baseline)
    tests = {name: _no_view(sheet, name, 0.95) for name in names}
    rows = [_row(f"auc:baseline:{name}", interval, _counts(sheet)) for name, (interval, _) in tests.items()]
    known = {name: test for name, test in tests.items() if test[0].value is not None}
    if not known:
        return [_row("auc:baseline", tests[names[0]][0], _counts(sheet)), *rows], ""
    strongest = min(known, key=lambda name: (known[name][1], name))
    p = min(1.0, known[strongest][1] * len(names))
    rows.insert(0, _blind(sheet, p))
    if p >= VOID_P:
        return rows, ""
    value = known[strongest][0].value or 0.0
    return rows, (
        f"void: without any view '{strongest}' tells members from non-members with AUC {max(value, 1 - value):.3f} "
        f"(p = {p:.1g}), so they differed before training and the split is broken"
    )


def _blind(sheet: MembershipSheet, p: float) -> Leakage:
    """The figure that stands beside an attack's, by the same method: the strongest no-view score, its direction with
    it, chosen on one fold and reported on the other. Not among them are scores that a classifier gave which was trained
    on the other fold: its AUCs on both folds can be one number, so that choosing by one would flatter the other."""
    plain = {name: values for name, values in sheet.baseline.items() if not name.startswith(FITTED)}
    if not plain:
        return _row("auc:baseline", stats.Interval(None, None, None, "no score that both folds share"), _counts(sheet))
    turned = plain | {f"reversed {name}": -values for name, values in plain.items()}
    try:
        folds = stats.split(sheet.clusters, sheet.member)
    except stats.TooFewClusters as error:
        return _row("auc:baseline", stats.Interval(None, None, None, str(error)), _counts(sheet))
    choice = stats.crossfit_auc(turned, sheet.member, sheet.clusters, folds)
    found = _row("auc:baseline", choice.interval, _counts(sheet), choice.chosen)
    tested = f"p = {p:.2g} for all {len(sheet.baseline)} no-view scores"
    return found.model_copy(update={"note": f"{found.note}; {tested}"})


def _no_view(sheet: MembershipSheet, name: str, confidence: float) -> tuple[stats.Interval, float]:
    """AUC of a baseline score with its interval, and its two-sided p under the game's blind draw."""
    scores, member, clusters = sheet.baseline[name], sheet.member, np.asarray(sheet.clusters)
    if not name.startswith(FITTED):
        interval = stats.auc(scores, member, clusters, confidence)
        return interval, 1.0 if interval.value is None else stats.null_test(scores, member, clusters).p_two_sided
    try:
        folds = stats.split(sheet.clusters, member)
    except stats.TooFewClusters as error:
        return stats.Interval(None, None, None, str(error)), 1.0
    sides = [folds == f for f in (0, 1)]
    # A mean z above t needs one fold's z above t, and each fold's is standard normal given the other fold's labels.
    z = float(np.mean([stats.null_test(scores[s], member[s], clusters[s]).z for s in sides]))
    interval = stats.folded_auc(scores, member, sheet.clusters, folds, confidence)
    return interval, min(1.0, 4 * stats.normal_tail(abs(z)))


def _column(name: str, values: ArrayLike, order: Sequence[int]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not name or not name.isprintable() or len(name) > form.MAX_NAME or name.partition(":")[0] == "baseline":
        raise SiloBenchError(f"a score can't be called '{name:.80}'")
    if array.shape != (len(order),):
        raise SiloBenchError(f"score '{name}' has shape {array.shape}, expected one number for each of {len(order)}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise SiloBenchError(f"score '{name}' is NaN or infinite for {bad} of {len(order)} candidates")
    column: Floats = array[list(order)]
    return column


def _counts(sheet: MembershipSheet, **more: int) -> dict[str, int]:
    members = int(sheet.member.sum())
    counts = {"members": members, "nonmembers": len(sheet.ids) - members, "clusters": len(set(sheet.clusters))}
    return counts | more


def _row(name: str, interval: stats.Interval, n: dict[str, int], chosen: tuple[str, str] | None = None) -> Leakage:
    if chosen is None:
        note = interval.note
    else:
        reported = chosen[0] if chosen[0] == chosen[1] else f"{chosen[0]} on one fold, {chosen[1]} on the other"
        note = "; ".join(part for part in (f"score: {reported}", interval.note) if part)
    return Leakage(name=name, value=interval.value, low=interval.low, high=interval.high, n=n, note=note)
