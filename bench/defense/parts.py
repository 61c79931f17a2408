"""The parts a defense is made of, and what they promise. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.streams import SecretStreams, State
from bench.core.update import Layout, Update, Values
from bench.corpus.task import Record
from bench.defense.contexts import OpenContext, RoundContext, TransformContext

if TYPE_CHECKING:
    from bench.core.tokens import Tokens
    from bench.defense.public import Public
    from bench.model.lora import LoraModel
    from bench.spec.run import LocalSpec


@dataclass(frozen=True)
class Mechanism:
    """What a privacy mechanism really did in one round at one party, for the accountant (``bench.privacy``).

    ``kind``: "poisson-gaussian" (fields rate, sigma, steps) or another kind that ``bench.privacy`` knows.
    ``sigma`` is the noise multiplier: standard deviation of the noise over the L2 sensitivity. ``round``: filled in by
    the harness when it reads its notes.
    """

    kind: str
    params: Mapping[str, float]
    round: int = field(default=-1, compare=False)


@dataclass(frozen=True)
class Promise:
    """What a part claims: the unit and adjacency protected, and against which coalitions it holds.

    ``against(coalition, victim)`` is True where the promise holds for the records of silo ``victim`` towards the
    parties in ``coalition`` (names as in ``bench.core.parties``). Epsilon is never stated here: the harness computes it
    from the logged mechanisms.
    """

    unit: Literal["record", "group", "silo"]
    adjacency: Literal["add-remove", "replace", "zero-out"]
    against: Callable[[frozenset[str], str], bool]
    note: str = ""


@dataclass
class TrainJob:
    """Everything a trainer gets for one silo and one round. The model's adapter is already the global one."""

    model: LoraModel
    tokens: Tokens
    local: LocalSpec
    lr: float
    round: int
    rounds: int
    nominal_size: int
    order: np.random.Generator
    secret: SecretStreams
    state: State


@dataclass(frozen=True)
class Training:
    """What a trainer did. ``losses``: mean training loss per step; ``batches``: indices into the silo's records of
    every step (empty tuples for empty batches), kept as truth for the reconstruction game, never in a view."""

    steps: int
    tokens: int
    losses: tuple[float, ...]
    batches: tuple[tuple[int, ...], ...]
    mechanisms: tuple[Mechanism, ...] = ()


class Trainer(ABC):
    """Turns records into a changed adapter, in place on ``job.model``; the harness takes the difference."""

    #: what this trainer promises, or None
    promise: Promise | None = None

    @abstractmethod
    def train(self, job: TrainJob) -> Training: ...

    def plan(self, rounds: int, local: LocalSpec, nominal_size: int) -> Sequence[Mechanism]:
        """The mechanisms that a whole run will log at one silo, for calibration and ``--dry-run``."""
        return ()


class Transform(ABC):
    """Changes an update before it leaves the silo.

    Transforms that give real values act on the update; the aggregator then makes the summand of it; those from the
    first on that gives a grid act on the summand, so that what travels are plain sums of integers.
    """

    accepts: frozenset[Values] = frozenset({"real"})
    gives: Values = "real"
    #: True where ``support`` may name one
    sparse: bool = False
    #: what this transform promises, or None
    promise: Promise | None = None
    #: whether ``apply`` gives an update a norm bound, keeps the one that it has, or drops it
    norm: Literal["bounds", "keeps", "drops"] = "drops"
    #: True where it works on updates with a norm bound only, as noise does
    needs_norm: bool = False
    #: True where what it adds protects only as part of a sum, so that nothing may follow it
    only_in_sums: bool = False
    #: True where what it leaves out of one round's update is added to a later one's
    carries: bool = False

    @abstractmethod
    def apply(self, update: Update, context: TransformContext) -> Update: ...

    def mechanism(self, update: Update, context: RoundContext) -> Mechanism | None:
        """What ``apply`` does to ``update`` for its silo's privacy, for the accountant."""
        return None

    def support(self, context: RoundContext) -> NDArray[np.int64] | None:
        """The coordinates (sorted indices) that ``apply`` leaves in this round, from public things alone; None: all."""
        return None


class RecordsPart(ABC):
    """Decides what a silo trains on (deduplication, scrubbing)."""

    #: True where what becomes of a record depends on that record alone, so that silos which differ in one record differ
    #: in one afterwards: a private trainer's promise about single records holds only then
    per_record: bool = False

    @abstractmethod
    def apply(self, records: Sequence[Record]) -> Sequence[Record]: ...


