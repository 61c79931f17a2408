"""How many silos must survive, and how many may collude.

Bonawitz et al. 2017, section 6: with n silos in a round and at most c of them colluding with the server, privacy holds
against a server that follows the protocol if t > c, and against one that does not if 2t > n + c, with signed keys and
the consistency check. (Such a server may name different survivors to different silos, to get shares of both secrets of
one silo: t of each. Colluders give both, an honest silo one: 2t <= n - c + 2c would be enough.) Whatever happens, a sum
with fewer than two silos that don't collude is never opened: it would be one silo's update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.core.errors import UsageError

Setting = Literal["curious", "active"]


@dataclass(frozen=True)
class Limits:
    """For a round of ``silos`` silos. ``threshold``: shares that give a secret. ``minimum``: the fewest survivors that
    a silo reveals anything for."""

    silos: int
    threshold: int
    minimum: int


@dataclass(frozen=True)
class Policy:
    """``setting``: what the server is assumed to do. ``colluders``: the most silos that are assumed to tell the server
    all that they know. ``threshold``: None takes more than half of the silos of a round (active: more than half of the
    silos and the colluders together), and more than ``colluders``."""

    setting: Setting = "curious"
    colluders: int = 0
    threshold: int | None = None

    @property
    def active(self) -> bool:
        return self.setting == "active"

    @property
    def fewest(self) -> int:
        """The fewest silos that a round can have."""
        return max(self.threshold or 2, self.colluders + 2)

    def limits(self, silos: int) -> Limits:
        """Raises UsageError where the settings don't protect, or can't work with, ``silos`` silos in a round."""
        if silos < self.fewest:
            raise UsageError(
                f"secagg: {self.colluders} colluders and threshold {self.threshold or 'by default'} need at least "
                f"{self.fewest} silos in a round, not {silos}: a sum must hide an honest silo among others."
            )
        half = (silos + (self.colluders if self.active else 0)) // 2 + 1
        threshold = self.threshold if self.threshold is not None else max(half, self.colluders + 1)
        if threshold < 2 or threshold <= self.colluders:
            raise UsageError(
                f"secagg: threshold {threshold} lets {max(self.colluders, 1)} silos put shared secrets together; "
                f"it must be at least {max(2, self.colluders + 1)}."
            )
        if self.active and 2 * threshold <= silos + self.colluders:
            raise UsageError(
                f"secagg: against an active server twice the threshold must exceed silos and colluders together: "
                f"2 x {threshold} <= {silos} + {self.colluders}."
            )
        return Limits(silos, threshold, max(threshold, self.colluders + 2))
