"""One training, ready to be run: everything that it is made of, made once and handed down."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from bench.core.parties import silo
from bench.corpus.planting import Planting
from bench.defense.compose import Parts
from bench.spec.run import RunSpec
from bench.training.materials import Materials
from bench.training.variant import Variant

#: what silos train on, and what the game asks about: the same but in a run of its own
Plantings = tuple[Planting, Planting]


@dataclass(frozen=True)
class Case:
    """``run_id`` is that of ``spec`` and ``seed``. ``materials`` and ``plantings`` hold what ``variant`` adds."""

    spec: RunSpec
    seed: int
    run_id: str
    parts: Parts
    variant: Variant
    materials: Materials
    plantings: Plantings

    @property
    def trained(self) -> Planting:
        """What silos train on."""
        return self.plantings[0]

    @property
    def planting(self) -> Planting:
        """What the game asks about."""
        return self.plantings[1]

    @property
    def nominal_sizes(self) -> dict[str, int]:
        """By silo, the records that it trains on as the public settings and sizes say: what weights, rates, steps and
        claims are made from."""
        spec, candidates = self.spec, self.materials.pool.silos
        trained = {name: len(candidates[name]) * spec.pool.share for name in map(silo, range(spec.federation.silos))}
        # rounded as ``bench.corpus.planting.plant`` rounds
        return {name: self.variant.nominal_size(max(1, floor(n + 0.5)), spec) for name, n in trained.items()}
