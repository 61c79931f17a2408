"""Asks which silo held a record that was trained on (source inference, Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench import games
from bench.assess.plays.table import Assessment, Seat, Table, tools
from bench.attack.attack import Answers, Candidates
from bench.attack.by_game import SourceAttack
from bench.core.errors import SiloBenchError
from bench.games.trials import Trial, make_sheet

#: the silo with the highest score is the holder (a tie counts as its share)
FIGURES = ("source_accuracy",)


def play(table: Table, name: str, attack: SourceAttack, adversary: str, seats: Sequence[Seat]) -> Assessment:
    """Members of all victims of a coalition, without their silos. Which silo got what is drawn once per silo and run,
    so a silo's records are one unit."""
    trials: list[Trial] = []
    reads: dict[str, None] = {}
    for seat in seats:
        silos = seat.victims
        if len(silos) < 2:
            continue
        members = table.run.planting.members
        held = sorted((i, silo) for silo in silos for i in members[silo])
        order = table.materials.streams.generator("questions/source", seat.number).permutation(len(held))
        ids, truth = [held[k][0] for k in order], [silos.index(held[k][1]) for k in order]
        records = Candidates(
            tuple(f"c{k}" for k in range(len(ids))),
            ("",) * len(ids),
            table.materials.texts(ids),
            table.materials.tokens(ids),
        )
        answers = attack.attribute(seat.view, records, silos, tools(table, name, adversary, seat))
        hits = _hits(answers, truth, len(silos))
        reads.update(dict.fromkeys(answers.reads))
        chance = float(np.bincount(truth, minlength=len(silos)).max() / len(truth))
        for hit, holder in zip(hits, truth, strict=True):
            unit = seat.number * len(silos) + holder
            trials.append(Trial(unit, "", {FIGURES[0]: hit}, {FIGURES[0]: chance}))
    if not trials:
        return Assessment("not-applicable", note="the coalition has one victim, so there is nothing to tell apart")
    sheet = make_sheet("source", FIGURES, trials, "silos of this run")
    scored = games.leakage(sheet)
    return Assessment("ok", tuple(reads), scored.leakage, sheet.to_json())


def _hits(answers: Answers, truth: Sequence[int], silos: int) -> list[float]:
    scores = np.asarray(answers.scores, dtype=np.float64)
    if scores.shape != (len(truth), silos) or np.isnan(scores).any():
        raise SiloBenchError(
            f"the attack's scores have shape {scores.shape} or hold NaN, expected ({len(truth)}, {silos})"
        )
    best = scores == scores.max(axis=1, keepdims=True)
    return [float(row[holder] / row.sum()) for row, holder in zip(best, truth, strict=True)]
