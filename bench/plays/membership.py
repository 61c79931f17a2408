"""Asks which candidates were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench import games
from bench.attack import Attack
from bench.errors import SiloBenchError
from bench.games import membership
from bench.games.noview import baseline
from bench.games.sheet import Sheet
from bench.lender import LentTools
from bench.plays.table import Assessment, Seat, Table, ask, candidates, members_of, tools


def play(table: Table, name: str, attack: Attack, adversary: str, seats: Sequence[Seat]) -> Assessment:
    """Every coalition's victims' candidates, joined in one sheet."""
    ids: list[str] = []
    scores: dict[str, list[NDArray[np.float64]]] = {}
    reads: dict[str, None] = {}
    missing: dict[str, str] = {}
    for seat in seats:
        asked = ask(table, seat)
        lent = tools(table, name, adversary, seat, asked.candidates)
        guesses = attack.infer(seat.view, candidates(table, asked), lent)
        _check_guesses(guesses.scores, len(asked.candidates))
        if scores and set(scores) != set(guesses.scores):
            raise SiloBenchError(f"{name} gives different scores for different coalitions of {adversary}")
        ids += asked.candidates
        for key, values in guesses.scores.items():
            scores.setdefault(key, []).append(np.asarray(values, dtype=np.float64))
        reads.update(dict.fromkeys(guesses.reads))
        missing.update(guesses.missing)
    joined = {key: np.concatenate(parts) for key, parts in scores.items()}
    sheet = _sheet(table, ids, joined)
    scored = games.leakage(sheet)
    note = "; ".join([scored.note, *(f"no {key}: {why}" for key, why in missing.items())]).strip("; ")
    return Assessment("void" if scored.void else "ok", tuple(reads), scored.leakage, sheet.to_json(), note)


def _sheet(table: Table, ids: Sequence[str], scores: Mapping[str, NDArray[np.float64]]) -> Sheet:
    pool, planting = table.materials.pool, table.run.planting
    holder = {i: name for side in (planting.members, planting.nonmembers) for name, held in side.items() for i in held}
    member = members_of(planting, ids)
    clusters = np.array([pool.clusters[i] for i in ids])
    blind = _no_view(table, ids, member, clusters)
    return membership.make_sheet(ids, [holder[i] for i in ids], clusters, member, scores, blind)


def _no_view(
    table: Table, ids: Sequence[str], member: NDArray[np.bool_], clusters: NDArray[np.int64]
) -> Mapping[str, NDArray[np.float64]]:
    """The scores of the baseline, which no view changes; in an order that no question decides."""
    order = sorted(range(len(ids)), key=lambda k: ids[k])
    ordered = [ids[k] for k in order]
    stats = LentTools(table.materials, table.memo, np.random.default_rng(0), {}).token_stats(
        None, tokens := table.materials.tokens(ordered)
    )
    made = baseline(tokens, stats, table.materials.texts(ordered), member[order], clusters[order])
    back = np.argsort(order)
    return {key: values[back] for key, values in made.items()}


def _check_guesses(scores: Mapping[str, NDArray[np.float64]], n: int) -> None:
    if not scores:
        raise SiloBenchError("the attack returned no score")
    for key, values in scores.items():
        if np.shape(values) != (n,):
            raise SiloBenchError(f"score '{key}' has shape {np.shape(values)}, expected one number for each of {n}")
