"""FedShield's pruning with one public mask, and an exact sum: only what is not pruned travels, in about 1.3 bytes.

The schedule of FedShield-LLM (Mia and Amini 2025) decides how many weights a round leaves out; which ones follows from
the global adapter, so that all silos leave out the same, and what is left out is neither encrypted nor sent and stays
as it was. The first round is dense. The sum is ``rlwe``'s: one key per silo, opened by the server, exact
(docs/crypto.md; neither audited nor constant-time).
"""

from __future__ import annotations

from bench.defense.compose import Defense
from bench.defense.defaults.mean import Mean
from defenses import rlwe
from defenses.transforms.public_mask import PublicMaskConfig

api = 1
version = 1


class Config(PublicMaskConfig, rlwe.Config):
    """The pruning schedule as of ``fedshield``, the share of what is sent that goes round (``rotate``), and the
    options of ``rlwe``."""


def build(config: Config) -> Defense:
    summed = rlwe.build(config)
    return Defense(transforms=(config.mask(),), channel=summed.channel, aggregator=Mean(weighted=False, of="delta"))
