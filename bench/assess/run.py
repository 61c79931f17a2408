"""One grid, top to bottom: what is stored already, what must run, and every result kept as it comes.

    rows and seeds  ->  jobs, each the cells of one training                                     bench.assess.jobs
    for each job:   its shadows: case -> train, each under a lock of its own                     bench.training
                    its target:  case -> train                                                   bench.training
                    for each row: views -> guesses -> leakage                                    bench.assess.assess
                                  -> Result -> store                                             bench.assess.write

Every step takes what the one above it made. This is the file to read first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.assess.harness import Harness
from bench.assess.jobs import Job, jobs, ordered, shadows_wanted
from bench.assess.write import Writer
from bench.core.errors import Refused, UsageError
from bench.spec.config import canonical_json
from bench.spec.result import Result, Utility
from bench.spec.run import Cell, PluginSpec, Row
from bench.store.locks import Taken

if TYPE_CHECKING:
    from bench.attack.attack import Attack
    from bench.training.case import Case
    from bench.training.training import ShadowRun, TrainedRun


class StillTaken(UsageError):
    """Some cells are being computed by other processes. ``results``: all the others."""

    def __init__(self, refusals: Sequence[str], results: Sequence[Result]) -> None:
        super().__init__(" ".join(dict.fromkeys(refusals)))
        self.results = tuple(results)


def execute(rows: Sequence[Row], seeds: Sequence[int], harness: Harness) -> list[Result]:
    """Results of all rows and seeds, from the store where they are fresh, else computed.

    Raises UsageError (nothing was started for that job), SiloBenchError (training failed), or at the end StillTaken. An
    attack that fails is a result with status ``error``.
    """
    harness.versions.warn(rows, harness.progress.say)
    planned = jobs([harness.pinned(row) for row in rows], seeds)
    found: dict[str, Result] = {}
    late = [job for job in planned if not _tried(job, harness, found)]
    refusals = [why for job in late if (why := _refusal(job, harness, found)) is not None]
    results = [found[cell.cell_id] for job in planned for cell in job.cells if cell.cell_id in found]
    if refusals:
        raise StillTaken(refusals, results)
    return results


def _tried(job: Job, harness: Harness, found: dict[str, Result]) -> bool:
    """Whether a job is done; False where another process holds a run that it needs: others go first."""
    try:
        _carry_out(job, harness, found, patient=False)
    except Taken:
        return False
    return True


def _refusal(job: Job, harness: Harness, found: dict[str, Result]) -> str | None:
    """Carry out a job that could not be before, and wait for shadows, and for a target that somebody only trains. Why
    it is refused where somebody else computes it and nobody said to wait."""
    while True:
        try:
            _carry_out(job, harness, found, patient=True)
        except Taken as taken:
            if taken.holder is None or not taken.holder.passing:
                return str(taken)
            harness.await_run(job.spec.run_id(job.seed))
            continue
        return None


def _carry_out(job: Job, harness: Harness, found: dict[str, Result], patient: bool) -> None:
    """Put every cell's result into ``found``. ``patient``: wait for shadows that other processes hold, and for the
    target where the options say so. Raises Taken where a run is held and not waited for; nothing is held then."""
    missing = _missing(job, harness, found, harness.options.refresh)
    if not missing:
        return
    built = {canonical_json(row.attack): harness.attack(row.attack) for row in missing}
    known = shadows(job, shadows_wanted(missing, built), harness, patient)
    case = harness.case(job.spec, job.seed)
    with harness.hold(case, patient and harness.options.wait):
        # another process may have computed some of them since
        missing = _missing(job, harness, found, harness.options.refresh)
        for result in _computed(case, missing, known, harness):
            found[result.result] = result


def _missing(job: Job, harness: Harness, found: dict[str, Result], refresh: bool) -> list[Row]:
    """The rows of a job that must be computed; what the store has of the others is put into ``found``."""
    missing = []
    for cell in job.cells:
        if cell.cell_id in found:
            continue
        stored = None if refresh else harness.stored(cell)
        if stored is None:
            missing.append(cell.row)
        else:
            found[cell.cell_id] = stored
    return missing


def shadows(job: Job, count: int, harness: Harness, patient: bool) -> list[ShadowRun]:
    """The first ``count`` shadow federations of a job's training, from the store where they are fresh, else trained,
    each under a lock of its own. Those that nobody else holds go first."""
    if not count:
        return []
    from bench.training.training import shadow_specs

    specs = shadow_specs(job.spec, count)
    found: dict[int, ShadowRun] = {}
    for wait in (False, True) if patient else (False,):
        refused: Taken | None = None
        for spec in specs:
            if spec.shadow in found:
                continue
            try:
                found[spec.shadow] = _shadow(harness.case(spec, job.seed), harness, wait)
            except Taken as taken:
                refused = taken
        if refused is not None and not (patient and not wait):
            raise refused
    return [found[spec.shadow] for spec in specs]


def _shadow(case: Case, harness: Harness, patient: bool) -> ShadowRun:
    from bench.training.training import ShadowRun, federate

    transcript = harness.finished(case)
    if transcript is None:
        with harness.hold(case, patient, passing=True):
            harness.drop_stale(case)
            with harness.rounds(case.spec) as on_round:
                _, transcript = federate(case, harness.store, harness.options.transcript_budget, on_round)
    return ShadowRun(case.run_id, transcript, case.planting)


def _computed(case: Case, rows: Sequence[Row], shadows: Sequence[ShadowRun], harness: Harness) -> Iterator[Result]:
    """Train, and attack; the caller holds the run's lock."""
    if not rows:
        return
    try:
        run = trained(case, harness)
    except Refused as refusal:
        writer = Writer(harness)
        for row in rows:
            yield writer.refused(Cell(row, case.seed), case, refusal)
        return
    yield from attacked(run, rows, shadows, harness)


