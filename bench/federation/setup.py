"""What the parties of a federation are given at the start: public settings, parts, and each silo's own records."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.channel import Public
from bench.cost import Meter
from bench.defense import State, Training
from bench.federation.parts import Parts
from bench.parties import silo
from bench.spec import FederationSpec, LocalSpec
from bench.streams import SecretStreams, Streams
from bench.tokens import Tokens
from bench.update import Grid, Layout, Update

if TYPE_CHECKING:
    from bench.model import LoraModel


@dataclass
class Recorder:
    """The harness's own notes of a round, kept as truth: no party and no view reads them."""

    training: dict[str, Training] = field(default_factory=dict)
    summands: dict[str, NDArray[np.floating]] = field(default_factory=dict)


@dataclass
class Setup:
    """Shared by the in-process parties. ``tokens`` gives a silo its own records only."""

    model: LoraModel
    parts: Parts
    public: Public
    federation: FederationSpec
    initial: NDArray[np.float32]
    streams: Streams
    secret_seed: int | None
    tokens: Callable[[str], Tokens]
    nominal_sizes: Mapping[str, int]
    meter: Meter = field(default_factory=Meter)
    recorder: Recorder = field(default_factory=Recorder)

    def secret(self, party: str) -> SecretStreams:
        """The party's own secret randomness."""
        return SecretStreams(f"{party}/{self.streams.seed}", self.secret_seed)


def participants(federation: FederationSpec, streams: Streams) -> tuple[tuple[str, ...], ...]:
    """The public schedule: in every round ``ceil(client_fraction x silos)`` silos without replacement."""
    count = math.ceil(federation.client_fraction * federation.silos - 1e-9)
    schedule = []
    for round in range(federation.rounds):
        chosen = streams.generator("participants", round).choice(federation.silos, size=count, replace=False)
        schedule.append(tuple(silo(int(i)) for i in sorted(chosen)))
    return tuple(schedule)


def learning_rate(local: LocalSpec, round: int, rounds: int) -> float:
    """``lr`` times the schedule over rounds: constant, linear to 0 after the last round, or half a cosine."""
    share = round / rounds
    factor = {"constant": 1.0, "linear": 1.0 - share, "cosine": 0.5 * (1.0 + math.cos(math.pi * share))}
    return local.lr * factor[local.lr_schedule]


def save_update(state: State, update: Update, round: int) -> None:
    """Keep an update in a party's state under ``update/``."""
    grid = None if update.grid is None else [update.grid.bits, update.grid.clip]
    meta = {"round": round, "weight": update.weight, "norm_bound": update.norm_bound, "grid": grid}
    state["update/values"] = update.values
    state["update/meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    if update.support is not None:
        state["update/support"] = update.support


def load_update(state: State, layout: Layout, round: int) -> Update | None:
    """The inverse of ``save_update``; None where the silo has nothing to contribute to ``round``."""
    if "update/values" not in state:
        return None
    meta = json.loads(state["update/meta"].tobytes())
    if meta["round"] != round:
        return None
    return Update(
        values=state["update/values"],
        layout=layout,
        weight=meta["weight"],
        grid=None if meta["grid"] is None else Grid(*meta["grid"]),
        support=state.get("update/support"),
        norm_bound=meta["norm_bound"],
    )


def drop_update(state: State) -> None:
    for key in [key for key in state if key.startswith("update/")]:
        del state[key]


class Prefixed(MutableMapping[str, NDArray[Any]]):
    """The part of a party's state that belongs to one part of its defense."""

    def __init__(self, state: State, prefix: str) -> None:
        self._state, self._prefix = state, prefix

    def __getitem__(self, key: str) -> NDArray[Any]:
        return self._state[self._prefix + key]

    def __setitem__(self, key: str, value: NDArray[Any]) -> None:
        self._state[self._prefix + key] = value

    def __delitem__(self, key: str) -> None:
        del self._state[self._prefix + key]

    def __iter__(self) -> Any:
        return (key[len(self._prefix) :] for key in self._state if key.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
