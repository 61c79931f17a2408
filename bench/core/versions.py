"""What the harness's numbers mean: raised by one when a change moves them, so that no board ranks old beside new.

Plug-ins say ``version`` of themselves beside ``api``. Golden cells (tests/golden) are keyed by all of these: a number
that moves without a new version fails there.
"""

from __future__ import annotations

#: what a finished training is: partition, planting, rounds, what is released, utility and cost
TRAINING = 2
#: what a coalition reads of a transcript, and what a game asks beside it: the scores that see no view
VIEWS = 2
#: what a sheet of scores is turned into: figures and intervals. A change is computed anew from the sheets
SCORING = 2


def harness() -> dict[str, int]:
    """The three, by the names that results have for them."""
    return {"TRAINING": TRAINING, "VIEWS": VIEWS, "SCORING": SCORING}
