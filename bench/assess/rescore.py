"""Figures computed anew from a stored sheet, where the scoring has another version since and nothing else changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bench.games.sheet import leakage, load
from bench.plugins.fingerprint import SCORING
from bench.spec.result import Result

#: under which a result's versions hold that of the scoring
SCORED_BY = "SCORING"


def only_scoring_is_new(result: Result, now: Mapping[str, int], changed: Collection[str]) -> bool:
    """Whether ``result`` differs from one of today in nothing but the version of the scoring. ``now``: today's
    versions; ``changed``: the parts of its fingerprint that are other ones today.

    An audit's bounds are compared with claims, which no sheet holds: it is made again.
    """
    others = {key: value for key, value in now.items() if key != SCORED_BY}
    same = {key: value for key, value in result.versions.items() if key != SCORED_BY} == others
    newer = result.versions.get(SCORED_BY, 0) < now[SCORED_BY]
    return same and newer and result.audit is None and set(changed) <= {"bench/core", *(f"bench/{r}" for r in SCORING)}


def rescored(result: Result, sheet: str) -> Result:
    """``result`` with the figures that ``sheet``, the text of its scores, gives today. Raises UsageError for a sheet
    that is malformed."""
    found = leakage(load(sheet))
    status = "void" if found.void else "ok" if result.status == "void" else result.status
    return result.model_copy(update={"leakage": found.leakage, "status": status})
