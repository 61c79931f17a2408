"""The parts a defense is made of, and how parts compose. No torch here.

A named defense is one file in ``defenses/`` with ``api = 1``, a ``Config`` and ``build(config) -> Defense``.
Composition (``dp-sgd+fedshield``) merges left to right: records and transforms are concatenated; at most one
operand may bring a trainer, a channel, an aggregator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import UsageError
from bench.streams import SecretStreams
from bench.task import Record
from bench.update import Layout, Update

if TYPE_CHECKING:
    from bench.channel import Channel
    from bench.model import LoraModel
    from bench.spec import LocalSpec
    from bench.tokens import Tokens

Values = Literal["real", "grid"]
#: A part's memory between rounds; arrays only, stored by the harness after every round.
State = MutableMapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Mechanism:
    """What a privacy mechanism really did in one round at one party, for the accountant (``bench.privacy``).

    ``kind``: "poisson-gaussian" (fields rate, sigma, steps) or another kind that ``bench.privacy`` knows.
    ``sigma`` is the noise multiplier: standard deviation of the noise over the L2 sensitivity.
    """

    kind: str
    params: Mapping[str, float]


@dataclass(frozen=True)
class Promise:
    """What a part claims: the unit and adjacency protected, and against which coalitions it holds.

    ``against(coalition, victim)`` is True where the promise holds for the records of silo ``victim`` towards the
    parties in ``coalition`` (names as in ``bench.parties``). Epsilon is never stated here: the harness computes it
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


@dataclass
class TransformContext:
    """What a transform may use: the public round, the global adapter, this silo's secret randomness and state."""

    round: int
    rounds: int
    global_adapter: NDArray[np.float32]
    secret: SecretStreams
    state: State


class Transform(ABC):
    """Changes an update before it leaves the silo."""

    accepts: frozenset[Values] = frozenset({"real"})
    gives: Values = "real"
    #: what this transform promises, or None
    promise: Promise | None = None

    @abstractmethod
    def apply(self, update: Update, context: TransformContext) -> Update: ...


class RecordsPart(ABC):
    """Decides what a silo trains on (deduplication, scrubbing)."""

    @abstractmethod
    def apply(self, records: Sequence[Record]) -> Sequence[Record]: ...


class Aggregator(ABC):
    """What is summed, and how a sum becomes the next global adapter. Runs at whoever opens the sum.

    All arrays are flat, of ``layout.size`` values.
    """

    @abstractmethod
    def weight(self, nominal_size: int) -> int:
        """The public integer weight of a silo of ``nominal_size`` records (1 for an unweighted mean)."""

    @abstractmethod
    def summand(self, update: Update, global_adapter: NDArray[np.float32]) -> Update:
        """What the silo hands to the channel; the channel sums these over silos."""

    @abstractmethod
    def apply(
        self, total: NDArray[np.floating], weights: Sequence[int], global_adapter: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The next global adapter from the sum of the summands of silos with ``weights``."""

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


@dataclass(frozen=True)
class Defense:
    """A named composition of parts; None means the plain default (AdamW or SGD, plain channel, weighted mean)."""

    records: tuple[RecordsPart, ...] = ()
    trainer: Trainer | None = None
    transforms: tuple[Transform, ...] = ()
    channel: Channel | None = None
    aggregator: Aggregator | None = None
    simulated: tuple[str, ...] = ()
    #: filled by ``compose``: which operand brought the single-valued parts
    origin: Mapping[str, str] = field(default_factory=dict)


def compose(named: Sequence[tuple[str, Defense]]) -> Defense:
    """Merge named defenses left to right. Raises UsageError where two bring the same single part."""
    merged = Defense()
    for name, defense in named:
        origin = dict(merged.origin)
        for part in ("trainer", "channel", "aggregator"):
            if getattr(defense, part) is None:
                continue
            if getattr(merged, part) is not None:
                raise UsageError(
                    f"'{origin[part]}' and '{name}' can't be combined: "
                    f"each brings its own {part}, and a federation has one."
                )
            merged = replace(merged, **{part: getattr(defense, part)})
            origin[part] = name
        merged = replace(
            merged,
            records=merged.records + defense.records,
            transforms=merged.transforms + defense.transforms,
            simulated=merged.simulated + defense.simulated,
            origin=origin,
        )
    return merged


#: The signature of ``build`` in a defense's module.
Build = Callable[[Any], Defense]
#: Re-exported for parts that need the layout only.
__all__ = [
    "Aggregator",
    "Build",
    "Defense",
    "Layout",
    "Mechanism",
    "Promise",
    "RecordsPart",
    "State",
    "TrainJob",
    "Trainer",
    "Training",
    "Transform",
    "TransformContext",
    "Update",
    "compose",
]
