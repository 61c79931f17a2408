"""DP-SGD tuned for utility: so little noise that the model is as good as without, and no epsilon worth the name.

The baseline of Aerni, Zhang and Tramer 2024 ("Evaluations of Machine Learning Privacy Defenses are Misleading"):
defenses without a proof are to be compared with DP-SGD at their own utility, where clipping and a little noise already
protect in practice. The epsilon is computed and printed like any other; it is in the hundreds or thousands.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``sigma``: the noise multiplier, fixed, since no noise is calibrated to an epsilon of this size. ``clip``: the L2
    norm that a record's gradient is cut to; below the usual norms, so that records count alike, which an optimiser that
    normalises (AdamW) does not feel. The others as in dp-sgd."""

    sigma: float = Field(0.03, gt=0)
    clip: float = Field(0.1, gt=0)
    delta: float | None = Field(None, gt=0, lt=1)
    microbatch: int = Field(8, ge=1)
    gradients: Literal["fast", "opacus"] = "fast"


def build(config: Config) -> Defense:
    from defenses.trainers.dp_sgd import DPSGD

    return Defense(trainer=DPSGD(None, **dict(config), name="dp-sgd-high-utility"))
