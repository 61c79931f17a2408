"""Recomputes the leakage of results from their stored scores: a figure that nobody can recompute is no figure.

Trusted are the scores (whose SHA-256 the result names; a reconstruction's are grades) and the harness's own statistics;
nothing is trained, no model is loaded, and no record's text is read.

An audit's scores are also held against the claim: where a proven bound exceeds it, it is refuted. Over all audits
that are verified together that happens to a true claim with a chance of at most ``FAMILY``. Estimates refute nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.board.leaderboard import each_line, load_sound, stored
from bench.board.words import figure, one_line
from bench.core.errors import SiloBenchError, UsageError
from bench.core.versions import SCORING
from bench.games.catalog import GAMES
from bench.spec.canonical import sha256
from bench.spec.result import Leakage, Result
from bench.store.committed import read_sheet
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.games.sheet import Sheet

#: largest difference between a stated figure and the recomputed one
TOLERANCE = 1e-9
#: chance that any of the audits verified together refutes a claim that is true
FAMILY = 1e-4
Outcome = Literal["verified", "refuted", "differs", "missing", "older", "nothing-to-verify", "unreadable"]


@dataclass(frozen=True)
class Verdict:
    """What verifying one result found. ``problems``: a sentence for each; empty where the outcome is ``verified``.
    ``result``: None where it is ``unreadable``."""

    result: Result | None
    outcome: Outcome
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """False where a figure differs, or could not be recomputed, or where an audit refutes the claim; also where it
        is said to be of an older scoring, which anybody can say."""
        return self.outcome in ("verified", "nothing-to-verify")

    def to_json(self) -> dict[str, Any]:
        names = {name: getattr(self.result, name, None) for name in ("result", "defense", "attack", "adversary")}
        return {**names, "outcome": self.outcome, "problems": list(self.problems)}


def verify(result: Result, scores: str | None, audits: int = 1) -> Verdict:
    """Recompute ``result``'s leakage from the text of its scores file (None: there is none to be found).

    Every figure's value, ends of the interval and counts must agree, values within ``TOLERANCE``; no figure may be
    missing or invented; a result is void exactly where its scores say so. Where they don't agree and the result says
    that an older scoring made it, the outcome is ``older``. An audit must not refute the claim, at ``FAMILY`` over the
    number of ``audits`` that are verified together (``bench.games.audit.refutes``).
    """
    if result.scores_sha256 is None:
        if result.leakage:
            return Verdict(result, "differs", ("it states leakage and names no scores",))
        return Verdict(result, "nothing-to-verify")
    if scores is None:
        return Verdict(result, "missing", (f"its scores ({result.scores_sha256}.json) are not there",))
    found = sha256(scores)
    if found != result.scores_sha256:
        return Verdict(result, "differs", (f"its scores were altered: their SHA-256 is {found}",))
    from bench.games.sheet import load as load_sheet

    try:
        sheet = load_sheet(scores)
        problems = _compare(result, sheet)
        refuted = _refuted(result, sheet, FAMILY / max(audits, 1))
    except UsageError as error:
        return Verdict(result, "differs", (f"its scores can't be read: {error}",))
    except (SiloBenchError, ArithmeticError, ValueError) as error:
        return Verdict(result, "differs", (f"nothing can be computed from its scores: {error}",))
    if problems:
        made_by = result.versions.get("SCORING", 0)
        older = made_by < SCORING and not refuted
        how = (f"its figures are of scoring {made_by}, and this silobench has {SCORING}",) if older else ()
        return Verdict(result, "older" if older else "differs", (*how, *problems, *refuted))
    return Verdict(result, "refuted" if refuted else "verified", tuple(refuted))


def _refuted(result: Result, sheet: Sheet, significance: float) -> list[str]:
    """By how canaries were guessed, never by an estimate. The claim is held at its own delta and at the smaller one for
    which the audit recorded it, each at half the ``significance``."""
    from bench.games.audit import comparable, refutes
    from bench.games.audit_sheet import AuditSheet

    claim = result.claim
    if not isinstance(sheet, AuditSheet) or claim is None or comparable(sheet.repeat, claim):
        return []
    found = []
    for epsilon, delta in _claims(result):
        if refutes(sheet, epsilon, delta, significance / 2):
            found.append(
                f"the audit proves that epsilon exceeds {epsilon:.4g} at delta {delta:.3g} (significance "
                f"{significance / 2:.2g}): what is claimed does not hold"
            )
    return found


def _claims(result: Result) -> list[tuple[float, float]]:
    """(epsilon, delta) of the claim, and as the audit recorded it at another delta; from a file of anybody."""
    claim, said = result.claim, (result.audit or {}).get("claims")
    if claim is None or claim.epsilon is None or claim.delta is None:
        return []
    own = (claim.epsilon, claim.delta)
    further = []
    for pair in said if isinstance(said, list) else ():
        numbers = pair if isinstance(pair, list) and len(pair) == 2 else ()
        if len(numbers) == 2 and all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
            further.append((float(numbers[0]), float(numbers[1])))
    pairs = [own, *[pair for pair in further if pair != own][:1]]
    return [(epsilon, delta) for epsilon, delta in pairs if 0 <= delta < 1]  # a delta of 1 promises nothing


def is_claimed_audit(result: Result) -> bool:
    """Whether a result may refute its claim, and so counts among those that are verified together."""
    claimed = result.claim is not None and result.claim.epsilon is not None
    return claimed and figure(result, GAMES["audit"].headline) is not None


def _compare(result: Result, sheet: Sheet) -> list[str]:
    from bench.games import leakage

    scored = leakage(sheet)
    problems = _figures(result.leakage, scored.leakage)
    if scored.void != (result.status == "void"):
        said, is_void = result.status, "void" if scored.void else "not void"
        problems.append(f"its status is '{said}', and its scores are {is_void}")
    return problems


def _figures(stated: Sequence[Leakage], recomputed: Sequence[Leakage]) -> list[str]:
    names = [one.name for one in stated]
    problems = [f"it states '{one_line(name)}' twice" for name in sorted(set(names)) if names.count(name) > 1]
    mine, theirs = {one.name: one for one in recomputed}, {one.name: one for one in stated}
    problems += [f"'{one_line(name)}' is stated, and the scores don't give it" for name in theirs if name not in mine]
    problems += [f"'{name}' is not stated, and the scores give it" for name in mine if name not in theirs]
    for name in [name for name in theirs if name in mine]:
        for part in ("value", "low", "high"):
            one, other = getattr(theirs[name], part), getattr(mine[name], part)
            if not _close(one, other):
                problems.append(f"{part} of '{name}' is stated as {one}, and the scores give {other}")
        if theirs[name].n != mine[name].n:
            problems.append(f"counts of '{name}' are stated as {theirs[name].n}, and the scores give {mine[name].n}")
        if theirs[name].over != mine[name].over:
            problems.append(f"'{name}' is stated as over {one_line(theirs[name].over)}, not {mine[name].over}")
    return problems


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0.0, abs_tol=TOLERANCE)


@dataclass(frozen=True)
class Source:
    """A result, and how its scores are found (None where they are not); or what is wrong with what stands for one."""

    result: Result | UsageError
    read: Callable[[Result], str | None]


def verify_all(sources: Sequence[Source]) -> list[Verdict]:
    """Verify results together: as many audits as there are among them share ``FAMILY``. What is wrong with one keeps no
    other from its verdict."""
    audits = sum(isinstance(one.result, Result) and is_claimed_audit(one.result) for one in sources)
    return [_verdict(one, audits) for one in sources]


def _verdict(one: Source, audits: int) -> Verdict:
    if isinstance(one.result, UsageError):
        return Verdict(None, "unreadable", (str(one.result),))
    try:
        scores = one.read(one.result)
    except UsageError as error:
        return Verdict(one.result, "differs", (f"its scores can't be read: {error}",))
    return verify(one.result, scores, audits)


def of_store(store: Store, result_ids: Iterable[str] = ()) -> list[Source]:
    """Stored results: those named, or all. Raises UsageError on an id that the store does not have."""
    named: list[Result | UsageError] = [stored(store, result_id) for result_id in result_ids]
    wanted = named or [_kept(store, result_id) for result_id in store.result_ids()]
    return [Source(result, _reader(store.root)) for result in wanted]


def _kept(store: Store, result_id: str) -> Result | UsageError:
    try:
        return stored(store, result_id)
    except UsageError as error:
        return error


def of_file(path: Path) -> list[Source]:
    """A jsonl file of results. Scores are looked for in ``scores/`` beside its folder, then beside itself."""
    read = _reader(path.parent.parent, path.parent)
    return [Source(result, read) for _, result in each_line(path)]


def of_leaderboards(folder: Path) -> list[Source]:
    """Everything below a ``leaderboards`` folder."""
    results, faults = load_sound(folder)
    found: tuple[Result | UsageError, ...] = (*results, *faults)
    return [Source(result, _reader(folder)) for result in found]


def verify_store(store: Store, result_ids: Iterable[str] = ()) -> list[Verdict]:
    """Verify ``of_store``."""
    return verify_all(of_store(store, result_ids))


def verify_file(path: Path) -> list[Verdict]:
    """Verify ``of_file``."""
    return verify_all(of_file(path))


def verify_leaderboards(folder: Path) -> list[Verdict]:
    """Verify ``of_leaderboards``."""
    return verify_all(of_leaderboards(folder))


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0 where everything that states a figure was verified, else 1."""
    return 0 if all(verdict.good for verdict in verdicts) else 1


def _reader(*folders: Path) -> Callable[[Result], str | None]:
    """Finds a result's scores in ``scores/`` of one of ``folders``, unchecked: ``verify`` checks the SHA-256."""

    def read(result: Result) -> str | None:
        digest = result.scores_sha256 or ""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            return None  # from a file that anyone may have written: no path is made of it
        texts = (read_sheet(folder, digest) for folder in folders)
        return next((text for text in texts if text is not None), None)

    return read
