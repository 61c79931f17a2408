"""Gaussian noise on an update whose length nothing bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.update import Update
from bench.defense.contexts import TransformContext
from bench.defense.parts import Transform


class UpdateNoise(Transform):
    """Adds independent normal noise, from the silo's secret randomness, to every value that travels.

    Standard deviation: ``sd`` times learning rate times nominal steps of the round (``of="step"``: about the most that
    AdamW moves a value by, and public for any optimiser), or ``sd`` itself (``of="value"``). No promise: a record's
    influence on the update is not bounded, so no noise hides it by a known factor.
    """

    def __init__(self, sd: float, of: Literal["step", "value"]) -> None:
        self.sd, self.of = sd, of

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises SiloBenchError for an update on a grid. A norm bound does not survive: noise has none."""
        if update.grid is not None:
            raise SiloBenchError("noise of real numbers can't be added to integers: put it before what makes them")
        sd = self.sd * (context.lr * context.steps if self.of == "step" else 1.0)
        drawn = context.secret.generator("update noise", context.round).standard_normal(len(update.values))
        return replace(update, values=(update.values + sd * drawn).astype(np.float32), norm_bound=None)
