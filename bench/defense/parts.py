"""The parts a defense is made of, and what they promise. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.streams import SecretStreams, State
from bench.core.update import Update
from bench.corpus.task import Record
from bench.defense.contexts import RoundContext, TransformContext
from bench.defense.flow import Flow, refuse_former

if TYPE_CHECKING:
    from bench.core.tokens import Tokens
    from bench.model.lora import LoraModel
    from bench.spec.run import LocalSpec

_FLAGS = ("accepts", "gives", "sparse", "norm", "needs_norm", "only_in_sums", "carries")


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

    #: what this transform promises, or None
    promise: Promise | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_former(cls, dict.fromkeys(_FLAGS, "'follow' answers with the flow that leaves the transform"))

    def follow(self, flow: Flow) -> Flow:
        """``flow`` as it leaves this transform; that it leaves coordinates out follows from ``support``. Raises
        UsageError where it can't work on what reaches it. As it stands: real values in and out, of any norm."""
        return flow.taken(self, "real").unbound(self)

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
