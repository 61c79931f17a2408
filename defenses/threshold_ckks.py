"""FedShield's idea without the shared key: CKKS sums that open only if every silo sends a flooded decryption share.

Each silo holds an additive share of a key that exists nowhere (n-out-of-n, after Mouchet et al. 2021, PETS). Uploads
are encrypted under the sum of all public shares; the server adds them, and every silo sends a decryption share of the
sum over all participants, and of nothing else, drowned in noise that hides its key and what CKKS decryptions leak (Li
and Micciancio 2021). The server, alone or with all silos but one, learns the sum. One silo that is missing stops the
round. What the sum and the released model show of single records is not hidden. Covered are a server that deviates
alone and coalitions that follow the protocol; silos that deviate together with the server are not.
Parameters, proof and estimates: docs/crypto.md. Our own code: neither audited nor constant-time, so not for data that
anybody's safety depends on.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 2


class Config(_Config):
    """``error``: what a value of an opened sum may be off by, absolutely (silos' updates come weighted by their size).
    ``largest``: magnitude of a silo's values, per unit of its weight, up to which sums are right. ``flooding``: -log2
    of how far all decryption shares of a run together may be from showing the sums alone. Ring and modulus follow from
    these, the silos and the size, within the table of 128-bit security; ``degree`` is the least ring that is taken
    (8192 leaves a margin of some hundred bits above it)."""

    error: float = Field(1e-4, gt=0, le=1)
    largest: float = Field(4.0, gt=0, le=2.0**40)
    flooding: int = Field(40, ge=30, le=128)
    degree: Literal[4096, 8192] = 4096


def build(config: Config) -> Defense:
    from defenses.channels.threshold_ckks.channel import ThresholdCKKS

    return Defense(channel=ThresholdCKKS(config.error, config.largest, config.flooding, config.degree))
