"""Whether an answer is the recorded one: digit by digit where it was made on such a machine, else within a tolerance.

What is counted or named (statuses, readings, members, n, notes) is the same everywhere. Numbers differ between
processors in their last bits, and TenSEAL draws its randomness from the system whatever the secret seed, so that what
it seals differs from run to run: ``ckks``, ``fedshield``, ``selective-ckks``. The sums of ``bfv`` are exact, and only
the size of its compressed keys varies. Everything else repeats to the bit in another process. Measured over all cells,
as the largest deviation from what is recorded (made with AVX-512): two repetitions; torch, MKL, oneDNN and OpenBLAS
held to AVX2; and to SSE, with torch's plain code and MKL's compatible one.

                                            repeated    AVX2      SSE       allowed
    scores, sealed (of their spread)        0.004       0.006     0.008     0.02
    scores, others                          0           0.0012    0.0015    0.005
    scores that count                       0.05        0.1       0.1       0.25
    grades in [0, 1]                        0.06        0.12      0.12      0.35
    figures, which follow from ranks        0.006       0.03      0.1       0.3
    usefulness (of what training moved)     0.001       0.006     0.003     0.02
    bytes                                   0.003       0.003     0.0032    0.01
    epsilon, noise                          0           0         0         1e-6

A grade is a count of tokens or a rank among ten choices, of which one last bit may move a step; hence its margin.
Figures are held to more than that: those of a recorded sheet are derived from it anew, and must be the same to six
digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.games.sheet import leakage, load
from bench.spec.canonical import write
from tests.golden.cells import Answer, rounded, unshared

#: TenSEAL's randomness is in their sums, and in the size of their compressed keys and ciphertexts
SEALED = frozenset({"ckks", "fedshield", "selective-ckks"})
#: its sums are exact, so that its size alone varies
EXACT_SUM = "bfv"
#: scores that count tokens, or records of the population: the last bit of a model moves one by a whole step
COUNTED = frozenset({"accuracy", "accuracy-base", "wbc", "rmia-base", "rmia-offline", "rmia-online"})
#: what is counted of scores, after a threshold
PAST_A_THRESHOLD = frozenset({"true_positives", "false_positives", "guesses", "correct"})
#: sizes that no compression changes
WHOLE = frozenset({"parameters", "trained_tokens"})


@dataclass(frozen=True)
class Tolerance:
    """Largest deviations: of ``scores`` and of those that are ``counted``, in their spread over the candidates; of
    ``grades``; of ``figures``, which follow from ranks; of ``utility``, in what training moved; of ``size``s; and of
    epsilons and noise (``claims``), relative."""

    scores: float = 0.0
    counted: float = 0.0
    grades: float = 0.0
    figures: float = 0.0
    utility: float = 0.0
    size: float = 0.0
    claims: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether nothing but sizes may differ."""
        return not any((self.scores, self.counted, self.grades, self.figures, self.utility, self.claims))


#: on another processor, and under TenSEAL's seal anywhere
ELSEWHERE = Tolerance(0.005, 0.25, 0.35, 0.3, 0.02, 0.01, 1e-6)
UNDER_SEAL = replace(ELSEWHERE, scores=0.02)


def tolerance(defense: str, golden: Answer, fresh: Answer) -> Tolerance:
    """What may differ between two answers under ``defense``."""
    if defense in SEALED:
        return UNDER_SEAL
    if golden["made"] != fresh["made"]:
        return ELSEWHERE
    return Tolerance(size=ELSEWHERE.size) if defense == EXACT_SUM else Tolerance()


def disagreements(golden: Answer, fresh: Answer, allowed: Tolerance) -> list[str]:
    """Where ``fresh`` is not what is recorded, as sentences; none where it is."""
    one, other = unshared(golden), unshared(fresh)
    if not allowed.exact:
        one, other = _loosened(one), _loosened(other)
    return list(_differing("", one, other, allowed))


def _loosened(content: Mapping[str, Any]) -> dict[str, Any]:
    """Without what follows from the rest (a figure's note, counts past a threshold: ``unfounded`` derives them anew),
    and grades in order of their size, by which a sheet sorts its rows."""
    cells = {}
    for who, cell in content.get("cells", {}).items():
        figures = [
            {**f, "note": "", "n": {k: v for k, v in f["n"].items() if k not in PAST_A_THRESHOLD}}
            for f in cell["figures"]
        ]
        cells[who] = {**cell, "figures": figures, "sheet": cell["sheet"] and _by_size(cell["sheet"])}
    return {**content, "cells": cells}


