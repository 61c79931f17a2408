"""In words: which releases give the key away, and from which precision on this attack finds none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.ckks.published import PRECISIONS
from attacks.ckks.recovery import ENOUGH, HOW

if TYPE_CHECKING:
    from bench.view import View


def outlook(view: View) -> dict[str, str]:
    """For ``Guesses.missing``: what coarser releases would have hidden. Empty where no key was looked for."""
    for reading in view.readings:
        if reading.kind == "metadata" and HOW in reading.how and reading.path is not None:
            left = dict(zip(PRECISIONS, reading.values.tolist(), strict=True))
            return {"key from coarser averages": sentence(left)}
    return {}


def sentence(left: dict[str, float]) -> str:
    """``left``: by precision, the deviation of the second best known sum in units of its coefficients."""
    known = ", ".join(f"{value:.2g} at {precision}" for precision, value in left.items())
    hidden = [precision for precision, value in left.items() if value > ENOUGH]
    safe = f"{listed(hidden)} would stop this attack" if hidden else "no precision offered would stop this attack"
    return f"averages leave of two sums' coefficients {known}, and {ENOUGH:g} is enough; {safe}, which proves nothing"


def listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
