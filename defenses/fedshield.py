"""FedShield-LLM (Mia and Amini 2025): LoRA weights pruned by magnitude, summed under CKKS with one shared key pair."""

from __future__ import annotations

from typing import Literal

from bench.defense.compose import Defense
from bench.defense.defaults.mean import Mean
from defenses.transforms.prune import MagnitudePruning, PruneConfig

api = 1
version = 1


class Config(PruneConfig):
    """The pruning schedule, and who holds the one decryption key.

    ``key_holder="silos"``: the paper's protocol, all silos share the key pair. ``"server"``: what the published code
    does, where the process that sums also decrypts. The CKKS parameters are the published ones and no option.
    """

    key_holder: Literal["silos", "server"] = "silos"


def build(config: Config) -> Defense:
    from defenses.channels.ckks import CKKS

    return Defense(
        transforms=(MagnitudePruning(config.schedule(), "weights"),),
        channel=CKKS(key_holder=config.key_holder),
        aggregator=Mean(weighted=False, of="weights"),
    )
