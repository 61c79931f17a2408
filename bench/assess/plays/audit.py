"""Asks of which canaries the coin was heads, in a run in which canaries were planted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.assess.plays.table import Assessment, Seat, Table, ask, candidates, members_of, tools
from bench.assess.tools import LentTools
from bench.attack.by_game import AuditAttack
from bench.core.errors import SiloBenchError
from bench.games.audit import TAIL, comparable, leakage, summary
from bench.games.audit_sheet import COUNTED, make_sheet
from bench.privacy import default_delta
from bench.spec.result import Claim, Status


def play(table: Table, name: str, attack: AuditAttack, adversary: str, seats: Sequence[Seat]) -> Assessment:
    """Every coalition's victims' canaries, in one sheet; each coalition is bounded by itself. Guesses are the
    harness's: the attack gives scores, and the one called ``audit`` counts."""
    variant = table.run.spec.variant
    if variant is None or variant.name != "audit":
        return Assessment("refused", note="this run planted no canaries by fair coins, so it can't be audited")
    claim = table.claim(adversary)
    ids: list[str] = []
    coalitions: list[int] = []
    scores: dict[str, list[float]] = {}
    reads: dict[str, None] = {}
    for seat in seats:
        asked = ask(table, seat)
        found = attack.infer(seat.view, candidates(table, asked), tools(table, name, adversary, seat, asked.candidates))
        if COUNTED not in found.scores:
            raise SiloBenchError(f"{name} returned no score called '{COUNTED}', from which guesses are made")
        if scores and set(scores) != set(found.scores):
            raise SiloBenchError(f"{name} gives different scores for different coalitions of {adversary}")
        for key, values in found.scores.items():
            array = np.asarray(values, dtype=np.float64)
            if array.shape != (len(asked.candidates),):
                raise SiloBenchError(f"score '{key}' has shape {array.shape}, expected ({len(asked.candidates)},)")
            scores.setdefault(key, []).extend(array.tolist())
        ids += asked.candidates
        coalitions += [seat.number] * len(asked.candidates)
        reads.update(dict.fromkeys(found.reads))
    sheet = make_sheet(
        ids,
        coalitions,
        members_of(table.run.planting, ids),
        scores,
        {"loss": _blind(table, ids)},
        delta=_delta(table, claim),
        repeat=int(variant.config.get("repeat", 1)),
    )
    scored = leakage(sheet)
    reason = comparable(sheet.repeat, claim)
    note = "; ".join(part for part in (scored.note, f"not compared: {reason}" if reason else "") if part)
    status: Status = "void" if scored.void else "ok"
    return Assessment(
        status,
        tuple(reads),
        scored.leakage,
        sheet.to_json(),
        note,
        audit=summary(sheet, claim, table.claim(adversary, TAIL)),
    )


def _delta(table: Table, claim: Claim | None) -> float:
    """The claim's; where nothing finite is claimed the smallest of the silos' 1 / (10 n)."""
    if claim is not None and claim.epsilon is not None and claim.delta is not None:
        return claim.delta
    return min(default_delta(n) for n in table.run.nominal_sizes.values())


def _blind(table: Table, ids: Sequence[str]) -> list[float]:
    """Minus the base model's loss on each canary: what no view changes."""
    lent = LentTools(table.materials, table.memo, np.random.default_rng(0), {})
    found: list[float] = (-lent.token_stats(None, table.materials.tokens(ids)).losses()).tolist()
    return found
