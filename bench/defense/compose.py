"""How parts compose: named defenses merged into one, its defaults filled in, parts that can't work together refused.

A named defense is one file in ``defenses/`` with ``api = 1``, a ``Config`` and ``build(config) -> Defense``.
Composition (``dp-sgd+fedshield``) merges left to right: records and transforms are concatenated; at most one
operand may bring a trainer, a channel, an aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.update import Layout, Values
from bench.defense.channel import Channel
from bench.defense.contexts import RoundContext
from bench.defense.parts import Aggregator, Promise, RecordsPart, Trainer, Transform


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
    #: parts that only simulate what they stand for, by name; said in every result
    simulated: tuple[str, ...] = ()

    @property
    def promises(self) -> tuple[Promise, ...]:
        """What the trainer, the transforms and the aggregator claim."""
        made = [self.trainer.promise, *(t.promise for t in (*self.transforms, *self.encoders)), self.aggregator.promise]
        alone = all(part.per_record for part in self.records)
        return tuple(p if alone or p.unit == "silo" else _void(p) for p in made if p is not None)

    def shared(self, layout: Layout) -> NDArray[np.int64] | None:
        """The coordinates that are not every silo's own; None: all."""
        personal = self.aggregator.personal(layout)
        return None if personal is None else np.setdiff1d(np.arange(layout.size), personal, assume_unique=True)

    def support(self, context: RoundContext) -> NDArray[np.int64] | None:
        """The coordinates that a silo sends in a round, which everybody can derive; None: all."""
        named = [s for t in (*self.transforms, *self.encoders) if (s := t.support(context)) is not None]
        shared = self.shared(context.public.layout)
        named += [] if shared is None else [shared]
        return reduce(partial(np.intersect1d, assume_unique=True), named) if named else None


def _void(promise: Promise) -> Promise:
    note = "records are chosen by comparing them, so that one record's removal may bring others back"
    return replace(promise, against=lambda coalition, victim: False, note=note)


def _encoders(transforms: Sequence[Transform], channel: Channel) -> int:
    """Follow real or grid values from the trainer to the channel: the position of the first transform that gives a
    grid. Raises UsageError where a part can't take what it is handed."""
    kind: Values = "real"
    first = len(transforms)
    for position, transform in enumerate(transforms):
        _check_one(transform, transform.accepts, kind)
        kind = transform.gives
        if kind == "grid":
            first = min(first, position)
        elif first < position:
            raise UsageError(
                f"{type(transform).__name__} gives real values after integers were made: put it before them."
            )
    _check_one(channel, channel.accepts, kind)
    return first


def _check_norms(transforms: Sequence[Transform], aggregator: Aggregator, opener: str) -> None:
    """Noise is measured in norm bounds: one must hold where noise is added, and hold still where sums are opened.

    An aggregator's effect on the bound is in what ``summand`` states, which silos and the accountant go by. Raises
    UsageError.
    """
    raised: object | None = None
    bounded = False
    for position, transform in enumerate(transforms):
        if transform.needs_norm and not bounded:
            raise UsageError(_unbounded(transform, raised))
        if transform.norm != "keeps":
            raised = None if transform.norm == "bounds" else transform
            bounded = transform.norm == "bounds"
        if transform.only_in_sums and position + 1 < len(transforms):
            raise UsageError(
                f"{type(transform).__name__} adds a share of noise that protects in the sum only: "
                f"{type(transforms[position + 1]).__name__} can't come after it."
            )
    if aggregator.needs_norm and not bounded:
        raise UsageError(_unbounded(aggregator, raised))
    if opener not in aggregator.openers:
        raise UsageError(
            f"{type(aggregator).__name__} must be run by the {' or '.join(sorted(aggregator.openers))}, and with this "
            f"channel the {opener} open{'s' if opener == 'server' else ''} the sums."
        )


def _check_summands(transforms: Sequence[Transform], first: int, aggregator: Aggregator) -> None:
    """What transforms may ask of summands that are no updates. Raises UsageError."""
    name = type(aggregator).__name__
    noisy = next((t for t in transforms[first:] if t.needs_norm), None)
    if noisy is not None and not aggregator.keeps_norm:
        raise UsageError(
            f"{type(noisy).__name__} works on summands of a bounded norm, and {name} makes summands of which a bound "
            "on the update says nothing: they can't be combined."
        )
    late = next((t for t in transforms if t.carries), None)
    if late is not None and aggregator.fresh:
        raise UsageError(
            f"{type(late).__name__} sends later what it leaves out now, and with {name} every round trains new "
            "factors, to which what is owed of old ones does not belong: put its feedback off."
        )


def _unbounded(part: object, raised: object | None) -> str:
    why = f"{type(raised).__name__}, which comes between, may raise the norm" if raised else "nothing before it clips"
    return f"{type(part).__name__} adds noise for updates of a bounded norm, and {why}."


def _check_one(part: object, accepts: frozenset[Values], kind: Values) -> None:
    if kind not in accepts:
        raise UsageError(
            f"{type(part).__name__} takes {' or '.join(sorted(accepts))} values but is handed {kind} ones by the parts "
            "before it: put a quantiser (or drop one) before it."
        )


def _quantised(transforms: tuple[Transform, ...], channel: Channel) -> tuple[Transform, ...]:
    """The transforms, and the channel's own quantiser where it takes integers only and would be handed real values."""
    kind = transforms[-1].gives if transforms else "real"
    if kind in channel.accepts or channel.quantiser is None:
        return transforms
    return (*transforms, channel.quantiser)


def _check_handed(defense: Defense) -> None:
    """Where the server trains there is no update, and nothing that a silo's trainer could promise towards it."""
    idle = [*defense.transforms, *([] if defense.aggregator is None else [defense.aggregator])]
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
    if channel.trains == "server":
        _check_handed(defense)
    transforms = _quantised(defense.transforms, channel)
    first = _encoders(transforms, channel)
    _check_norms(transforms, aggregator, channel.opener)
    _check_summands(transforms, first, aggregator)
    sparse = next((t for t in transforms if t.sparse), None)
    if sparse is not None and not aggregator.sparse:
        raise UsageError(
            f"{type(sparse).__name__} leaves coordinates unsent, meaning unchanged, and the aggregator "
            f"{type(aggregator).__name__} {aggregator.dense_because}: they can't be combined."
        )
    return Parts(
        records=defense.records,
        trainer=defense.trainer or GradientTrainer(),
        transforms=transforms[:first],
        channel=channel,
        aggregator=aggregator,
        encoders=transforms[first:],
        simulated=defense.simulated,
    )
