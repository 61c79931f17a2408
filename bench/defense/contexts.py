"""What the parts of a defense know while they act: of the round, and for secrets and memory, of their own party."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.core.streams import SecretStreams, State

if TYPE_CHECKING:
    from bench.defense.public import Public


@dataclass(frozen=True, kw_only=True)
class RoundContext:
    """What everybody knows of a round. ``lr``: its learning rate; ``steps``: optimiser steps at a silo of nominal size;
    ``global_adapter``: the adapter that silos train from in it, of ``public.adapter`` (public to those who train and to
    whoever opens its sum).

    ``reach``: about how large a summand's values get per unit of weight: what the optimiser moves a value by in the
    round's steps, and what the summand of a silo that learnt nothing holds. None where nothing public bounds it.
    """

    public: Public
    round: int
    global_adapter: NDArray[np.float32]
    lr: float
    steps: int
    reach: float | None = None

    @property
    def rounds(self) -> int:
        return self.public.rounds


@dataclass(frozen=True, kw_only=True)
class TransformContext(RoundContext):
    """What a transform may use besides: this silo's secret randomness, and its own state."""

    secret: SecretStreams
    state: State


@dataclass(frozen=True, kw_only=True)
class OpenContext(RoundContext):
    """What an aggregator may use besides, where a sum was opened: the opener's secret randomness. ``support`` gives
    the coordinates of the round that were sent (sorted; None: all), and is worked out only when asked."""

    secret: SecretStreams
    support: Callable[[], NDArray[np.int64] | None]
