"""A defense with its defaults filled in, checked for parts that can't work together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.channel import Channel
from bench.defense import Aggregator, Defense, Promise, RecordsPart, Trainer, Transform, Values
from bench.errors import UsageError


@dataclass(frozen=True)
class Parts:
    """Every part of a defense, none missing."""

    records: tuple[RecordsPart, ...]
    trainer: Trainer
    transforms: tuple[Transform, ...]
    channel: Channel
    aggregator: Aggregator
    #: parts that only simulate what they stand for, by name; said in every result
    simulated: tuple[str, ...] = ()

    @property
    def promises(self) -> tuple[Promise, ...]:
        """What the trainer and the transforms claim."""
        made = [self.trainer.promise, *(t.promise for t in self.transforms)]
        return tuple(promise for promise in made if promise is not None)


def _check_values(transforms: Sequence[Transform], channel: Channel) -> None:
    """Follow real or grid values from the trainer to the channel. Raises UsageError where a part can't take them."""
    kind: Values = "real"
    for transform in transforms:
        _check_one(transform, transform.accepts, kind)
        kind = transform.gives
    _check_one(channel, channel.accepts, kind)


def _check_one(part: object, accepts: frozenset[Values], kind: Values) -> None:
    if kind not in accepts:
        raise UsageError(
            f"{type(part).__name__} takes {' or '.join(sorted(accepts))} values but is handed {kind} ones by the parts "
            "before it: put a quantiser (or drop one) before it."
        )


def fill(defense: Defense) -> Parts:
    """Defaults for what the defense leaves open. Raises UsageError on a combination that can't work."""
    from bench.defaults.mean import Mean
    from bench.defaults.plain import PlainChannel
    from bench.defaults.trainer import GradientTrainer

    channel = defense.channel or PlainChannel()
    _check_values(defense.transforms, channel)
    return Parts(
        records=defense.records,
        trainer=defense.trainer or GradientTrainer(),
        transforms=defense.transforms,
        channel=channel,
        aggregator=defense.aggregator or Mean(),
        simulated=defense.simulated,
    )
