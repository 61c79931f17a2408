"""Asks which candidates were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench import games
from bench.assess.plays.table import Assessment, Seat, Table, ask, candidates, members_of, tools
from bench.assess.tools import LentTools
from bench.attack.attack import Guesses
from bench.attack.by_game import MembershipAttack
from bench.core.adversaries import parts
from bench.core.errors import SiloBenchError
from bench.games import membership
from bench.games.noview import baseline
from bench.games.sheet import Sheet


def play(table: Table, name: str, attack: MembershipAttack, adversary: str, seats: Sequence[Seat]) -> Assessment:
    """Every coalition's victims' candidates, joined in one sheet. A score that some coalition does not give is missing;
    where a view shows nothing that tells members apart, an attack gives none and says why. What the attack said as the
    coalition's parts (``bench.core.adversaries.parts``) stands beside as columns of their own."""
    ids: list[str] = []
    given: list[Mapping[str, NDArray[np.float64]]] = []
    reads: dict[str, None] = {}
    missing: dict[str, str] = {}
    for seat in seats:
        asked = ask(table, seat)
        lent = tools(table, name, adversary, seat, asked.candidates)
        guesses = attack.infer(seat.view, candidates(table, asked), lent)
        _check_guesses(guesses, len(asked.candidates))
        ids += asked.candidates
        given.append(guesses.scores)
        reads.update(dict.fromkeys(guesses.reads))
        missing.update(guesses.missing)
    common = [key for key in given[0] if all(key in one for one in given)]
    missing |= {key: "not every coalition has it" for one in given for key in one if key not in common}
    joined = {key: np.concatenate([np.asarray(one[key], dtype=np.float64) for one in given]) for key in common}
    table.answers[name, adversary] = {key: dict(zip(ids, v.tolist(), strict=True)) for key, v in joined.items()}
    columns = joined | _of_parts(table, name, adversary, ids)
    if not columns:
        return Assessment("nothing-opened", tuple(reads), note=_without(missing))
    sheet = _sheet(table, ids, columns)
    scored = games.leakage(sheet)
    note = "; ".join(part for part in (scored.note, scored.fault, _without(missing)) if part)
    return Assessment("void" if scored.void else "ok", tuple(reads), scored.leakage, sheet.to_json(), note)


def _of_parts(table: Table, name: str, adversary: str, ids: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The scores that the attack gave of these candidates as parts of the adversary, by ``score@part``."""
    found = {}
    for part in parts(adversary):
        for key, known in table.answers.get((name, part), {}).items():
            if known.keys() >= set(ids):
                found[f"{key}{membership.OF_PART}{part}"] = np.array([known[i] for i in ids])
    return found


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


def _without(missing: Mapping[str, str]) -> str:
    return "; ".join(f"no {key}: {why}" for key, why in missing.items())


def _check_guesses(guesses: Guesses, n: int) -> None:
    if not guesses.scores and not guesses.missing:
        raise SiloBenchError("the attack returned no score and does not say why")
    for key, values in guesses.scores.items():
        if membership.OF_PART in key:
            raise SiloBenchError(f"a score can't be called '{key:.80}': '{membership.OF_PART}' stands before a part")
        if np.shape(values) != (n,):
            raise SiloBenchError(f"score '{key}' has shape {np.shape(values)}, expected one number for each of {n}")
