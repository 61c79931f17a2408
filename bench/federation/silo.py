"""A silo: receives the global adapter, trains on its records, protects its update, follows the channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.frames import decode_adapter
from bench.core.parties import silo_index
from bench.core.streams import Prefixed, State
from bench.core.update import Update
from bench.defense.channel import Endpoint, Message, Outgoing
from bench.defense.contexts import TransformContext
from bench.defense.parts import Mechanism, TrainJob, Transform
from bench.federation.setup import (
    Setup,
    drop_update,
    keep_global,
    learning_rate,
    load_update,
    save_update,
    to_release,
)


class Silo:
    """One silo for the length of one step; all that it remembers is in ``state``."""

    def __init__(self, me: str, setup: Setup, state: State) -> None:
        self.me, self.setup, self.state = me, setup, state
        self.secret = setup.secret(me)

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        self._receive_adapter(inbox)
        rest = [m for m in inbox if m.stage != "broadcast"]
        if stage == "train":
            if rest:  # what arrived while this silo was away
                yield from self._channel("catch-up", round, rest)
            self._train(round)
        elif stage == "release":
            held = to_release(self.state)
            yield self.setup.released(self._global() if held is None else held)
        else:
            yield from self._channel(stage, round, rest)

    def _global(self) -> NDArray[np.float32]:
        if "global/values" not in self.state:
            raise SiloBenchError(f"{self.me} holds no global adapter")
        return np.asarray(self.state["global/values"], dtype=np.float32)

    def _receive_adapter(self, inbox: Sequence[Message]) -> None:
        received = [m for m in inbox if m.stage == "broadcast"]
        if received:
            latest = max(received, key=lambda m: m.round)
            public = self.setup.public
            self._set_global(decode_adapter(latest.frames(), public.state.size, public.adapter.size), latest.round)

    def _set_global(self, values: NDArray[np.floating], round: int) -> None:
        """``round``: the next round to be trained from these values."""
        keep_global(self.state, self.setup.federation, values, round)

    def _channel(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        setup = self.setup
        endpoint = setup.open_endpoint(self.me, self.state, self._global)
        update = load_update(self.state, setup.public.layout, round)
        if update is not None:
            endpoint.contribute(round, update)
        yield from metered(setup, f"channel:{stage}", endpoint.step(stage, round, inbox))
        self._apply(endpoint, stage)

    def _apply(self, endpoint: Endpoint, stage: str) -> None:
        for opened_round, opened in self.setup.meter.stream(f"channel:{stage}", endpoint.opened()):
            self._set_global(
                self.setup.applied(self.me, opened_round, opened, self._global(), self.state), opened_round + 1
            )

    def _train(self, round: int) -> None:
        setup = self.setup
        drop_update(self.state)
        start = self._start()
        index = silo_index(self.me)
        job = TrainJob(
            model=setup.model,
            tokens=setup.tokens(self.me),
            local=setup.federation.local,
            lr=learning_rate(setup.federation.local, round, setup.public.rounds),
            round=round,
            rounds=setup.public.rounds,
            nominal_size=setup.nominal_sizes[self.me],
            order=setup.order("silo", index, round),
            secret=self.secret,
            state=Prefixed(self.state, "trainer/"),
        )
        setup.model.set_adapter(start)
        with setup.meter.measure("train"):
            training = setup.parts.trainer.train(job)
        adapter = setup.public.adapter
        after = setup.model.get_adapter()
        delta = after[: adapter.size] - start[: adapter.size]
        if not np.isfinite(delta).all():
            raise SiloBenchError(f"{self.me} diverged in round {round}: its update is not finite")
        with setup.meter.measure("transform"):
            update = Update(delta, adapter, setup.public.weights[self.me], silo=self.me)
            summand, logged = self._protect(update, start, round)
        save_update(self.state, summand, round)
        setup.recorder.training[self.me] = replace(training, mechanisms=(*training.mechanisms, *logged))
        setup.recorder.bounds[self.me] = summand.norm_bound
        setup.recorder.summands[self.me] = summand.dense()
        setup.recorder.support = summand.support
        self._keep_personal(after)

    def _start(self) -> NDArray[np.float32]:
        """What this silo trains from: the global adapter, with its own values where they are personal."""
        start = self._global()
        personal = self.setup.parts.plan(self.setup.public).personal
        if personal is not None and "personal/values" in self.state:
            start = start.copy()
            start[personal] = self.state["personal/values"]
        return start

    def _keep_personal(self, after: NDArray[np.float32]) -> None:
        personal = self.setup.parts.plan(self.setup.public).personal
        if personal is not None:
            self.state["personal/values"] = after[personal]
            self.setup.recorder.own[self.me] = after

    def _protect(self, update: Update, start: NDArray[np.float32], round: int) -> tuple[Update, tuple[Mechanism, ...]]:
        """What the channel is handed, and what the transforms did for the silo's privacy."""
        logged: list[Mechanism | None] = []
        parts, known = self.setup.parts, self.setup.context(round, start)
        public = {f.name: getattr(known, f.name) for f in fields(known)}
        shared = parts.shared(known.public)

        def apply(transforms: Sequence[Transform], first: int, update: Update) -> Update:
            for position, transform in enumerate(transforms, first):
                state = Prefixed(self.state, f"transform-{position}/")
                logged.append(transform.mechanism(update, known))
                update = transform.apply(update, TransformContext(**public, secret=self.secret, state=state))
            return update

        update = apply(parts.transforms, 0, update)
        if shared is not None:
            update = update.restricted(shared)
        update = parts.aggregator.summand(update, start, known.public)
        update = apply(parts.encoders, len(parts.transforms), update)
        self._check_support(update, parts.support(known))
        self._check_bound(update)
        return update, tuple(mechanism for mechanism in logged if mechanism is not None)

    def _check_bound(self, update: Update) -> None:
        """A stated norm bound is what epsilon is computed from."""
        bound, norm = update.norm_bound, update.norm
        if bound is not None and norm > bound * (1 + 1e-6):
            raise SiloBenchError(f"{self.me} would send an update of norm {norm:g}, above the {bound:g} that it states")

    def _check_support(self, update: Update, named: NDArray[np.int64] | None) -> None:
        """What travels must be what everybody can derive: a support that is not would open as something else."""
        same = update.support is named or (
            update.support is not None and named is not None and np.array_equal(update.support, named)
        )
        if not same:
            raise SiloBenchError(f"{self.me} would send other coordinates than the transforms' public support names")


def metered(setup: Setup, phase: str, outgoing: Iterable[Outgoing]) -> Iterator[Outgoing]:
    """Count the time in which messages and their frames are made."""
    for message in setup.meter.stream(phase, outgoing):
        yield Outgoing(message.receivers, setup.meter.stream(phase, message.frames))
