"""What attacks that deviate share: adapters in and out of messages, and likelihood scores in runs of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from attacks.mia import Config, Likelihood
from bench.attack.behaviour import active
from bench.core.frames import decode_adapter, encode_adapter
from bench.core.parties import SERVER
from bench.core.update import Array, Layout
from bench.defense.channel import Message, Outgoing
from bench.defense.public import Public

if TYPE_CHECKING:
    from bench.spec.run import PluginSpec

#: coalitions that send what the server sends
SERVERS = frozenset({"server", "server+silo"})


def global_adapter(message: Outgoing, public: Public) -> Array:
    """(state.size,) what an honest server is about to send."""
    return decode_adapter(message.frames, public.state.size, public.adapter.size)


def amplified(adapter: Array, layout: Layout, factor: float) -> Array:
    """The same function with other steps: lora_A times ``factor``, lora_B over it, so that every product B A is what it
    was. A step that the optimiser takes on B moves the product ``factor`` times as far. ``layout``: of what is trained;
    what follows it in ``adapter`` stays."""
    found = np.array(adapter, dtype=np.float32)
    for name, tensor in layout.tensors(found[: layout.size]):
        tensor *= np.float32(factor) if "lora_A" in name else np.float32(1 / factor)
    return found


def as_outgoing(receivers: Iterable[str], adapter: Array) -> Outgoing:
    """A broadcast of ``adapter``."""
    return Outgoing(tuple(receivers), encode_adapter(adapter))


def sent_by_silo(messages: Iterable[Message], public: Public) -> dict[tuple[int, str], Array]:
    """By (round, silo): the adapter that the server sent this silo in this round."""
    found: dict[tuple[int, str], Array] = {}
    for message in messages:
        if message.stage == "broadcast" and message.sender == SERVER:
            values = decode_adapter(message.frames(), public.state.size, public.adapter.size)
            found |= {(message.round, silo): values for silo in message.receivers}
    return found


class Likelihoods(Likelihood):
    """The likelihood family on readings that the subclass chooses, in a run in which ``behaviour`` deviates."""

    name: str
    only: frozenset[str] | None = SERVERS

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def variant(self, adversary: str) -> PluginSpec | None:
        return active(self.name, self.config, adversary) if self.only and adversary in self.only else None
