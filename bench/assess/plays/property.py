"""Asks for the shares of the labels among the records that each victim trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench import games
from bench.assess.plays.table import Assessment, Seat, Table, tools
from bench.attack.by_game import PropertyAttack
from bench.core.errors import SiloBenchError
from bench.games.trials import Trial, make_sheet

#: similarity: 1 - total variation distance between guessed and true shares; majority: the most frequent label is named
FIGURES = ("similarity", "majority")


def play(table: Table, name: str, attack: PropertyAttack, adversary: str, seats: Sequence[Seat]) -> Assessment:
    """One trial per coalition and victim; a victim's trials are one unit. The baseline guesses the population's shares,
    whatever the victim."""
    labels = table.materials.corpus.task.labels
    if len(labels) < 2:
        return Assessment("not-applicable", note="the task's records have no labels")
    blind = _shares(table.materials.gold(table.materials.pool.population), len(labels))
    trials: list[Trial] = []
    reads: dict[str, None] = {}
    for seat in seats:
        guesses = attack.label_shares(seat.view, seat.victims, tools(table, name, adversary, seat))
        if len(guesses.shares) != len(seat.victims):
            raise SiloBenchError(f"the attack answers for {len(guesses.shares)} of {len(seat.victims)} silos")
        reads.update(dict.fromkeys(guesses.reads))
        for victim, guess in zip(seat.victims, guesses.shares, strict=True):
            truth = _shares(table.materials.gold(table.run.planting.members[victim]), len(labels))
            answer = None if guess is None else _grades(_checked(guess, len(labels)), truth)
            unit = table.run.transcript.public.silos.index(victim)
            trials.append(Trial(unit, "", answer, _grades(blind, truth)))
    sheet = make_sheet("property", FIGURES, trials, "silos of this run")
    scored = games.leakage(sheet)
    return Assessment("ok", tuple(reads), scored.leakage, sheet.to_json())


def _shares(labels: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    known = labels[labels >= 0]
    if not len(known):
        return np.full(count, 1.0 / count)
    shares: NDArray[np.float64] = np.bincount(known, minlength=count) / len(known)
    return shares


def _checked(guess: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    shares = np.asarray(guess, dtype=np.float64)
    if shares.shape != (count,) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1.0):
        raise SiloBenchError(f"the attack's shares have shape {shares.shape} or are no shares; {count} labels sum to 1")
    total: float = float(shares.sum())
    return np.asarray(shares / total, dtype=np.float64)


def _grades(guess: NDArray[np.float64], truth: NDArray[np.float64]) -> dict[str, float]:
    similarity = 1.0 - 0.5 * float(np.abs(guess - truth).sum())
    named, wanted = guess == guess.max(), truth == truth.max()
    return {"similarity": min(1.0, max(0.0, similarity)), "majority": float((named & wanted).sum() / named.sum())}
