"""Who reads what: the coefficients of the silos' summands in a view's readings, for the accountant."""

from __future__ import annotations

from bench.privacy import Row
from bench.view.view import View


def exposed_rows(view: View) -> dict[int, list[Row]]:
    """By round, the coefficients of the silos' summands in each thing that a view's coalition reads.

    A reading of several rounds counts as one of each. Of a difference (of two plaintexts, or of their words) every part
    counts as read by itself.
    """
    found: dict[int, list[Row]] = {}
    for reading in view.readings:
        parts: dict[int, dict[str, int]] = {}
        for round, silo, coefficient in reading.terms:
            parts.setdefault(round, {})[silo] = coefficient
        for round, row in parts.items():
            alone = reading.kind in ("difference", "xor")
            found.setdefault(round, []).extend([{silo: 1} for silo in row] if alone else [row])
    return found
