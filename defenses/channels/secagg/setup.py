"""Set-up: every silo makes an identity key and registers its public half with the dealer, who tells all parties.

The dealer stands for a public-key infrastructure. It never holds a secret key; but a dealer that hands out keys of its
own making can speak in any silo's name, so it is trusted to be honest, and its messages to arrive unaltered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.parties import DEALER, SERVER
from bench.core.streams import SecretStreams, State
from bench.defense.channel import Endpoint, Message, Outgoing
from bench.defense.public import Public
from defenses.channels.secagg import wire
from defenses.channels.secagg.primitives import KEY, all_distinct, signing_public
from defenses.channels.secagg.session import from_silos

REGISTER, DIRECTORY = "register", "directory"
#: the state entries of a silo's secret identity key, and of the directory
IDENTITY, KNOWN = "keys/identity", "secagg/directory"


def register(state: State, secret: SecretStreams) -> Outgoing:
    """A silo's first act: make the identity key, keep it, and send the public half (32 bytes)."""
    if IDENTITY in state:
        raise SiloBenchError("the identity key exists already: registering was asked for twice")
    key = secret.token("identity", size=KEY)
    state[IDENTITY] = np.frombuffer(key, dtype=np.uint8)
    return Outgoing((DEALER,), [signing_public(key)])


def identity(state: State) -> bytes:
    """A silo's secret key."""
    return np.asarray(state[IDENTITY], dtype=np.uint8).tobytes()


def learn_directory(state: State, inbox: Sequence[Message], public: Public) -> None:
    """Keep the directory, whenever it arrives. Raises SiloBenchError for a second one, or one from anybody else."""
    for message in inbox:
        if message.stage == DIRECTORY:
            if message.sender != DEALER or message.round != -1 or KNOWN in state:
                raise SiloBenchError("identity keys come from the dealer, once, in set-up")
            size = KEY * len(public.silos)
            state[KNOWN] = np.frombuffer(wire.only_frame(message, size), dtype=np.uint8)
            directory(state, public)


def directory(state: State, public: Public) -> Mapping[str, bytes]:
    """The silos' public identity keys. Raises SiloBenchError where they are not known, or two are equal."""
    if KNOWN not in state:
        raise SiloBenchError("the silos' identity keys are not known: the directory did not arrive")
    raw = np.asarray(state[KNOWN], dtype=np.uint8).tobytes()
    found = dict(zip(public.silos, wire.records(raw, KEY, len(public.silos)), strict=True))
    if not all_distinct(found.values()):
        raise SiloBenchError("two silos have the same identity key")
    return found


class Dealer(Endpoint):
    """Collects the public identity keys of all silos and sends them to every party: 32 bytes a silo."""

    def __init__(self, public: Public) -> None:
        self.public = public

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        silos = self.public.silos
        registered = from_silos(inbox, REGISTER, silos)
        missing = sorted(set(silos) - {m.sender for m in registered})
        if missing:
            raise SiloBenchError(f"{', '.join(missing)} registered no identity key")
        keys = [wire.only_frame(message, KEY) for message in registered]
        if not all_distinct(keys) or any(len(key) != KEY for key in keys):
            raise SiloBenchError("a silo registered no identity key, or one that is another's")
        yield Outgoing((*silos, SERVER), [b"".join(keys)])
