"""In words: which releases give the key away, and from which precision on this attack finds none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attacks.ckks.published import PRECISIONS, Precision

if TYPE_CHECKING:
    from bench.view.view import View

#: how what this attack opened is named in a view
HOW = "CKKS key from published averages"
#: a sum whose coefficients are known to so many units (a deviation) is about the least that can be taken apart
ENOUGH = 0.2


def outlook(view: View) -> dict[str, str]:
    """For ``Guesses.missing``: what coarser releases would have hidden. Empty where no key was looked for."""
    for reading in view.readings:
        if reading.kind == "metadata" and HOW in reading.how and reading.path is not None:
            left = dict(zip(PRECISIONS, reading.values.tolist(), strict=True))
            return {"key from coarser averages": sentence(left)}
    return {}


def sentence(left: Mapping[Precision, float]) -> str:
    """``left``: by precision of the release, the deviation to which the second best known sum's coefficients are
    known."""
    known = ", ".join(f"{value:.2g} at {precision}" for precision, value in left.items())
    hidden = [precision for precision, value in left.items() if value > ENOUGH]
    names = " and ".join(filter(None, [", ".join(hidden[:-1]), *hidden[-1:]]))
    verdict = f"releases at {names} are out of its reach" if hidden else "no precision on offer is out of its reach"
    return (
        f"published averages leave open of the sums' integer coefficients {known}, and up to about {ENOUGH:g} is "
        f"within this attack's reach: {verdict}, which is no proof of safety"
    )
