"""FFA-LoRA (Sun et al. 2024) under DP-SGD: A stays at its random start, only B is trained and sent.

With both matrices trained, noise on A and on B multiplies in B A, and the mean of the silos' factors is not the mean of
their products. With A fixed neither happens, a record's gradient has half as many values for noise to fall on, and an
upload half the bytes.
"""

from __future__ import annotations

from bench.defense.compose import Defense
from defenses.trainers.dp_config import SampledConfig, Send

api = 1
version = 1


class Config(SampledConfig):
    """Options of dp-sgd, and ``send``: ``trained`` uploads B alone; ``all`` the whole adapter, for combinations with
    parts that need it (the change of A is zero)."""

    send: Send = "trained"


def build(config: Config) -> Defense:
    from defenses.transforms.trained_factors import TrainedFactors

    transforms = (TrainedFactors("b"),) if config.send == "trained" else ()
    return Defense(trainer=config.trainer("dp-ffa-lora", "b"), transforms=transforms)
