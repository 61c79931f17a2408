"""Selective encryption after FedML-HE (Jin et al. 2023): what changes most under CKKS, the rest in clear."""

from __future__ import annotations

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``share``: of the coordinates that is encrypted from the second round on; the first round is encrypted whole, and
    its sum ranks them (the paper ranks by sensitivity to labels instead). ``error``, ``largest``: of the encrypted
    part, as for ``ckks``."""

    share: float = Field(0.1, gt=0, lt=1)
    error: float = Field(1e-4, gt=0, le=1)
    largest: float = Field(4.0, gt=0, le=2.0**40)


def build(config: Config) -> Defense:
    from defenses.channels.selective import SelectiveCKKS

    return Defense(channel=SelectiveCKKS(config.share, config.error, config.largest))
