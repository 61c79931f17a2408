"""Recomputes the leakage of results from their stored scores: a figure that nobody can recompute is no figure.

Trusted are the scores (whose SHA-256 the result names; a reconstruction's are grades) and the harness's own statistics;
nothing is trained, no model is loaded, and no record's text is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.errors import UsageError
from bench.files import read_text
from bench.leaderboard import load, read_lines
from bench.result import Leakage, Result
from bench.store import Store, sha256
from bench.tables import one_line

#: largest difference between a stated figure and the recomputed one
TOLERANCE = 1e-9
Outcome = Literal["verified", "differs", "missing", "nothing-to-verify"]


@dataclass(frozen=True)
class Verdict:
    """What verifying one result found. ``problems``: a sentence for each; empty where the outcome is ``verified``."""

    result: Result
    outcome: Outcome
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """False where a figure differs, or where it could not be recomputed."""
        return self.outcome in ("verified", "nothing-to-verify")

    def to_json(self) -> dict[str, Any]:
        return {
            "result": self.result.result,
            "defense": self.result.defense,
            "attack": self.result.attack,
            "adversary": self.result.adversary,
            "outcome": self.outcome,
            "problems": list(self.problems),
        }


def verify(result: Result, scores: str | None) -> Verdict:
    """Recompute ``result``'s leakage from the text of its scores file (None: there is none to be found).

    Every figure's value, ends of the interval and counts must agree, values within ``TOLERANCE``; no figure may be
    missing or invented; a result is void exactly where its scores say so.
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
    try:
        problems = _compare(result, scores)
    except UsageError as error:
        problems = [f"its scores can't be read: {error}"]
    return Verdict(result, "differs" if problems else "verified", tuple(problems))


def _compare(result: Result, scores: str) -> list[str]:
    from bench.games import leakage
    from bench.games.sheet import load as load_sheet

    scored = leakage(load_sheet(scores))
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


def verify_store(store: Store, result_ids: Iterable[str] = ()) -> list[Verdict]:
    """Verify stored results: those named, or all. Raises UsageError on an id that the store does not have."""
    wanted = [_stored(store, result_id) for result_id in result_ids] or list(store.results())
    return [verify(result, _reader(store.root)(result)) for result in wanted]


def verify_file(path: Path) -> list[Verdict]:
    """Verify a jsonl file of results. Scores are looked for in ``scores/`` beside its folder, then beside itself."""
    read = _reader(path.parent.parent, path.parent)
    return [verify(result, read(result)) for _, result in read_lines(path)]


def verify_leaderboards(folder: Path) -> list[Verdict]:
    """Verify everything below a ``leaderboards`` folder."""
    return [verify(result, _reader(folder)(result)) for result in load(folder)]


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0 where everything that states a figure was verified, else 1."""
    return 0 if all(verdict.good for verdict in verdicts) else 1


def _stored(store: Store, result_id: str) -> Result:
    result = store.result(result_id)
    if result is None:
        raise UsageError(f"The store {store.root} has no result {result_id}.")
    return result


def _reader(*folders: Path) -> Callable[[Result], str | None]:
    """Finds a result's scores in ``scores/`` of one of ``folders``, unchecked: ``verify`` checks the SHA-256."""

    def read(result: Result) -> str | None:
        digest = result.scores_sha256 or ""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            return None  # from a file that anyone may have written: no path is made of it
        texts = (read_text(folder / "scores" / f"{digest}.json") for folder in folders)
        return next((text for text in texts if text is not None), None)

    return read
