"""Committed results whose scoring has another version since: their figures computed anew from their own sheets.

Nothing is trained or asked again, and a row stays stale where anything else has another version.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.assess.rescore import SCORED_BY, rescored
from bench.board.leaderboard import replace
from bench.board.verify import Verdict, verify_leaderboards
from bench.core.errors import UsageError
from bench.core.versions import SCORING
from bench.spec.canonical import sha256
from bench.spec.result import Result
from bench.store.committed import read_sheet


def rescore(folder: Path) -> tuple[Result, ...]:
    """Compute the figures of all rows below ``folder`` (``leaderboards``) that an older scoring made, and write them.

    Returns those that changed; each says which it supersedes. What today's scoring gives as well keeps its bytes.
    Nothing is written unless every row can be: raises UsageError, which names the row, where a sheet is missing, was
    altered or is malformed, and where a row of today's scoring states what its scores don't give. Audits are left:
    their bounds are compared with claims, which no sheet holds.
    """
    verdicts = [one for one in verify_leaderboards(folder) if one.result is None or one.result.audit is None]
    _refuse([one for one in verdicts if one.outcome in ("differs", "missing", "unreadable")])
    changed = [_anew(folder, one.result) for one in verdicts if one.outcome == "older" and one.result is not None]
    replace(folder, changed)
    return tuple(changed)


def _anew(folder: Path, result: Result) -> Result:
    sheet = read_sheet(folder, str(result.scores_sha256))
    if sheet is None:
        raise UsageError(f"The scores of {result.result} are not in {folder / 'scores'}.")
    versions = {**result.versions, SCORED_BY: SCORING}
    update = {"versions": versions, "supersedes": sha256(result.to_json())}
    return rescored(result, sheet).model_copy(update=update)


def _refuse(false: Sequence[Verdict]) -> None:
    if false:
        first = false[0]
        more = f" ({len(false) - 1} more)" if len(false) > 1 else ""
        which = "A line" if first.result is None else f"Result {first.result.result}"
        raise UsageError(f"{which} can't be computed anew: {'; '.join(first.problems)}{more}.")
