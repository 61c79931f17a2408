"""The server: broadcasts the global adapter, relays and sums, and applies the sum where it opens it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.frames import encode_adapter
from bench.core.records import decode_records, joined
from bench.core.streams import Prefixed, State
from bench.defense.channel import Desk, Message, Outgoing
from bench.defense.parts import TrainJob
from bench.federation.setup import Setup, keep_global, learning_rate, to_release
from bench.federation.silo import metered


class Server:
    """The server for the length of one step."""

    def __init__(self, me: str, setup: Setup, state: State) -> None:
        self.me, self.setup, self.state = me, setup, state

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        own = stage in ("broadcast", "train", "release")
        if inbox or not own:  # what waits for the server, a dealer's keys say, belongs to the channel in any stage
            yield from self._channel("catch-up" if own else stage, round, inbox)
        if stage == "broadcast":
            yield from self._broadcast(round)
        elif stage == "train":
            self._train(round)
        elif stage == "release":
            held = to_release(self.state)
            yield self.setup.released(self._global() if held is None else held)

    def _channel(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        setup = self.setup
        endpoint = setup.open_endpoint(self.me, self.state, self._global)
        yield from metered(setup, f"channel:{stage}", endpoint.step(stage, round, inbox))
        for opened_round, opened in setup.meter.stream(f"channel:{stage}", endpoint.opened()):
            with setup.meter.measure("aggregate"):
                after = setup.applied(self.me, opened_round, opened, self._global(), self.state)
            keep_global(self.state, setup.federation, after, round + 1)

    def _train(self, round: int) -> None:
        """One round of training on the records that silos handed over, all together."""
        setup, vocabulary = self.setup, self.setup.model.vocab_size
        handed = setup.open_endpoint(self.me, self.state, self._global).handed()
        if not handed:
            raise SiloBenchError("no silo has handed over its records, and there is nothing to train on")
        job = TrainJob(
            model=setup.model,
            tokens=joined([decode_records(frames, vocabulary) for _, frames in sorted(handed.items())]),
            local=setup.federation.local,
            lr=learning_rate(setup.federation.local, round, setup.public.rounds),
            round=round,
            rounds=setup.public.rounds,
            nominal_size=sum(setup.nominal_sizes[name] for name in handed),
            order=setup.order("server", round),
            secret=setup.secret(self.me),
            state=Prefixed(self.state, "trainer/"),
        )
        setup.model.set_adapter(self._global())
        with setup.meter.measure("train"):
            setup.recorder.training[self.me] = setup.parts.trainer.train(job)
        keep_global(self.state, setup.federation, setup.model.get_adapter(), round + 1)

    def _broadcast(self, round: int) -> Iterator[Outgoing]:
        """Every round to its participants where the server opens sums; else only the start, to all silos."""
        if self.setup.parts.channel.opener == "server":
            receivers = self.setup.public.participants[round]
        else:
            receivers = self.setup.public.silos if round == 0 else ()
        if receivers:
            yield Outgoing(tuple(receivers), encode_adapter(self.setup.short(self._global())))

    def _global(self) -> NDArray[np.float32]:
        if "global/values" in self.state:
            return np.asarray(self.state["global/values"], dtype=np.float32)
        return self.setup.initial


class Dealer:
    """A named party that hands out keys in set-up, where a channel has one."""

    def __init__(self, me: str, setup: Setup, state: State) -> None:
        self.me, self.setup, self.state = me, setup, state

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        setup = self.setup
        endpoint = setup.parts.channel.endpoint(Desk(self.me, setup.public, self.state, setup.secret(self.me)))
        yield from metered(setup, f"channel:{stage}", endpoint.step(stage, round, inbox))
