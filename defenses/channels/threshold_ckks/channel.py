"""CKKS sums with an n-out-of-n key as a channel: no party decrypts alone, not even a sum.

Set-up, once (every message of a silo is signed with an identity key that all know, see ``defenses.channels.secagg``)::

    register    silo -> dealer    an identity key's public half; ``directory``: all of them, to all
    commit      silo -> server    a hash of a nonce; ``commits``: all of them, to all silos
    reveal      silo -> server    the nonce; ``reveals``: all of them; their hash names the public element a
    key         silo -> server    its public keys; ``keys``: all of them, to all silos, who add them

and in each round::

    upload      silo -> server    random halves, sealed values
    sum         server -> silos   the random halves of all uploads, as signed; every silo adds them itself
    share       silo -> server    its flooded decryption share of the sum
    open        server            adds the shares to the sum of the sealed values

Not audited, and not constant-time. Scheme and security: ``docs/crypto.md``.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.parties import DEALER, SERVER
from bench.defense.channel import Candidate, Channel, Desk, Endpoint, Knowledge, Stage
from defenses.channels.secagg.setup import DIRECTORY, REGISTER, Dealer
from defenses.channels.threshold_ckks import session as agreement
from defenses.channels.threshold_ckks.parameters import choose
from defenses.channels.threshold_ckks.reading import read_rounds
from defenses.channels.threshold_ckks.server import Server
from defenses.channels.threshold_ckks.session import Session, Terms
from defenses.channels.threshold_ckks.silo import Silo

_STAGES = (
    Stage(REGISTER, "silos", setup=True),
    Stage(DIRECTORY, "dealer", setup=True),
    Stage(agreement.COMMIT, "silos", setup=True),
    Stage(agreement.COMMITS, "server", setup=True),
    Stage(agreement.REVEAL, "silos", setup=True),
    Stage(agreement.REVEALS, "server", setup=True),
    Stage(agreement.KEY_SHARE, "silos", setup=True),
    Stage(agreement.KEYS, "server", setup=True),
    Stage(agreement.UPLOAD, "silos"),
    Stage(agreement.SUM, "server"),
    Stage(agreement.SHARE, "silos"),
    Stage(agreement.OPEN, "server"),
)


class ThresholdCKKS(Channel):
    """``error``: what a value of an opened sum may be off by, absolutely. ``largest``: the magnitude that a silo's
    values may have per unit of its public weight. ``flooding``: all decryption shares of a run show more than the
    sums with probability at most 2**-flooding. ``degree``: of the ring, at least (4096 or 8192). Raises UsageError
    where no secure parameters would do for three silos of weight 1."""

    opener = "server"
    #: alone, a silo's sum would be its update
    fewest = 2

    def __init__(self, error: float = 1e-4, largest: float = 4.0, flooding: int = 40, degree: int = 4096) -> None:
        self.error, self.terms = error, Terms(error, largest, flooding, degree)
        self.bytes_per_value = choose(3, 3, 2**20, 8, error, largest, flooding, degree).bytes_per_value

    def stages(self) -> tuple[Stage, ...]:
        return _STAGES

    def endpoint(self, desk: Desk) -> Endpoint:
        if desk.me == DEALER:
            return Dealer(desk.public)
        session = Session(desk.public, self.terms)
        if desk.me == SERVER:
            return Server(session, desk.state, desk.supports)
        return Silo(desk.me, session, desk.state, desk.secret)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """Sums whose decryption shares are known, single uploads where all keys are (``reading``)."""
        return read_rounds(Session(knowledge.public, self.terms), knowledge)
