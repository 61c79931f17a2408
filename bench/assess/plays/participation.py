"""Asks which of two organisations took part, from texts of its kind that nobody trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench import games
from bench.assess.plays.table import Assessment, Seat, Table, tools
from bench.attack.attack import Answers, Organisation
from bench.attack.by_game import ParticipationAttack
from bench.core.errors import SiloBenchError
from bench.games.trials import Trial, make_sheet

#: the one that took part has the higher score (a tie counts half)
FIGURES = ("participation_accuracy",)


def play(table: Table, name: str, attack: ParticipationAttack, adversary: str, seats: Sequence[Seat]) -> Assessment:
    """Two organisations a place, in an order that a public coin decides; the game's coin a place is the secret."""
    trials: list[Trial] = []
    reads: dict[str, None] = {}
    planting = table.run.planting
    for seat in seats:
        rng = table.materials.streams.generator("questions/participation", seat.number)
        asked: list[Organisation] = []
        truth: list[int] = []
        for place in seat.victims:
            first = int(rng.integers(0, 2))
            pair = [planting.members[place], planting.nonmembers[place]]
            texts = [pair[first], pair[1 - first]]
            asked += [Organisation(place, table.materials.tokens(t), table.materials.texts(t)) for t in texts]
            truth.append(first)
        answers = attack.took_part(seat.view, asked, tools(table, name, adversary, seat))
        reads.update(dict.fromkeys(answers.reads))
        for place, hit in zip(seat.victims, _hits(answers, truth), strict=True):
            unit = table.run.transcript.public.silos.index(place)
            trials.append(Trial(unit, "", {FIGURES[0]: hit}, {FIGURES[0]: 0.5}))
    sheet = make_sheet("participation", FIGURES, trials, "silos of this run")
    scored = games.leakage(sheet)
    return Assessment("ok", tuple(reads), scored.leakage, sheet.to_json())


def _hits(answers: Answers, truth: Sequence[int]) -> list[float]:
    scores = np.asarray(answers.scores, dtype=np.float64)
    if scores.shape != (2 * len(truth),) or np.isnan(scores).any():
        raise SiloBenchError(f"the attack's scores have shape {scores.shape} or hold NaN, expected ({2 * len(truth)},)")
    pairs = scores.reshape(-1, 2)
    margin = [float(pair[first] - pair[1 - first]) for pair, first in zip(pairs, truth, strict=True)]
    return [0.5 if m == 0 else float(m > 0) for m in margin]