class Aggregator(ABC):
    """What is summed, and how a sum becomes the next global adapter. Runs at whoever opens the sum.

    All arrays are flat: updates of the adapter's layout, summands and sums of ``summed``, global adapters of ``state``.
    Both are the adapter's layout, unless an aggregator says otherwise.
    """

    #: False where a summand of 0 does not mean "as it was", so that no coordinate may be left unsent
    sparse: bool = True
    #: why not, as the end of a sentence about it
    dense_because: str = "sums whole weights, where unsent would mean 0"
    #: False where ``summand`` never has a norm bound, whatever the update's
    keeps_norm: bool = True
    #: True where silos begin every round with new factors, so that what a silo owes of old ones can't be sent later
    fresh: bool = False
    #: who opens sums where the defense brings no channel
    opener: Literal["server", "silos"] = "server"
    #: what this aggregator promises, or None
    promise: Promise | None = None
    #: True where every summand must have a norm bound
    needs_norm: bool = False
    #: True where ``step`` keeps a memory
    has_memory: bool = False
    #: who may open its sums
    openers: frozenset[str] = frozenset({"server", "silos"})

    def summed(self, adapter: Layout, silos: Sequence[str]) -> Layout:
        """The layout of a summand, for silos that train ``adapter``."""
        return adapter

    def state(self, adapter: Layout) -> Layout:
        """The layout of the global adapter: the tensors of ``adapter``, from which silos train, and what else the model
        has to carry (dense changes of its frozen weights: ``bench.model.products.with_products``)."""
        return adapter

    def bound(self, public: Public) -> Aggregator:
        """This aggregator for one federation, where what follows must know its layouts and silos. The harness calls it
        once, before all that is below."""
        return self

    def slot(self, silo: str) -> NDArray[np.int64] | None:
        """The coordinates (sorted indices) of a sum that ``silo`` alone fills, so that whoever reads a sum reads them
        of each silo. None: there are none."""
        return None

    def personal(self, layout: Layout) -> NDArray[np.int64] | None:
        """The coordinates (sorted indices) that every silo keeps for itself: it trains on with its own values, never
        sends them, and no global adapter follows them. None: all are shared."""
        return None

    @abstractmethod
    def weight(self, nominal_size: int) -> int:
        """The public integer weight of a silo of ``nominal_size`` records (1 for an unweighted mean)."""

    @abstractmethod
    def summand(self, update: Update, global_adapter: NDArray[np.float32]) -> Update:
        """What the silo (``update.silo``) hands to the channel; the channel sums these over silos."""

    def weights(self, public: Public, round: int, silos: Sequence[str]) -> list[int]:
        """What ``apply`` is handed for a sum of ``round`` over ``silos``."""
        return [public.weights[silo] for silo in silos]

    def randomise(
        self, total: NDArray[np.floating], context: OpenContext
    ) -> tuple[NDArray[np.floating], Mechanism | None]:
        """The opener's own noise, added to a sum before ``apply`` (which adds none), and what it was."""
        return total, None

    @abstractmethod
    def apply(
        self, total: NDArray[np.floating], weights: Sequence[int], global_adapter: NDArray[np.float32]
    ) -> NDArray[np.floating]:
        """The next global adapter from the sum of the summands of silos with ``weights``, as exactly as it is computed
        (float64 where the release may carry it): whoever opens the sum rounds it to float32 before anybody trains."""

    def step(self, change: NDArray[np.float64], memory: State) -> NDArray[np.float64]:
        """How the global adapter moves where ``apply`` alone would move it by ``change``: a server optimiser's step.
        ``memory``: the optimiser's, explicit, empty at the start; it follows from the sums alone, so that everybody who
        opens all of them keeps the same."""
        return change

    def unstep(self, moved: NDArray[np.float64], memory: State) -> NDArray[np.float64] | None:
        """The inverse of ``step`` for who saw the adapter move by ``moved``; ``memory`` becomes that after the step.
        None where it can't be told."""
        return moved

    @abstractmethod
    def implied_total(
        self, before: NDArray[np.float32], after: NDArray[np.float32], weights: Sequence[int]
    ) -> NDArray[np.float64] | None:
        """The sum that turned ``before`` into ``after``: what anyone who sees both adapters learns. None if lost."""

    @abstractmethod
    def implied_adapter(
        self, summand: NDArray[np.floating], weight: int, global_adapter: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The silo's own adapter after training, from its summand."""
