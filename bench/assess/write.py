"""Results as they are written down: what was asked, what was found, and what made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import Refused
from bench.plugins.find import Plugins
from bench.plugins.provenance import fingerprint, provenance
from bench.spec.result import Result
from bench.spec.run import Cell, RunSpec
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.assess.assess import Assessor
    from bench.assess.plays.table import Assessment
    from bench.attack.attack import Attack
    from bench.training.materials import Materials
    from bench.training.training import TrainedRun


class Writer:
    """Makes results and keeps them in ``store``."""

    def __init__(self, store: Store, plugins: Plugins, preset: str) -> None:
        self.store, self.plugins, self.preset = store, plugins, preset

    def fingerprint(self, cell: Cell) -> str:
        """What a result of ``cell`` is made by: the harness, and the task, the defenses and the attack that it
        names."""
        return fingerprint([*self._sources(cell.run), self._source("attack", cell.attack.name)])

    def made_by(self, spec: RunSpec) -> dict[str, str]:
        """Of a training: ``fingerprint`` of what it depends on, ``measured_by`` of what measures its usefulness."""
        files = [*self._sources(spec), *self._variant_sources(spec)]
        task = self._source("task", spec.task.name)
        return {"fingerprint": fingerprint(files, of="training"), "measured_by": fingerprint([task], of="utility")}

    def _sources(self, spec: RunSpec) -> list[Path | None]:
        return [self._source("task", spec.task.name), *(self._source("defense", d.name) for d in spec.defense)]

    def _source(self, kind: Any, name: str) -> Path | None:
        return self.plugins.find(kind, name).path

    def _variant_sources(self, spec: RunSpec) -> Sequence[Path | None]:
        """Sources that only a run of its own takes: its variant's, and the attack's that deviates in it."""
        if spec.variant is None:
            return []
        from bench.training import variants

        folder = Path(variants.__file__).parent
        own = [folder / f"{spec.variant.name}.py", folder.parent / "behaviour.py"]
        deviating = spec.variant.config.get("attack")
        return [*own, self._source("attack", deviating["name"])] if isinstance(deviating, dict) else own

    def measured(self, cell: Cell, run: TrainedRun, assessor: Assessor, found: Assessment, attack: Attack) -> Result:
        """The row of an attack that ran on a finished training, or could not."""
        of_its_own = run.spec.variant is not None
        # only an isolated attack says what confined it
        confined: str | None = getattr(attack, "confined", None)
        made = {} if confined is None else {"isolated": confined or "process only"}
        result = Result(
            **self._identity(cell, run.seed),
            status=found.status,
            reads=found.reads,
            leakage=found.leakage,
            # what a run of its own does to usefulness says nothing about the defense
            utility=() if of_its_own else run.utility,
            cost={**run.cost, **found.cost},
            claim=assessor.claim(cell.adversary),
            learned=run.learned,
            simulated=(*_simulated(cell), *run.parts.simulated),
            adaptive=attack.adaptive,
            active=run.spec.active,
            audit=found.audit,
            scores_sha256=self.store.save_scores(found.sheet, found.details) if found.sheet is not None else None,
            note=found.note,
            provenance={**self._provenance(assessor.materials, run.planting.id), **made},
        )
        return self.store.save_result(result)

    def refused(self, cell: Cell, seed: int, materials: Materials, refusal: Refused, adaptive: bool) -> Result:
        """The row of a federation that stopped because its protocol did not take what a coalition did."""
        result = Result(
            **self._identity(cell, seed),
            status="refused",
            simulated=_simulated(cell),
            adaptive=adaptive,
            active=True,
            note=str(refusal),
            provenance=self._provenance(materials, cell.run.planting_id(seed)),
        )
        return self.store.save_result(result)

    def _identity(self, cell: Cell, seed: int) -> dict[str, Any]:
        return {
            "cell": cell.cell_id,
            "run": cell.run.run_id(seed),
            "result": cell.result_id(seed),
            "fingerprint": self.fingerprint(cell),
            "seed": seed,
            "task": cell.run.task.name,
            "defense": cell.run.defense_name,
            "attack": cell.attack.name,
            "adversary": cell.adversary,
            "spec": cell.model_dump(mode="json"),
        }

    def _provenance(self, materials: Materials, planting: str) -> dict[str, Any]:
        return {
            **provenance(str(materials.model.device)),
            "preset": self.preset,
            "planting": planting,
            "model": {"revision": materials.source.revision, "sha256": materials.source.sha256},
        }


def _simulated(cell: Cell) -> tuple[str, ...]:
    return ("secrets from --secret-seed",) if cell.run.secret_seed is not None else ()
