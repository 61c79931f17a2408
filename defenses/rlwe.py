"""Exact sums under ring learning with errors: the server adds encrypted updates and opens nothing but their sum.

Every silo seals its quantised update under a fresh key of its own in every round; the server learns the sum of the keys
by secure aggregation (Bonawitz et al. 2017) and with it the sum of the integers, exactly: decryption can't fail. About
1.3 bytes per value for three silos of 8 bits. What the sum and the released model show of single records is not
hidden. Parameters, proof and estimates: docs/crypto.md. Our own code: neither audited nor constant-time, so not for
data that anybody's safety depends on.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from defenses import secagg

api = 1
version = 1


class Config(secagg.Config):
    """Bits and clip of the quantiser, and what is assumed of the parties.

    ``setting``: "curious", the server follows the protocol and tries to learn from what it sees; "active", it may
    deviate (adds the signed consistency check). ``colluders``: the most silos that are assumed to tell the server all
    that they know. ``threshold``: how many silos' shares give a secret; by default more than half of a round's silos
    ("active": than half of silos and colluders together) and more than ``colluders``. The lattice's parameters follow
    from the number of silos and the bits, and are no option.
    """


def build(config: Config) -> Defense:
    from defenses.channels.rlwe.channel import LatticeSum
    from defenses.channels.secagg.policy import Policy

    policy = Policy(config.setting, config.colluders, config.threshold)
    return Defense(channel=LatticeSum(policy, config.quantiser()))
