"""The lattice sum as a channel: secure aggregation whose masked vector is a key, beside ring elements under that key.

Stages, dropouts, thresholds and checks are those of ``defenses.channels.secagg``; what is masked there is one vector of
2048 small integers per silo and round, whatever the size of the update. Not audited, and not constant-time.
"""

from __future__ import annotations

from bench.defense.parts import Transform
from defenses.channels.rlwe.payload import LatticePayload
from defenses.channels.secagg.channel import SecureAggregation
from defenses.channels.secagg.policy import Policy


class LatticeSum(SecureAggregation):
    """``policy``: what is assumed of server and silos. ``quantiser``: what is put before the channel where it would be
    handed real values."""

    #: three silos of 8 bits each: 42 bits for 4 values
    bytes_per_value = 1.3125

    def __init__(self, policy: Policy | None = None, quantiser: Transform | None = None) -> None:
        super().__init__(policy, quantiser, LatticePayload())