def _by_size(sheet: Mapping[str, Any]) -> dict[str, Any]:
    if "trials" in sheet:
        rows = [row[:2] for row in sheet["trials"]]
        sides = {"answer": [row[2] for row in sheet["trials"]], "baseline": [row[3] for row in sheet["trials"]]}
        return {**sheet, "trials": rows, "grades": {name: _columns(side) for name, side in sides.items()}}
    if "targets" in sheet:
        targets = sheet["targets"]
        rows = [[t["round"], t["silo"], t["steps"], len(t["units"])] for t in targets]
        found = {}
        for side in ("answer", "baseline"):
            given = [t[side] for t in targets if t[side] is not None]
            found[side] = _columns([row for one in given for row in one["records"]])
            found[f"{side} of a target"] = _columns([one["target"] for one in given])
        return {**sheet, "targets": rows, "grades": found}
    return dict(sheet)


def _columns(rows: Sequence[Sequence[float] | None]) -> dict[str, list[float]]:
    known = [row for row in rows if row is not None]
    return {str(k): sorted(float(v) for v in column) for k, column in enumerate(zip(*known, strict=True))}


def _differing(where: str, one: Any, other: Any, allowed: Tolerance) -> list[str]:
    """The walk: dictionaries and lists entry by entry, columns of numbers as wholes."""
    if _column(one) and _column(other) and len(one) == len(other):
        worst = max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0.0)
        limit = _limit(where, one, allowed)
        return [] if worst <= limit else [f"{where}: {worst:.3g} from what is recorded, where {limit:.3g} is allowed"]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        if where.startswith("/run/utility") and "curve" in one:
            return _usefulness(where, one, other, allowed)
        return [line for key in one for line in _differing(f"{where}/{key}", one[key], other[key], allowed)]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for k, (a, b) in pairs for line in _differing(f"{where}/{_name(a, k)}", a, b, allowed)]
    if _number(one) and _number(other):
        return _differing(where, [one], [other], allowed)
    return [] if one == other else [f"{where}: {str(other)[:100]}, where {str(one)[:100]} is recorded"]


def _limit(where: str, recorded: Sequence[float], allowed: Tolerance) -> float:
    """How far the numbers at ``where`` may be from those that are recorded."""
    *_, parent, name = ["", *where.split("/")]
    counted = name.partition("@")[0] in COUNTED
    size = max(abs(v) for v in recorded) if recorded else 0.0
    rules: dict[str, Callable[[], float]] = {
        "/sheet/scores/": lambda: (allowed.counted if counted else allowed.scores) * _spread(recorded),
        "/sheet/baseline/": lambda: allowed.scores * _spread(recorded),
        "/sheet/grades/": lambda: allowed.grades,
        "/bytes/": lambda: 0.0 if name in WHOLE else allowed.size * size,
        "/figures/": lambda: 0.0 if parent == "n" else allowed.figures * max(1.0, size),
        "/audit/": lambda: allowed.figures * max(1.0, size),
        "/claim/": lambda: allowed.claims * size,
        "/run/mechanisms/": lambda: allowed.claims * size,
        "/run/sums/": lambda: allowed.claims * size,
    }
    return next((rule() for part, rule in rules.items() if part in where), 0.0)


def _usefulness(where: str, one: Mapping[str, Any], other: Mapping[str, Any], allowed: Tolerance) -> list[str]:
    """A metric beside the base model's: measured in what training moved, as that is little beside the metric."""
    moved = max(abs(value - one["base"]) for value in one["curve"])
    found = []
    for key in one:
        a, b = (list(v) if isinstance(v, list) else [v] for v in (one[key], other[key]))
        limit = allowed.utility * moved + allowed.claims * abs(one["base"])
        near = _column(a) and _column(b) and all(abs(x - y) <= limit for x, y in zip(a, b, strict=True))
        if not (a == b or (near and key != "n")):
            found.append(f"{where}/{key}: {b}, where {a} is recorded and {limit:.3g} allowed")
    return found


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values) or abs(values[0])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _column(value: Any) -> bool:
    return isinstance(value, list) and all(_number(one) for one in value)


def _name(value: Any, number: int) -> str:
    return str(value["name"]) if isinstance(value, dict) and "name" in value else str(number)


def unfounded(golden: Answer) -> list[str]:
    """Figures that do not follow from the recorded sheet, derived anew by today's statistics: on any machine, as no
    model takes part. Sheets are kept to nine digits, so their figures are compared to six."""
    wrong, known = [], {}
    for who, cell in unshared(golden).get("cells", {}).items():
        if cell["sheet"] is not None:
            text = write(cell["sheet"])
            if text not in known:
                known[text] = [f.model_dump(mode="json") for f in leakage(load(text)).leakage]
            wrong += [f"/{who}{line}" for line in _unequal("", rounded(known[text]), cell["figures"])]
    return wrong


def _unequal(where: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, float) and isinstance(other, float):
        return [] if math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9) else [f"{where}: {one} is not {other}"]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in _unequal(f"{where}/{key}", one[key], other[key])]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for k, (a, b) in pairs for line in _unequal(f"{where}/{_name(a, k)}", a, b)]
    return [] if one == other else [f"{where}: {one} is not {other}"]
