"""What the parties of a federation are given at the start: public settings, parts, and each silo's own records."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.core.frames import encode_adapter, without_zeros
from bench.core.meter import Meter
from bench.core.parties import PUBLIC, SERVER, is_silo, silo
from bench.core.records import encode_records
from bench.core.streams import Prefixed, SecretStreams, State, Streams
from bench.core.tokens import Tokens
from bench.core.update import Array, Grid, Layout, Update
from bench.defense.channel import Desk, Endpoint, Opened, Outgoing, no_records
from bench.defense.compose import Parts
from bench.defense.contexts import OpenContext, RoundContext
from bench.defense.parts import Mechanism, Training
from bench.defense.public import Public
from bench.spec.run import FederationSpec, LocalSpec

if TYPE_CHECKING:
    from bench.model.lora import LoraModel


@dataclass
class Recorder:
    """The harness's own notes of a round, kept as truth: no party and no view reads them."""

    training: dict[str, Training] = field(default_factory=dict)
    summands: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    support: NDArray[np.int64] | None = None
    #: the adapter that a silo trained, where some of its values are its own
    own: dict[str, Array] = field(default_factory=dict)
    #: the norm bound that each silo's summand stated, or None
    bounds: dict[str, float | None] = field(default_factory=dict)
    #: (round, silos) of every sum that was opened, with the opener's own noise
    sums: dict[tuple[int, tuple[str, ...]], Mechanism | None] = field(default_factory=dict)


@dataclass
class Setup:
    """Shared by the in-process parties. ``tokens`` gives a silo its own records only. ``orders``: the streams of the
    order in which records are trained on; None: ``streams``."""

    model: LoraModel
    parts: Parts
    public: Public
    federation: FederationSpec
    initial: NDArray[np.float32]
    streams: Streams
    secret_seed: int | None
    tokens: Callable[[str], Tokens]
    nominal_sizes: Mapping[str, int]
    orders: Streams | None = None
    meter: Meter = field(default_factory=Meter)
    recorder: Recorder = field(default_factory=Recorder)

    def order(self, party: str, *indices: int) -> np.random.Generator:
        """In which order a party takes its records."""
        return (self.orders or self.streams).generator(party, *indices)

    def secret(self, party: str) -> SecretStreams:
        """The party's own secret randomness."""
        prefix = self.orders.prefix if self.orders is not None else ""
        return SecretStreams(f"{prefix}{party}/{self.streams.seed}", self.secret_seed)

    def context(self, round: int, start: Array) -> RoundContext:
        """What everybody knows of a round that starts from the global adapter ``start``."""
        local, rounds = self.federation.local, self.public.rounds
        size = max(self.nominal_sizes.values())
        steps = local.steps or local.epochs * math.ceil(size / local.batch)
        lr = learning_rate(local, round, rounds)
        # Adam moves a value by about lr a step (Kingma and Ba 2015, section 2.1), SGD by lr times its gradient
        most = 1.0 if local.optimizer == "adamw" else local.max_grad_norm
        adapter = self.public.adapter
        idle = self.parts.aggregator.summand(Update(np.zeros(adapter.size, np.float32), adapter), start, self.public)
        reach = None if most is None else lr * steps * most + float(np.abs(idle.values).max())
        return RoundContext(
            public=self.public, round=round, global_adapter=start[: adapter.size], lr=lr, steps=steps, reach=reach
        )

    def open_endpoint(self, me: str, state: State, start: Callable[[], Array]) -> Endpoint:
        """The channel's endpoint of a party whose newest global adapter ``start`` gives."""
        return self.parts.channel.endpoint(self.desk(me, state, start))

    def desk(self, me: str, state: State, start: Callable[[], Array]) -> Desk:
        return Desk(
            me,
            self.public,
            state,
            self.secret(me),
            supports=lambda round: self.parts.support(self.context(round, start())),
            records=(lambda: encode_records(self.tokens(me), self.model.vocab_size)) if is_silo(me) else no_records,
        )

    def short(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """A global adapter as it travels: without what follows the trained values while all of that is 0."""
        return without_zeros(values, self.public.adapter.size)

    def released(self, values: NDArray[np.floating]) -> Outgoing:
        """A global adapter for everybody, at the precision of releases."""
        return Outgoing((PUBLIC,), encode_adapter(self.short(values), self.federation.release_precision))

    def applied(self, me: str, round: int, opened: Opened, start: Array, state: State) -> NDArray[np.floating]:
        """The global adapter after a sum that ``me`` opened, as exactly as it was computed, from the one before; the
        sum is noted. ``state``: the party's."""
        parts, known = self.parts, self.context(round, start)
        public = {f.name: getattr(known, f.name) for f in fields(known)}
        context = OpenContext(**public, secret=self.secret(me), support=lambda: parts.support(known))
        total, noise = parts.randomised(opened.values, context)
        # noise of a silo that opens is known to it, and every silo's is another
        self.recorder.sums[round, tuple(sorted(opened.silos))] = noise if me == SERVER else None
        counted = parts.counted(self.public, round, opened.silos)
        return parts.moved(total, counted, start, self.public, Prefixed(state, "steps/"))


def keep_global(state: State, federation: FederationSpec, values: NDArray[np.floating], round: int) -> None:
    """Keep a global adapter as float32, which the next round ``round`` is trained from; and beside it as it was
    computed, where a release is to carry more than float32."""
    state["global/values"] = values.astype(np.float32)
    state["global/round"] = np.array(round)
    state.pop("global/exact", None)
    if federation.release != "none" and federation.release_precision == "float64" and values.dtype == np.float64:
        state["global/exact"] = values


def to_release(state: State) -> NDArray[np.floating] | None:
    """What a party that holds a global adapter releases of it, before rounding; None where it holds none."""
    held = state.get("global/exact", state.get("global/values"))
    return None if held is None else np.asarray(held)


def participants(federation: FederationSpec, streams: Streams) -> tuple[tuple[str, ...], ...]:
    """The public schedule: in every round ``ceil(client_fraction x silos)`` silos without replacement."""
    count = math.ceil(federation.client_fraction * federation.silos - 1e-9)
    schedule = []
    for round in range(federation.rounds):
        chosen = streams.generator("participants", round).choice(federation.silos, size=count, replace=False)
        schedule.append(tuple(silo(int(i)) for i in sorted(chosen)))
    return tuple(schedule)


def public_nonce(seed: int) -> int:
    """The seed of public choices, apart from every stream of the run's own seed. Nothing secret depends on either."""
    return int.from_bytes(hashlib.sha256(f"silobench public {seed}".encode()).digest()[:8], "little")


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
