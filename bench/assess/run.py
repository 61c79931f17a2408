"""One grid, top to bottom: what is stored already, what must run, and every result kept as it comes.

    for each training spec and seed:
        materials (model, corpus, pool)  ->  training (transcript, utility, cost)  ->  for each adversary and attack:
        views  ->  guesses  ->  leakage  ->  Result  ->  store

This is the file to read first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.assess.jobs import Job, jobs, ordered
from bench.assess.progress import Progress
from bench.assess.write import Writer
from bench.core.errors import Refused
from bench.plugins.find import Plugins
from bench.spec.config import canonical_json
from bench.spec.result import Result, Utility
from bench.spec.run import Cell, ModelSpec, PluginSpec, RunSpec
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.assets.assets import Assets
    from bench.attack.attack import Attack
    from bench.defense.compose import Parts
    from bench.training.materials import Materials, Workshop
    from bench.training.training import ShadowRun, TrainedRun
    from bench.training.variant import Variant

#: bytes of messages kept per run before frames of middle rounds are dropped
TRANSCRIPT_BUDGET = 8 * 2**30
#: committed plantings, so that a new defense is compared on the same secret
COMMITTED_PLANTINGS = Path("leaderboards/plantings")


def execute(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    store: Store,
    *,
    plugins: Plugins,
    preset: str = "",
    quiet: bool = False,
    refresh: bool = False,
    transcript_budget: int = TRANSCRIPT_BUDGET,
    assets: Assets | None = None,
    isolate: bool | None = None,
) -> list[Result]:
    """Results of all cells and seeds, from the store where they are fresh, else computed. ``isolate``: whether attacks
    run in processes of their own that hold nothing but the view's files; None: those that are not built in do.

    Raises UsageError (nothing was started for that job) or SiloBenchError (training failed). An attack that fails is a
    result with status ``error``.
    """
    runner = Runner(store, plugins, preset, Progress(quiet), transcript_budget, assets, isolate)
    cells = [runner.pinned(cell) for cell in cells]
    return [result for job in jobs(cells, seeds) for result in runner.run(job, refresh)]


def attack_transcript(
    directory: Path,
    attacks: Sequence[PluginSpec],
    adversary_names: Sequence[str],
    store: Store,
    *,
    plugins: Plugins,
    quiet: bool = False,
    assets: Assets | None = None,
    isolate: bool | None = None,
) -> list[Result]:
    """Attack a complete transcript as it lies, a stored run's or one from elsewhere; nothing is trained.

    Raises UsageError where it is malformed, incomplete, or without the origin that scoring needs.
    """
    from bench.training.origin import read_origin
    from bench.training.training import build_parts, reopen
    from bench.transcript.transcript import Transcript

    transcript = Transcript(directory)
    spec, seed, _ = read_origin(transcript)
    cells = [
        Cell.model_validate({"run": spec, "attack": attack, "adversary": adversary})
        for adversary in adversary_names
        for attack in attacks
    ]
    runner = Runner(store, plugins, "", Progress(quiet), TRANSCRIPT_BUDGET, assets, isolate)
    with store.lock(spec.run_id(seed)) as where:
        materials = runner.materials(spec, seed)
        trained = reopen(transcript, where, materials, build_parts(spec, plugins), runner._variant(spec))
        return list(runner.attack(trained, materials, cells))


class Runner:
    """Runs jobs one after the other; model and corpus are shared by those that agree on them."""

    def __init__(
        self,
        store: Store,
        plugins: Plugins,
        preset: str,
        progress: Progress,
        budget: int,
        assets: Assets | None,
        isolate: bool | None = None,
    ) -> None:
        self.store, self.plugins, self.progress = store, plugins, progress
        self.budget, self.assets, self.isolate = budget, assets, isolate
        self.writer = Writer(store, plugins, preset)
        self._workshop: Workshop | None = None
        self._shadow_runs: dict[str, ShadowRun] = {}

    def pinned(self, cell: Cell) -> Cell:
        """The cell with its model's revision filled in (a hub's commit, a local directory's SHA-256), so that its
        identity follows the weights. Models that SiloBench pins itself stay as they are."""
        model = cell.run.model
        if self._is_pinned(model):
            return cell
        revision = self._assets().model(model).revision
        changed = cell.run.model_copy(update={"model": model.model_copy(update={"revision": revision})})
        return cell.model_copy(update={"run": changed})

    def _is_pinned(self, model: ModelSpec) -> bool:
        from bench.assets.assets import NAMES

        return model.name in NAMES or model.revision is not None

    def _assets(self) -> Assets:
        from bench.assets.assets import Assets

        return self.assets or Assets(quiet=self.progress.quiet)

    def run(self, job: Job, refresh: bool = False) -> list[Result]:
        """One job: stored results where every one is fresh; else train what is missing and attack."""
        stored = [self.stored(cell, job.seed) for cell in job.cells]
        missing = [c for c, s in zip(job.cells, stored, strict=True) if s is None or refresh]
        fresh = {c.cell_id: s for c, s in zip(job.cells, stored, strict=True) if s is not None and c not in missing}
        if missing:
            with self.store.lock(job.spec.run_id(job.seed)):
                for result in self._compute(job, missing, refresh):
                    fresh[result.cell] = result
        return [fresh[cell.cell_id] for cell in job.cells]

    def stored(self, cell: Cell, seed: int) -> Result | None:
        """The stored result, if what produced it is what is installed now and it is no error."""
        result = self.store.result(cell.result_id(seed))
        if result is None or result.status == "error" or result.fingerprint != self.writer.fingerprint(cell):
            return None
        if self._apart(cell) and "isolated" not in result.provenance:
            return None
        return result

    def _compute(self, job: Job, cells: Sequence[Cell], refresh: bool) -> Iterator[Result]:
        try:
            run, materials = self._train(job, refresh)
        except Refused as refusal:
            source = self.materials(job.spec, job.seed)
            for cell in cells:
                yield self.writer.refused(cell, job.seed, source, refusal, self.build_attack(cell.attack).adaptive)
            return
        yield from self.attack(run, materials, cells)

    def attack(self, run: TrainedRun, materials: Materials, cells: Sequence[Cell]) -> Iterator[Result]:
        """Every cell's result on a finished training, kept in the store as it comes."""
        from bench.assess.assess import Assessor
        from bench.assess.tools import Memo

        assessor = Assessor(run, materials, Memo(), lambda count: self._shadows(run, count))
        built = {canonical_json(c.attack): self._lent(c, materials) for c in cells}
        for spec in {canonical_json(c.attack): c.attack for c in cells}.values():
            if budget := built[canonical_json(spec)].budget(run.spec):
                self.progress.note(f"budget of {spec.name}: {budget}")
        order = ordered(cells, built)
        try:
            with self.progress.task("attacking", len(order)) as step:
                for cell in order:
                    attack = built[canonical_json(cell.attack)]
                    found = assessor.assess(cell.attack.name, attack, cell.adversary)
                    yield self.writer.measured(cell, run, assessor, found, attack)
                    step(f"{cell.attack.name} as {cell.adversary}")
        finally:
            assessor.drop_views()

    def _shadows(self, run: TrainedRun, count: int) -> list[ShadowRun]:
        """The first ``count`` shadow federations of ``run``, from the store where they are fresh, else trained."""
        from bench.training.training import shadow_specs

        return [self._shadow(Job(spec, run.seed, ())) for spec in shadow_specs(run.spec, count)]

    def _shadow(self, job: Job) -> ShadowRun:
        from bench.training.training import ShadowRun, federate

        run_id = job.spec.run_id(job.seed)
        if run_id not in self._shadow_runs:
            with self.store.lock(run_id, wait=True):
                parts, materials = self._prepare(job, refresh=False)
                with self._rounds(job) as on_round:
                    _, transcript, (_, planting) = federate(
                        job.spec,
                        job.seed,
                        materials,
                        parts,
                        self.store,
                        self.budget,
                        on_round,
                        self._variant(job.spec),
                    )
            self._shadow_runs[run_id] = ShadowRun(run_id, transcript, planting)
        return self._shadow_runs[run_id]

    def _train(self, job: Job, refresh: bool) -> tuple[TrainedRun, Materials]:
        from bench.training.training import train

        parts, materials = self._prepare(job, refresh)
        variant = self._variant(job.spec)
        with self._rounds(job) as on_round:
            run = train(job.spec, job.seed, materials, parts, self.store, self.budget, on_round, variant)
        return run, materials

    def _variant(self, spec: RunSpec) -> Variant:
        from bench.training.variant import build

        return build(spec.variant, self.plugins)

    def materials(self, spec: RunSpec, seed: int) -> Materials:
        """What a run is made from, whatever its variant adds."""
        return self._variant(spec).materials(self.shop().materials(spec, seed), spec, seed)

    def _prepare(self, job: Job, refresh: bool) -> tuple[Parts, Materials]:
        """Everything that a training needs; a stored run that is not to be continued is dropped."""
        from bench.training.training import build_parts

        parts = build_parts(job.spec, self.plugins)
        self._drop_stale(job, refresh)
        self.progress.note(f"{job.spec.task.name}, {job.spec.defense_name}, seed {job.seed}: loading model and records")
        materials = self.materials(job.spec, job.seed)
        self._adopt(job)
        spec = {"spec": job.spec.model_dump(mode="json"), **self.writer.made_by(job.spec)}
        self.store.save_spec(job.spec.run_id(job.seed), spec)
        return parts, materials

    def _drop_stale(self, job: Job, refresh: bool) -> None:
        """Remove what is stored of a run where other code made it: all of it, or what was measured on it alone."""
        run_id, made_by = job.spec.run_id(job.seed), self.writer.made_by(job.spec)
        known = self.store.spec(run_id)
        if refresh or (known is not None and known.get("fingerprint") != made_by["fingerprint"]):
            self.store.discard_run(run_id)
        elif known is not None and known.get("measured_by") != made_by["measured_by"]:
            self.store.discard_summary(run_id)

    @contextmanager
    def _rounds(self, job: Job) -> Iterator[Callable[[int], None]]:
        """Shows a training's progress, round by round."""
        rounds = job.spec.federation.rounds
        shadow = f", shadow {job.spec.shadow}" if job.spec.shadow else ""
        with self.progress.task(f"training {job.spec.defense_name}{shadow}", rounds) as step:
            yield lambda r: step(f"round {r + 1} of {rounds}") if r >= 0 else None

    def validation(self, job: Job) -> Utility:
        """Train where that is missing, and measure the task's first metric on the validation records alone. The caller
        holds the run's lock."""
        from bench.training.training import federate
        from bench.training.utility import measure_validation

        parts, materials = self._prepare(job, refresh=False)
        with self._rounds(job) as on_round:
            _, transcript, _ = federate(job.spec, job.seed, materials, parts, self.store, self.budget, on_round)
        return measure_validation(transcript, parts, materials)

    def _adopt(self, job: Job) -> None:
        """Take the committed planting of this task, pool, partition and seed, where the checkout has one."""
        planting_id = job.spec.planting_id(job.seed)
        if self.store.planting(planting_id) is None and COMMITTED_PLANTINGS.is_dir():
            self.store.adopt(COMMITTED_PLANTINGS, [planting_id])

    def shop(self) -> Workshop:
        """Models and corpora of this process."""
        from bench.training.materials import Workshop

        if self._workshop is None:
            self._workshop = Workshop(self.plugins, self._assets())
        return self._workshop

    def _lent(self, cell: Cell, materials: Materials) -> Attack:
        """The attack of a cell, in a process of its own where it is to be."""
        attack = self.build_attack(cell.attack)
        if not self._apart(cell):
            return attack
        from bench.assess.isolation.parent import Origin, isolated

        return isolated(attack, Origin(self.plugins.find("attack", cell.attack.name), cell.attack, cell.run, materials))

    def _apart(self, cell: Cell) -> bool:
        """Whether a cell's attack runs in a process of its own."""
        foreign = self.plugins.find("attack", cell.attack.name).origin != "built-in"
        return foreign if self.isolate is None else self.isolate

    def build_attack(self, spec: PluginSpec) -> Attack:
        attack: Attack = self.plugins.find("attack", spec.name).build(spec.config)
        return attack
