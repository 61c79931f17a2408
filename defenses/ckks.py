"""CKKS as small as it gets: one flat vector, the least prime for the error asked for, one key pair for all silos."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.defense.compose import Defense
from bench.spec.config import Config as _Config

api = 1
version = 1


class Config(_Config):
    """``error``: what a value of an opened sum may be off by, absolutely (silos' updates come weighted by their size).
    ``largest``: magnitude of a silo's values, per unit of its weight, up to which sums are right. ``key_holder``: who
    decrypts, as for ``fedshield``. ``degree``: of the ring; what breaks 128-bit security is refused."""

    error: float = Field(1e-4, gt=0, le=1)
    largest: float = Field(4.0, gt=0, le=2.0**40)
    key_holder: Literal["silos", "server"] = "silos"
    degree: Literal[1024, 2048, 4096, 8192] = 4096


def build(config: Config) -> Defense:
    from defenses.channels.flat_ckks import FlatCKKS

    return Defense(channel=FlatCKKS(config.error, config.largest, config.key_holder, config.degree))
