"""What flows from the trainer to the server's steps, as far as it is known before anything is trained.

``fill`` (``bench.defense.compose``) sends one ``Flow`` through a defense's parts in the order in which they act:
transforms, the aggregator's summand, transforms of integers, the channel, server steps. Each answers with the flow that
leaves it, or raises UsageError where it can't work on what reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from bench.core.errors import UsageError
from bench.core.update import Values

#: What a part may do that another can't live with, and how that is said.
Fact = Literal["sparse", "owing", "moving"]
_SAID: Mapping[Fact, str] = {
    "sparse": "leaves coordinates unsent, meaning unchanged",
    "owing": "sends later what it leaves out now",
    "moving": "moves each value of the global adapter by a rule of its own",
}


def name_of(part: object) -> str:
    return type(part).__name__


@dataclass(frozen=True)
class Flow:
    """``values``: real numbers or integers on a grid. ``unbounded``: why no norm bound holds, as half a sentence; ""
    where one does. ``closed``: why no transform may follow; "" where one may. ``opener``: who opens the sums, once the
    channel has been passed. ``said``: the parts that have a ``Fact`` to them; ``barred``: why no part may, as the rest
    of a sentence about one that does."""

    values: Values = "real"
    unbounded: str = "nothing before it clips"
    closed: str = ""
    opener: Literal["", "server", "silos"] = ""
    said: Mapping[Fact, str] = field(default_factory=dict)
    barred: Mapping[Fact, str] = field(default_factory=dict)

    def taken(self, part: object, *accepts: Values) -> Flow:
        """This flow, where ``part`` takes its kind of values. Raises UsageError."""
        if self.values not in accepts:
            raise UsageError(
                f"{name_of(part)} takes {' or '.join(sorted(accepts))} values but is handed {self.values} ones by the "
                "parts before it: put a quantiser (or drop one) before it."
            )
        return self

    def within_bound(self, part: object) -> Flow:
        """This flow, where a norm bound holds, which is what ``part`` measures noise in. Raises UsageError."""
        if self.unbounded:
            raise UsageError(f"{name_of(part)} works on values of a bounded norm, and {self.unbounded}.")
        return self

    def bounded(self) -> Flow:
        return replace(self, unbounded="")

    def unbound(self, part: object, why: str = "") -> Flow:
        """No bound holds behind ``part``. ``why``: as half a sentence."""
        return replace(self, unbounded=why or f"{name_of(part)}, which comes between, may raise the norm")

    def on_grid(self) -> Flow:
        return replace(self, values="grid")

    def closing(self, why: str) -> Flow:
        return replace(self, closed=why)

    def saying(self, fact: Fact, part: object) -> Flow:
        """``part`` has ``fact`` to it. Raises UsageError where that is barred."""
        said = replace(self, said={**self.said, fact: self.said.get(fact, name_of(part))})
        return said._checked(fact)

    def barring(self, fact: Fact, because: str) -> Flow:
        """No part may have ``fact`` to it. Raises UsageError where one has."""
        return replace(self, barred={**self.barred, fact: because})._checked(fact)

    def _checked(self, fact: Fact) -> Flow:
        if fact in self.said and fact in self.barred:
            raise UsageError(f"{self.said[fact]} {_SAID[fact]}, and {self.barred[fact]}.")
        return self


def refuse_former(cls: type, former: Mapping[str, str]) -> None:
    """Raises UsageError where ``cls`` itself still defines what its base class no longer asks for. ``former``: names,
    and what takes their place."""
    for name, instead in former.items():
        if name in cls.__dict__:
            raise UsageError(f"{cls.__qualname__}.{name} is no longer read: {instead}.")
