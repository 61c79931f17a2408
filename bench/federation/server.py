"""The server: broadcasts the global adapter, relays and sums, and applies the sum where it opens it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.channel import Message, Outgoing
from bench.defense import State
from bench.federation.adapters import encode_adapter
from bench.federation.setup import Setup
from bench.federation.silo import metered
from bench.parties import PUBLIC


class Server:
    """The server for the length of one step."""

    def __init__(self, me: str, setup: Setup, state: State) -> None:
        self.me, self.setup, self.state = me, setup, state

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        own = stage in ("broadcast", "release")
        if inbox or not own:  # what waits for the server, a dealer's keys say, belongs to the channel in any stage
            yield from self._channel("catch-up" if own else stage, round, inbox)
        if stage == "broadcast":
            yield from self._broadcast(round)
        elif stage == "release":
            yield Outgoing((PUBLIC,), encode_adapter(self._global(), self.setup.federation.release_precision))

    def _channel(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        setup = self.setup
        endpoint = setup.parts.channel.endpoint(self.me, setup.public, self.state, setup.secret(self.me))
        yield from metered(setup, f"channel:{stage}", endpoint.step(stage, round, inbox))
        for _, opened in endpoint.opened():
            weights = [setup.public.weights[s] for s in opened.silos]
            with setup.meter.measure("aggregate"):
                after = setup.parts.aggregator.apply(opened.values, weights, self._global())
            self.state["global/values"] = after
            self.state["global/round"] = np.array(round + 1)

    def _broadcast(self, round: int) -> Iterator[Outgoing]:
        """Every round to its participants where the server opens sums; else only the start, to all silos."""
        if self.setup.parts.channel.opener == "server":
            receivers = self.setup.public.participants[round]
        else:
            receivers = self.setup.public.silos if round == 0 else ()
        if receivers:
            yield Outgoing(tuple(receivers), encode_adapter(self._global()))

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
        endpoint = setup.parts.channel.endpoint(self.me, setup.public, self.state, setup.secret(self.me))
        yield from metered(setup, f"channel:{stage}", endpoint.step(stage, round, inbox))
