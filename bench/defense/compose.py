"""How parts compose: named defenses merged into one, its defaults filled in, parts that can't work together refused.

A named defense is one file in ``defenses/`` with ``api = 1``, a ``Config`` and ``build(config) -> Defense``.
Composition (``dp-sgd+fedshield``) merges left to right: records, transforms and server steps are concatenated; at most
one operand may bring a trainer, a channel, an aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.streams import Prefixed, State
from bench.core.update import Array
from bench.defense.aggregator import Aggregator, Plan, ServerStep
from bench.defense.channel import Channel
from bench.defense.contexts import OpenContext, RoundContext
from bench.defense.flow import Flow, name_of
from bench.defense.parts import Mechanism, Promise, RecordsPart, Trainer, Transform
from bench.defense.public import Public

#: Who trains: every silo on its records, so that updates travel and are summed; or the server, which the silos hand
#: their records in a stage of set-up, and no update travels.
Topology = Literal["federated", "central"]


@dataclass(frozen=True)
class Defense:
    """A named composition of parts; None means the plain default (AdamW or SGD, plain channel, weighted mean)."""

    records: tuple[RecordsPart, ...] = ()
    trainer: Trainer | None = None
    transforms: tuple[Transform, ...] = ()
    channel: Channel | None = None
    aggregator: Aggregator | None = None
    steps: tuple[ServerStep, ...] = ()
    simulated: tuple[str, ...] = ()
    #: named by the defense that needs another than the others
    topology: Topology = "federated"
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
            steps=merged.steps + defense.steps,
            simulated=merged.simulated + defense.simulated,
            topology=merged.topology if defense.topology == "federated" else defense.topology,
            origin=origin,
        )
    return merged


#: The signature of ``build`` in a defense's module.
Build = Callable[[Any], Defense]


@dataclass(frozen=True)
class Parts:
    """Every part of a defense, none missing."""

    records: tuple[RecordsPart, ...]
    trainer: Trainer
    transforms: tuple[Transform, ...]
    channel: Channel
    aggregator: Aggregator
    #: transforms of the summand: from the first on that gives integers
    encoders: tuple[Transform, ...] = ()
    #: what whoever opens a sum does besides, in order
    steps: tuple[ServerStep, ...] = ()
    #: parts that only simulate what they stand for, by name; said in every result
    simulated: tuple[str, ...] = ()
    topology: Topology = "federated"

    @property
    def promises(self) -> tuple[Promise, ...]:
        """What the trainer, the transforms and the server steps claim."""
        claiming: tuple[Trainer | Transform | ServerStep, ...] = (
            self.trainer,
            *self.transforms,
            *self.encoders,
            *self.steps,
        )
        made = [part.promise for part in claiming]
        alone = all(part.per_record for part in self.records)
        return tuple(p if alone or p.unit == "silo" else _void(p) for p in made if p is not None)

    def weight(self, nominal_size: int) -> int:
        """The public integer weight of a silo of ``nominal_size`` records."""
        alike = any(step.counts_called for step in self.steps)
        return 1 if alike else self.aggregator.weight(nominal_size)

    def plan(self, public: Public) -> Plan:
        return self.aggregator.plan(public.adapter, public.silos)

    def shared(self, public: Public) -> NDArray[np.int64] | None:
        """The coordinates that are not every silo's own; None: all."""
        personal = self.plan(public).personal
        return None if personal is None else np.setdiff1d(np.arange(public.adapter.size), personal, assume_unique=True)

    def support(self, context: RoundContext) -> NDArray[np.int64] | None:
        """The coordinates that a silo sends in a round, which everybody can derive; None: all."""
        named = [s for t in (*self.transforms, *self.encoders) if (s := t.support(context)) is not None]
        shared = self.shared(context.public)
        named += [] if shared is None else [shared]
        return reduce(partial(np.intersect1d, assume_unique=True), named) if named else None

    def counted(self, public: Public, round: int, silos: Sequence[str]) -> Sequence[str]:
        """The silos that a sum of ``round`` over ``silos`` is divided by."""
        return public.participants[round] if any(step.counts_called for step in self.steps) else silos

    def randomised(
        self, total: NDArray[np.floating], context: OpenContext
    ) -> tuple[NDArray[np.floating], Mechanism | None]:
        """A sum with the noise of the server steps, and what that was (``follow`` lets one of them add noise)."""
        mechanism = None
        for step in self.steps:
            total, noise = step.randomise(total, context)
            mechanism = noise or mechanism
        return total, mechanism

    def moved(
        self, total: NDArray[np.floating], silos: Sequence[str], start: Array, public: Public, memory: State
    ) -> NDArray[np.floating]:
        """The next global adapter, not yet rounded to float32: the aggregator's own, moved on by the server steps.
        ``memory``: of all steps, by the number of each."""
        after = self.aggregator.apply(total, silos, start, public)
        change = first = after.astype(np.float64) - start
        for number, step in enumerate(self.steps):
            change = step.move(change, _own(step, number, memory))
        return after if change is first else start + change

    def unmoved(self, before: Array, after: Array, memory: State) -> Array | ServerStep:
        """The adapter that the aggregator alone would have given where ``before`` became ``after``; ``memory`` becomes
        that after the round. The step that can't be undone, where there is one."""
        change = seen = after.astype(np.float64) - before
        for number, step in reversed(list(enumerate(self.steps))):
            undone = step.undo(change, _own(step, number, memory))
            if undone is None:
                return step
            change = undone
        return after if change is seen else (before + change).astype(np.float32)

    @property
    def has_memory(self) -> bool:
        """Whether what a step makes of a sum depends on the sums before."""
        return any(step.has_memory for step in self.steps)


