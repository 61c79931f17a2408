"""Secure aggregation after Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine
Learning", CCS 2017) as a channel.

Stages of a round, one message of every party each (see docs/secure-aggregation.md for bytes and checks)::

    advertise   silo -> server    two public keys and a nonce, signed
    roster      server -> silos   all of them
    share       silo -> server    shares of the mask key and of the self mask, sealed for every other silo
    deliver     server -> silos   to each silo what was sealed for it
    upload      silo -> server    the vector under a self mask and a mask for every other silo
    survivors   server -> silos   whose uploads arrived
    confirm     silo -> server    (active) a signature of that set
    confirmed   server -> silos   (active) the signatures
    unmask      silo -> server    for each survivor a share of its self mask, for each other one of its mask key
    open        server            takes the masks off the sum

Before round 0 the silos register identity keys with a dealer (``register``, ``directory``). Not audited, and not
constant-time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from bench.core.parties import DEALER, SERVER
from bench.defense.channel import Candidate, Channel, Desk, Endpoint, Knowledge, Stage
from bench.defense.parts import Transform
from defenses.channels.secagg.payload import Payload
from defenses.channels.secagg.policy import Policy
from defenses.channels.secagg.reading import read_rounds
from defenses.channels.secagg.server import Server
from defenses.channels.secagg.session import Session
from defenses.channels.secagg.setup import DIRECTORY, REGISTER, Dealer
from defenses.channels.secagg.silo import Silo
from defenses.channels.secagg.updates import Updates

_BEFORE = (
    Stage(REGISTER, "silos", setup=True),
    Stage(DIRECTORY, "dealer", setup=True),
    Stage("advertise", "silos"),
    Stage("roster", "server"),
    Stage("share", "silos"),
    Stage("deliver", "server"),
    Stage("upload", "silos"),
    Stage("survivors", "server"),
)
_CONFIRM = (Stage("confirm", "silos"), Stage("confirmed", "server"))
_AFTER = (Stage("unmask", "silos"), Stage("open", "server"))


class SecureAggregation(Channel):
    """``policy``: what is assumed of server and silos. ``quantiser``: what is put before the channel where it would be
    handed real values. ``payload``: what is summed (default: the updates themselves)."""

    opener = "server"
    accepts = frozenset({"grid"})
    error = 0.0
    #: 10 bits: three silos of 8 bits each
    bytes_per_value = 1.25
    quantiser: Transform | None = None

    def __init__(
        self, policy: Policy | None = None, quantiser: Transform | None = None, payload: Payload | None = None
    ) -> None:
        self.policy, self.payload = policy or Policy(), payload or Updates()
        self.fewest = self.policy.fewest
        self.quantiser = quantiser

    def stages(self) -> tuple[Stage, ...]:
        return (*_BEFORE, *(_CONFIRM if self.policy.active else ()), *_AFTER)

    def endpoint(self, desk: Desk) -> Endpoint:
        session = partial(Session, desk.public, self.policy, self.payload)
        if desk.me == DEALER:
            return Dealer(desk.public)
        if desk.me == SERVER:
            return Server(session, desk.state, desk.supports)
        return Silo(desk.me, session, desk.state, desk.secret)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """Sums and single uploads, as fine as the coalition's secrets and shares allow (``reading``)."""
        return read_rounds(partial(Session, knowledge.public, self.policy, self.payload), knowledge)
