"""Secure aggregation (Bonawitz et al. 2017, CCS): the server learns the sum of the updates and no single one.

Updates are quantised, masked pairwise and by each silo alone, and summed modulo a power of two; the sum of integers is
exact. Silos may drop out at any stage, down to a threshold. What the sum and the released model show of single records
is not hidden. Protocol, bytes and assumptions: docs/secure-aggregation.md. Not audited, and not constant-time.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from defenses.transforms.quantize import QuantiseConfig

api = 1
version = 1


class Config(QuantiseConfig):
    """Bits and clip of the quantiser, and what is assumed of the parties.

    ``setting``: "curious", the server follows the protocol and tries to learn from what it sees; "active", it may
    deviate (adds the signed consistency check). ``colluders``: the most silos that are assumed to tell the server all
    that they know. ``threshold``: how many silos' shares give a secret; by default more than half of a round's silos
    ("active": than half of silos and colluders together) and more than ``colluders``.
    """

    setting: Literal["curious", "active"] = "curious"
    colluders: int = Field(0, ge=0, le=10_000)
    threshold: int | None = Field(None, ge=2, le=10_000)


def build(config: Config) -> Defense:
    from defenses.channels.secagg.channel import SecureAggregation
    from defenses.channels.secagg.policy import Policy

    policy = Policy(config.setting, config.colluders, config.threshold)
    return Defense(channel=SecureAggregation(policy, config.quantiser()))
