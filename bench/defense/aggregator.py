"""What is summed, how a sum becomes the next global adapter, and what the opener does to that: no torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.streams import State
from bench.core.update import Array, Layout, Update
from bench.defense.contexts import OpenContext
from bench.defense.flow import Flow, refuse_former
from bench.defense.parts import Mechanism, Promise
from bench.defense.public import Public

_LAID_OUT = "'plan' lays a federation out"
_STEPS = "a ServerStep in the defense's 'steps' does that"
_FOLLOW = "'follow' answers with the flow that leaves the part"
_FORMER = {
    "summed": _LAID_OUT,
    "state": _LAID_OUT,
    "personal": _LAID_OUT,
    "slot": _LAID_OUT,
    "bound": "'summand', 'apply' and the like are handed 'public'",
    "weights": "'apply' is handed the silos, and their weights stand in 'public.weights'",
    **dict.fromkeys(("randomise", "step", "unstep", "has_memory", "openers", "promise"), _STEPS),
    **dict.fromkeys(("sparse", "dense_because", "keeps_norm", "fresh", "needs_norm"), _FOLLOW),
}


@dataclass(frozen=True)
class Plan:
    """How an aggregator lays a federation out.

    ``summed``: the layout of a summand. ``state``: of the global adapter: the tensors of what silos train, and what
    else the model has to carry (dense changes of its frozen weights: ``bench.model.products.with_products``).
    ``personal``: the coordinates (sorted indices) that every silo keeps for itself: it trains on with its own values,
    never sends them, and no global adapter follows them; None: all are shared. ``slots``: by silo, the coordinates of a
    sum that it alone fills, so that whoever reads a sum reads them of each silo.
    """

    summed: Layout
    state: Layout
    personal: NDArray[np.int64] | None = None
    slots: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)


class Aggregator(ABC):
    """What is summed, and how a sum becomes the next global adapter. Runs at whoever opens the sum.

    All arrays are flat: updates of the adapter's layout, summands and sums of ``Plan.summed``, global adapters of
    ``Plan.state``. It holds nothing of a federation: ``public`` names its layouts, silos and weights.
    """

    #: who opens sums where the defense brings no channel
    opener: Literal["server", "silos"] = "server"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_former(cls, _FORMER)

    def follow(self, flow: Flow) -> Flow:
        """``flow`` as it leaves ``summand``. Raises UsageError where it can't work on what reaches it."""
        return flow

    def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
        """For silos that train ``adapter``."""
        return Plan(adapter, adapter)

    @abstractmethod
    def weight(self, nominal_size: int) -> int:
        """The public integer weight of a silo of ``nominal_size`` records (1 for an unweighted mean)."""

    @abstractmethod
    def summand(self, update: Update, global_adapter: Array, public: Public) -> Update:
        """What the silo (``update.silo``) hands to the channel; the channel sums these over silos."""

    @abstractmethod
    def apply(
        self, total: NDArray[np.floating], silos: Sequence[str], global_adapter: Array, public: Public
    ) -> NDArray[np.floating]:
        """The next global adapter from the sum of the summands of ``silos``, as exactly as it is computed (float64
        where the release may carry it): whoever opens the sum rounds it to float32 before anybody trains."""

    @abstractmethod
    def implied_total(
        self, before: Array, after: Array, silos: Sequence[str], public: Public
    ) -> NDArray[np.float64] | None:
        """The sum that turned ``before`` into ``after``: what anyone who sees both adapters learns. None if lost."""

    @abstractmethod
    def implied_adapter(
        self, summand: NDArray[np.floating], weight: int, global_adapter: Array, public: Public
    ) -> Array:
        """The silo's own adapter after training, from its summand."""


class ServerStep:
    """One link of the chain of what whoever opens a sum does besides the aggregator: noise on the sum before it is
    applied, or another move than the aggregator's. Links act in the order in which a defense names them.

    A step's ``memory`` is explicit, its own, and empty at the start; it follows from the sums alone, so that everybody
    who opens all of them keeps the same.
    """

    #: what this step promises, or None
    promise: Promise | None = None
    #: True where every silo counts as one, and a sum is divided by the number of silos that the schedule called
    counts_called: bool = False
    #: True where ``move`` keeps something in ``memory`` for later rounds
    has_memory: bool = False

    def follow(self, flow: Flow) -> Flow:
        """``flow`` behind this step. Raises UsageError where it can't work on what reaches it."""
        return flow

    def randomise(
        self, total: NDArray[np.floating], context: OpenContext
    ) -> tuple[NDArray[np.floating], Mechanism | None]:
        """A sum with the opener's own noise, before it is applied, and what that noise was."""
        return total, None

    def move(self, change: NDArray[np.float64], memory: State) -> NDArray[np.float64]:
        """How the global adapter moves where it would move by ``change`` without this step."""
        return change

    def undo(self, moved: NDArray[np.float64], memory: State) -> NDArray[np.float64] | None:
        """The inverse of ``move``, for who saw a move of ``moved``; ``memory`` becomes that after the move. None where
        the change can't be told. A step that moves and has no inverse says so by None."""
        return moved if type(self).move is ServerStep.move else None
