"""Telling two chosen updates apart: the channel's own endpoints seal zeros and dense random values, several times.

A small federation of up to three silos (or the fewest that the channel works with) with fresh keys runs the channel
alone (no training). Silos and rounds alternate between the two updates in such a way that every silo and every round
has both, so that nothing that depends on the silo or the round alone is mistaken for a dependence on the update.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.parties import DEALER, PUBLIC, SERVER, is_silo
from bench.core.streams import SecretStreams
from bench.core.update import Grid, Layout, Update
from bench.defense.channel import Candidate, Channel, Desk, Knowledge, Message, Stage
from bench.defense.public import Public, alike
from bench.view.openers.base import Guess, Hints, Traits, sealed_by_silos
from bench.view.openers.layouts import heads

#: Sealed messages in all, half of each update. With 12 and 12, lengths that do not depend on the update lie in two
#: ranges that do not overlap with probability at most 2 / C(24, 12) = 7e-7.
MESSAGES = 24
_SILOS = 3
_VALUES = 4096
_SEED = 20


def distinguishable(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """One metadata reading for every stage in which equal updates give equal bytes, where messages of it are not
    opened."""
    pending = [m for m in sealed_by_silos(knowledge) if hints.targets(m)]
    if not pending:
        return
    for stage in sorted(hints.traits().deterministic & {m.stage for m in pending}):
        silos = frozenset(m.sender for m in pending if m.stage == stage)
        how = f"equal updates give equal bytes in '{stage}'"
        yield Guess(-1, silos, np.empty(0), how, form="metadata")


@dataclass(frozen=True)
class _Sent:
    """A message in memory."""

    round: int
    stage: str
    sender: str
    receivers: tuple[str, ...]
    content: tuple[bytes, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.content))

    def frame(self, index: int) -> bytes:
        return self.content[index]

    def frames(self) -> Iterator[bytes]:
        return iter(self.content)


def traits(channel: Channel, public: Public) -> Traits:
    """Run the experiment on ``channel`` with the silos and the first tensor (cut to 4096 values) of ``public``.

    Takes seconds for homomorphic encryption; one answer serves every view of a run. Raises SiloBenchError where the
    channel can't carry out its own protocol.
    """
    if all(stage.setup for stage in channel.stages()):
        return Traits()  # no update travels
    small, chosen = _setting(public, max(_SILOS, channel.fewest))
    try:
        messages = list(_play(channel, small, chosen))
    except Exception as error:
        name = type(channel).__name__
        raise SiloBenchError(
            f"channel {name} failed on two chosen updates of {small.layout.size} values: {error}"
        ) from error
    by_stage: dict[str, dict[bool, list[_Sent]]] = defaultdict(lambda: {False: [], True: []})
    for message in messages:
        by_stage[message.stage][chosen[message.round, message.sender]].append(message)
    return _traits(by_stage)


def _traits(by_stage: Mapping[str, Mapping[bool, Sequence[_Sent]]]) -> Traits:
    full = {stage: sides for stage, sides in by_stage.items() if all(len(s) >= MESSAGES // 2 for s in sides.values())}
    deterministic = frozenset(s for s, sides in full.items() if _repeats(sides[True]))
    # where all is deterministic, every byte tells, and saying so once is enough
    headers = {stage: _telling_bytes(sides) for stage, sides in full.items() if stage not in deterministic}
    return Traits(
        deterministic=deterministic,
        lengths=frozenset(s for s, sides in full.items() if _apart(sides)),
        headers=tuple(sorted((s, positions) for s, positions in headers.items() if positions)),
    )


def _setting(public: Public, most: int = _SILOS) -> tuple[Public, dict[tuple[int, str], bool]]:
    """The small federation, and which (round, silo) contributes the dense update."""
    silos = public.silos[:most]
    rounds = 2 * math.ceil(MESSAGES / 2 / len(silos))  # even, so that both updates are sent equally often
    shape = public.layout.shapes[0]
    size = min(int(np.prod(shape)), _VALUES)
    layout = Layout(public.layout.names[:1], (shape if size == int(np.prod(shape)) else (size,),))
    weights = {silo: public.weights[silo] for silo in silos}
    # Thue-Morse: no period that a counter could follow; the second silo takes the complement, the third a shift
    word = [bin(i).count("1") % 2 == 1 for i in range(rounds)]
    chosen = {(r, s): (word[(r + i // 2) % rounds] != (i == 1)) for i, s in enumerate(silos) for r in range(rounds)}
    return Public(alike(layout), silos, weights, rounds, tuple(silos for _ in range(rounds))), chosen


def _updates(channel: Channel, layout: Layout, silo_weight: int) -> dict[bool, Update]:
    dense = np.random.Generator(np.random.PCG64(_SEED)).normal(0, 1e-2, layout.size)
    found = {}
    for kind, values in ((False, np.zeros(layout.size)), (True, dense)):
        bound = float(np.linalg.norm(dense))
        if "real" in channel.accepts:
            found[kind] = Update(values.astype(np.float32), layout, silo_weight, norm_bound=bound)
        else:
            grid = Grid(8, 0.05)
            steps = np.clip(np.rint(values / grid.clip * grid.levels), -grid.levels, grid.levels).astype(np.int64)
            found[kind] = Update(steps, layout, silo_weight, grid=grid, norm_bound=bound)
    return found


def _play(channel: Channel, public: Public, chosen: Mapping[tuple[int, str], bool]) -> Iterator[_Sent]:
    """The messages that silos send in the rounds."""
    states: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
    mail: dict[str, list[Message]] = defaultdict(list)
    updates = {silo: _updates(channel, public.layout, public.weights[silo]) for silo in public.silos}
    for round in range(-1, public.rounds):
        for stage in channel.stages():
            if stage.setup != (round < 0):
                continue
            for actor in _actors(stage, public):
                endpoint = channel.endpoint(Desk(actor, public, states[actor], SecretStreams(f"distinguish/{actor}")))
                if round >= 0 and is_silo(actor):
                    endpoint.contribute(round, updates[actor][chosen[round, actor]])
                for outgoing in endpoint.step(stage.name, round, mail.pop(actor, [])):
                    sent = _Sent(round, stage.name, actor, outgoing.receivers, tuple(outgoing.frames))
                    for receiver in set(outgoing.receivers) - {PUBLIC}:
                        mail[receiver].append(sent)
                    if round >= 0 and is_silo(actor):
                        yield sent


def _actors(stage: Stage, public: Public) -> tuple[str, ...]:
    return {"silos": public.silos, "server": (SERVER,), "dealer": (DEALER,)}[stage.actors]


def _repeats(messages: Sequence[_Sent]) -> bool:
    """Whether two of the dense update's messages are equal."""
    seen = [hashlib.sha256(b"".join(m.content)).digest() for m in messages]
    return len(set(seen)) < len(seen)


def _apart(sides: Mapping[bool, Sequence[_Sent]]) -> bool:
    """Whether the total lengths of the two updates' messages lie in ranges that do not overlap."""
    zeros, dense = ([sum(m.lengths) for m in sides[kind]] for kind in (False, True))
    return max(zeros) < min(dense) or max(dense) < min(zeros)


def _telling_bytes(sides: Mapping[bool, Sequence[_Sent]]) -> tuple[int, ...]:
    """Positions in ``heads`` with one value for all messages of each update, and another for the other."""
    zeros, dense = (np.array([list(heads(m)) for m in sides[kind]]) for kind in (False, True))
    constant = (zeros == zeros[0]).all(0) & (dense == dense[0]).all(0)
    return tuple(int(p) for p in np.flatnonzero(constant & (zeros[0] != dense[0])))