def trained(case: Case, harness: Harness) -> TrainedRun:
    """A finished training, run where it is not stored. The caller holds the run's lock."""
    from bench.training.training import train

    if harness.options.refresh:
        harness.store.discard_run(case.run_id)
    harness.drop_stale(case)
    with harness.rounds(case.spec) as on_round:
        return train(case, harness.store, harness.options.transcript_budget, on_round)


def attacked(run: TrainedRun, rows: Sequence[Row], shadows: Sequence[ShadowRun], harness: Harness) -> Iterator[Result]:
    """Every row's result on a finished training, kept in the store as it comes."""
    from bench.assess.assess import Assessor
    from bench.assess.tools import Memo

    assessor, writer = Assessor(run, Memo(), shadows), Writer(harness)
    built = {canonical_json(row.attack): _lent(row, run.case, harness) for row in rows}
    for spec in {canonical_json(row.attack): row.attack for row in rows}.values():
        if budget := built[canonical_json(spec)].budget(run.spec):
            harness.progress.note(f"budget of {spec.name}: {budget}")
    order = ordered(rows, built)
    try:
        with harness.progress.task("attacking", len(order)) as step:
            for row in order:
                attack = built[canonical_json(row.attack)]
                found = assessor.assess(row.attack.name, attack, row.adversary)
                yield writer.measured(Cell(row, run.case.seed), assessor, found, attack)
                step(f"{row.attack.name} as {row.adversary}")
    finally:
        assessor.drop_views()


def _lent(row: Row, case: Case, harness: Harness) -> Attack:
    """The attack of a row, in a process of its own where it is to be."""
    attack = harness.attack(row.attack)
    if not harness.apart(row):
        return attack
    from bench.assess.isolation.parent import Origin, isolated

    plugin = harness.plugins.find("attack", row.attack.name)
    return isolated(attack, Origin(plugin, row.attack, row.run, case.materials))


def attack_transcript(
    directory: Path, attacks: Sequence[PluginSpec], adversaries: Sequence[str], harness: Harness
) -> list[Result]:
    """Attack a complete transcript as it lies, a stored run's or one from elsewhere; nothing is trained but shadows.

    Raises UsageError where it is malformed, incomplete, or without the origin that scoring needs; Taken where another
    process holds its run, and nobody said to wait.
    """
    from bench.training.origin import read_origin
    from bench.training.training import reopen
    from bench.transcript.transcript import Transcript

    transcript = Transcript(directory)
    spec, seed, plantings = read_origin(transcript)
    pairs = [(attack, adversary) for adversary in adversaries for attack in attacks]
    rows = [Row.model_validate({"run": spec, "attack": attack, "adversary": who}) for attack, who in pairs]
    harness.versions.warn(rows, harness.progress.say)
    built = {canonical_json(row.attack): harness.attack(row.attack) for row in rows}
    known = shadows(Job(spec, seed, tuple(rows)), shadows_wanted(rows, built), harness, patient=True)
    case = harness.case(spec, seed, plantings)
    with harness.hold(case, harness.options.wait) as where:
        return list(attacked(reopen(case, transcript, where), rows, known, harness))


def validation(case: Case, harness: Harness, patient: bool) -> Utility:
    """Train where that is missing, and measure the task's first metric on the validation records alone. ``patient``:
    wait for another process that holds the run, instead of raising Taken."""
    from bench.training.measure.utility import measure_validation
    from bench.training.training import federate

    with harness.hold(case, patient):
        harness.drop_stale(case)
        with harness.rounds(case.spec) as on_round:
            _, transcript = federate(case, harness.store, harness.options.transcript_budget, on_round)
        return measure_validation(transcript, case.parts, case.materials)
