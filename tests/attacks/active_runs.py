"""Small federations in which a coalition deviates, trained for real on the packaged model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.assess.assess import Assessor
from bench.assess.plays.table import Assessment
from bench.assess.tools import Memo
from bench.attack.attack import Attack
from bench.core.adversaries import assignments
from bench.core.streams import SecretStreams
from bench.corpus.planting import plant
from bench.plugins.find import Plugins
from bench.spec.run import RunSpec
from bench.stats import null_margin
from bench.training.training import TrainedRun
from bench.view.build import build
from bench.view.view import View
from tests.trained import train

SECRET = 3


def spec(defense: str = "fedavg", silos: int = 3, rounds: int = 1, options: Any = None, **federation: Any) -> RunSpec:
    local = {"epochs": 8, "batch": 8, "lr": 5e-3}
    return RunSpec.model_validate(
        {
            "task": {"name": "clinical-notes", "config": {"notes": 800, "seed": 0}},
            "model": {"name": "tiny"},
            "pool": {"candidates": 60, "validation": 0, "heldout": 6, "population": 16, "max_tokens": 40},
            "federation": {"silos": silos, "rounds": rounds, "local": local, **federation},
            "defense": [{"name": defense, "config": options or {}}],
            "secret_seed": SECRET,
        }
    )


def auc(found: Assessment) -> float:
    assert found.status == "ok", found.note
    return next(row.value for row in found.leakage if row.name == "auc" and row.value is not None)


@dataclass
class Ground:
    """A trained run and what it takes to attack it."""

    attack: Attack
    name: str
    adversary: str
    run: TrainedRun
    folder: Path

    def view(self) -> View:
        """What the adversary's first coalition reads, with the attack's openers."""
        run = self.run
        one = assignments(self.adversary, run.transcript.public.silos)[0]
        where = self.folder / "views" / f"{self.name}-{run.case.run_id}"
        made = build(
            run.transcript,
            run.parts,
            self.adversary,
            one,
            where,
            openers=self.attack.openers,
        )
        assert self.attack.behaviour is None or made.victims
        return made

    def assess(self) -> Assessment:
        assessor = Assessor(self.run, Memo())
        try:
            return assessor.assess(self.name, self.attack, self.adversary)
        finally:
            assessor.drop_views()

    def margin(self) -> float:
        """How far from 1/2 an AUC lies by chance, once in 10^6, asked about one silo alone."""
        silo = "silo-1" if self.adversary == "silo" else "silo-0"
        asked = [self.run.planting.members[silo], self.run.planting.nonmembers[silo]]
        return null_margin(np.repeat([True, False], [len(held) for held in asked]))

    def auc(self) -> float:
        return auc(self.assess())

    def with_other_truth(self) -> Ground:
        """The same run, scored against members that were drawn independently of those it was trained on."""
        pool = self.run.case.materials.pool
        share = self.run.spec.pool.share
        other = plant("independent", pool.silos, pool.clusters, share, SecretStreams("game/other", 99))
        return replace(self, run=replace(self.run, case=replace(self.run.case, plantings=(other, other))))


def ground(folder: Path, base: RunSpec, name: str, adversary: str = "server", **config: Any) -> Ground:
    """The run of ``base`` that the attack ``name`` asks for, trained, or found in ``folder``."""
    plugins = Plugins()
    plugin = plugins.find("attack", name)
    attack = plugin.build(plugin.validate(config))
    one = base.model_copy(update={"variant": attack.variant(adversary)})
    return Ground(attack, name, adversary, train(one, folder), folder)