def _own(step: ServerStep, number: int, memory: State) -> State:
    return Prefixed(memory, f"step-{number}/") if step.has_memory else {}


def _void(promise: Promise) -> Promise:
    note = "records are chosen by comparing them, so that one record's removal may bring others back"
    return replace(promise, against=lambda coalition, victim: False, note=note)


def _through(flow: Flow, transform: Transform) -> Flow:
    """What leaves ``transform`` where ``flow`` reaches it. Raises UsageError."""
    if flow.closed:
        raise UsageError(f"{flow.closed}: {name_of(transform)} can't come after it.")
    after = transform.follow(flow)
    if (flow.values, after.values) == ("grid", "real"):
        raise UsageError(f"{name_of(transform)} gives real values after integers were made: put it before them.")
    return after if type(transform).support is Transform.support else after.saying("sparse", transform)


def _followed(
    transforms: Sequence[Transform], aggregator: Aggregator, channel: Channel, steps: Sequence[ServerStep]
) -> tuple[tuple[Transform, ...], tuple[Transform, ...]]:
    """Follow the values from the trainer through all parts: the transforms of updates, and those of summands, from the
    first on that gives a grid. A channel of integers that would be handed real values puts its own quantiser last.
    Raises UsageError where a part can't take what it is handed."""
    flow, first = Flow(), 0
    for transform in transforms:
        after = _through(flow, transform)
        if after.values == "grid":
            break
        flow, first = after, first + 1
    encoders = tuple(transforms[first:])
    if not encoders and channel.quantiser is not None and "real" not in channel.accepts:
        encoders = (channel.quantiser,)
    flow = reduce(_through, encoders, aggregator.follow(flow))
    flow = replace(flow.taken(channel, *channel.accepts), opener=channel.opener)
    reduce(lambda reaching, step: step.follow(reaching), steps, flow)
    return tuple(transforms[:first]), encoders


def _check_handed(defense: Defense) -> None:
    """Where the server trains there is no update, and nothing that a silo's trainer could promise towards it."""
    idle = [*defense.transforms, *([] if defense.aggregator is None else [defense.aggregator]), *defense.steps]
    if idle:
        raise UsageError(
            f"{type(idle[0]).__name__} works on updates, and where the server trains on all records there are none."
        )
    if defense.trainer is not None and defense.trainer.promise is not None:
        raise UsageError(
            f"{type(defense.trainer).__name__} promises something towards the server, which is handed the records "
            "themselves here: they can't be combined."
        )


def fill(defense: Defense) -> Parts:
    """Defaults for what the defense leaves open. Raises UsageError on a combination that can't work."""
    from bench.defense.defaults.mean import Mean
    from bench.defense.defaults.plain import PlainChannel
    from bench.defense.defaults.trainer import GradientTrainer

    aggregator = defense.aggregator or Mean()
    channel = defense.channel or PlainChannel(aggregator.opener)
    if defense.topology == "central":
        _check_handed(defense)
    transforms, encoders = _followed(defense.transforms, aggregator, channel, defense.steps)
    return Parts(
        records=defense.records,
        trainer=defense.trainer or GradientTrainer(),
        transforms=transforms,
        channel=channel,
        aggregator=aggregator,
        encoders=encoders,
        steps=defense.steps,
        simulated=defense.simulated,
        topology=defense.topology,
    )
