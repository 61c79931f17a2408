"""Updates clipped to an L2 norm: no silo can pull the model further than the others."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from bench import Config as BaseConfig
from bench import Defense, Transform, TransformContext, Update
from silobench_example.clipping import clipped

api = 1


class Config(BaseConfig):
    """``bound``: the largest L2 norm of an update."""

    bound: float = Field(1.0, gt=0, le=1e6)


class NormClip(Transform):
    """Shrinks an update whose norm is above ``bound``."""

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def apply(self, update: Update, context: TransformContext) -> Update:
        """The update in its direction, no longer than ``bound``; the bound is then stated for what follows."""
        return replace(update, values=clipped(update.values, self.bound), norm_bound=self.bound)


def build(config: Config) -> Defense:
    return Defense(transforms=(NormClip(config.bound),))
