"""Results as they are written down: what was asked, what was found, and what made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.core.errors import Refused
from bench.plugins.provenance import provenance
from bench.spec.result import Data, Organisation, Result
from bench.spec.run import Cell

if TYPE_CHECKING:
    from bench.assess.assess import Assessor
    from bench.assess.harness import Harness
    from bench.assess.plays.table import Assessment
    from bench.attack.attack import Attack
    from bench.training.case import Case


class Writer:
    """Makes results and keeps them in the harness's store."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    def measured(self, cell: Cell, assessor: Assessor, found: Assessment, attack: Attack) -> Result:
        """The result of an attack that ran on a finished training, or could not."""
        run, case = assessor.run, assessor.run.case
        of_its_own = case.spec.variant is not None
        # only an isolated attack says what confined it
        confined: str | None = getattr(attack, "confined", None)
        made = {} if confined is None else {"isolated": confined or "process only"}
        store = self.harness.store
        result = Result(
            **self._identity(cell, case),
            status=found.status,
            reads=found.reads,
            leakage=found.leakage,
            # what a run of its own does to usefulness says nothing about the defense
            utility=() if of_its_own else run.utility,
            cost={**run.cost, **found.cost},
            claim=assessor.claim(cell.row.adversary),
            learned=run.learned,
            simulated=(*_simulated(cell), *case.parts.simulated),
            knows=attack.knows,
            adaptive=attack.adaptive,
            active=case.spec.active,
            audit=found.audit,
            scores_sha256=store.save_scores(found.sheet, found.details) if found.sheet is not None else None,
            note=found.note,
            provenance={**self._provenance(case), **made},
        )
        return store.save_result(result)

    def refused(self, cell: Cell, case: Case, refusal: Refused) -> Result:
        """The result of a federation that stopped because its protocol did not take what a coalition did."""
        attack = self.harness.attack(cell.row.attack)
        result = Result(
            **self._identity(cell, case),
            status="refused",
            simulated=_simulated(cell),
            knows=attack.knows,
            adaptive=attack.adaptive,
            active=True,
            note=str(refusal),
            provenance=self._provenance(case),
        )
        return self.harness.store.save_result(result)

    def _identity(self, cell: Cell, case: Case) -> dict[str, Any]:
        row = cell.row
        made_by = self.harness.fingerprints.of_result(row)
        self.harness.store.save_sources(made_by.text, made_by.parts)
        return {
            "row": row.row_id,
            "run": case.run_id,
            "result": cell.cell_id,
            "fingerprint": made_by.text,
            "versions": self.harness.versions.of(row),
            "seed": cell.seed,
            "task": row.run.task.name,
            "defense": row.run.defense_name,
            "attack": row.attack.name,
            "adversary": row.adversary,
            "organisations": _organisations(case),
            "data": _data(case),
            "spec": row.model_dump(mode="json"),
        }

    def _provenance(self, case: Case) -> dict[str, Any]:
        source = case.materials.source
        return {
            **provenance(str(case.materials.model.device)),
            "preset": self.harness.options.preset,
            "planting": case.planting.id,
            "model": {"revision": source.revision, "sha256": source.sha256},
        }


def _data(case: Case) -> Data:
    from bench.training.materials import data_of  # with torch, which an answer from the store does without

    return data_of(case.materials)


def _organisations(case: Case) -> tuple[Organisation, ...]:
    names, sizes = case.materials.pool.names, case.nominal_sizes
    return tuple(Organisation(silo=silo, name=name, records=sizes[silo]) for silo, name in names.items())


def _simulated(cell: Cell) -> tuple[str, ...]:
    return ("secrets from --secret-seed",) if cell.row.run.secret_seed is not None else ()
