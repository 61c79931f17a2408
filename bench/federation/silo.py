"""A silo: receives the global adapter, trains on its records, protects its update, follows the channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.channel import Endpoint, Message, Outgoing
from bench.defense import State, TrainJob, TransformContext
from bench.errors import SiloBenchError
from bench.federation.adapters import decode_adapter, encode_adapter
from bench.federation.setup import Prefixed, Setup, drop_update, learning_rate, load_update, save_update
from bench.parties import PUBLIC, silo_index
from bench.update import Update


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
            precision = self.setup.federation.release_precision
            yield Outgoing((PUBLIC,), encode_adapter(self._global(), precision))
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
            self._set_global(decode_adapter(latest.frames(), self.setup.public.layout.size), latest.round)

    def _set_global(self, values: NDArray[np.float32], round: int) -> None:
        """``round``: the next round to be trained from these values."""
        self.state["global/values"] = values
        self.state["global/round"] = np.array(round)

    def _channel(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        setup = self.setup
        endpoint = setup.parts.channel.endpoint(self.me, setup.public, self.state, self.secret)
        update = load_update(self.state, setup.public.layout, round)
        if update is not None:
            endpoint.contribute(round, update)
        yield from metered(setup, f"channel:{stage}", endpoint.step(stage, round, inbox))
        self._apply(endpoint)

    def _apply(self, endpoint: Endpoint) -> None:
        for opened_round, opened in endpoint.opened():
            weights = [self.setup.public.weights[s] for s in opened.silos]
            after = self.setup.parts.aggregator.apply(opened.values, weights, self._global())
            self._set_global(after, opened_round + 1)

    def _train(self, round: int) -> None:
        setup = self.setup
        drop_update(self.state)
        start = self._global()
        index = silo_index(self.me)
        job = TrainJob(
            model=setup.model,
            tokens=setup.tokens(self.me),
            local=setup.federation.local,
            lr=learning_rate(setup.federation.local, round, setup.public.rounds),
            round=round,
            rounds=setup.public.rounds,
            nominal_size=setup.nominal_sizes[self.me],
            order=setup.streams.generator("silo", index, round),
            secret=self.secret,
            state=Prefixed(self.state, "trainer/"),
        )
        setup.model.set_adapter(start)
        with setup.meter.measure("train"):
            training = setup.parts.trainer.train(job)
        delta = setup.model.get_adapter() - start
        if not np.isfinite(delta).all():
            raise SiloBenchError(f"{self.me} diverged in round {round}: its update is not finite")
        with setup.meter.measure("transform"):
            summand = self._protect(Update(delta, setup.public.layout, setup.public.weights[self.me]), start, round)
        save_update(self.state, summand, round)
        setup.recorder.training[self.me] = training
        setup.recorder.summands[self.me] = dense(summand)

    def _protect(self, update: Update, start: NDArray[np.float32], round: int) -> Update:
        for position, transform in enumerate(self.setup.parts.transforms):
            state = Prefixed(self.state, f"transform-{position}/")
            context = TransformContext(round, self.setup.public.rounds, start, self.secret, state)
            update = transform.apply(update, context)
        return self.setup.parts.aggregator.summand(update, start)


def dense(update: Update) -> NDArray[np.floating]:
    """The summand over the whole layout in real values (0 where unsent)."""
    values = update.values
    if update.grid is not None:
        values = (values * (update.grid.clip / update.grid.levels)).astype(np.float32)
    if update.support is None:
        return np.asarray(values, dtype=np.float32)
    full = np.zeros(update.layout.size, dtype=np.float32)
    full[update.support] = values
    return full


def metered(setup: Setup, phase: str, outgoing: Iterable[Outgoing]) -> Iterator[Outgoing]:
    """Count the time in which messages and their frames are made."""
    for message in setup.meter.stream(phase, outgoing):
        yield Outgoing(message.receivers, setup.meter.stream(phase, message.frames))
