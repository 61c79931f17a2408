"""Real updates through the endpoints of threshold CKKS alone; what is opened or read must be right up to its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Layout, Update
from bench.defense.channel import Candidate, Opened
from defenses.channels.threshold_ckks.channel import ThresholdCKKS
from tests.defenses.secagg_play import Play, names

CHANNEL = ThresholdCKKS()


@dataclass
class RealPlay(Play):
    """``exact`` is within the channel's stated error."""

    def exact(self, candidate: Candidate) -> bool:
        return self.right(candidate.round, candidate)

    def right(self, round: int, found: Candidate | Opened) -> bool:
        truth = np.zeros(self.public.layout.size)
        for silo in found.silos:
            update = self.updates[round][silo]
            truth += update.form.spread(update.values)
        return bool(np.abs(found.values - truth).max() <= self.channel.error)


def real(
    silos: int,
    rounds: int = 1,
    size: int = 60,
    seed: int = 0,
    support: NDArray[np.int64] | None = None,
    largest: float = 4.0,
) -> list[dict[str, Update]]:
    """Uniform values in [-largest, largest], extremes included."""
    rng, layout = np.random.default_rng(seed), Layout(("a", "b"), ((1, size // 2), (size - size // 2, 1)))
    count = size if support is None else len(support)
    found = []
    for _ in range(rounds):
        values = rng.uniform(-largest, largest, (silos, count)).astype(np.float32)
        values[:, : min(2, count)] = [largest, -largest][: min(2, count)]
        pairs = zip(names(silos), values, strict=True)
        found.append({name: Update(v, layout, support=support) for name, v in pairs})
    return found
