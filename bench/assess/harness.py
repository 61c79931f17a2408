"""What the runs of one command share: store, plug-ins, options, models and records, and what the code is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.assess.progress import Progress
from bench.attack.by_game import question
from bench.plugins.find import Plugins
from bench.plugins.fingerprint import Fingerprint, Fingerprints
from bench.plugins.versions import Versions
from bench.spec.result import Result
from bench.spec.run import Cell, ModelSpec, PluginSpec, Row, RunSpec
from bench.store.locks import Holder
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.attack.attack import Attack
    from bench.training.case import Case, Plantings
    from bench.training.materials import Workshop
    from bench.transcript.transcript import Transcript

#: bytes of messages kept per run before frames of middle rounds are dropped
TRANSCRIPT_BUDGET = 8 * 2**30
#: committed plantings, so that a new defense is compared on the same secret
COMMITTED_PLANTINGS = Path("leaderboards/plantings")


@dataclass(frozen=True)
class Options:
    """How runs are carried out; nothing here decides a figure.

    ``refresh``: train and attack anew what is stored. ``wait``: for runs that other processes compute, instead of
    refusing them at the end. ``isolate``: whether attacks run in processes of their own that hold nothing but the
    view's files; None: those that are not built in do.
    """

    preset: str = ""
    quiet: bool = False
    refresh: bool = False
    wait: bool = False
    isolate: bool | None = None
    transcript_budget: int = TRANSCRIPT_BUDGET


_AS_USUAL = Options()


class Harness:
    """One per command. Model and corpus are loaded once for all runs that agree on them, sources are read once.

    ``workshop``: another command's of this process, so that what it has loaded serves again."""

    def __init__(
        self, store: Store, plugins: Plugins, options: Options = _AS_USUAL, workshop: Workshop | None = None
    ) -> None:
        self.store, self.plugins, self.options = store, plugins, options
        self.progress = Progress(options.quiet)
        self.fingerprints, self.versions = Fingerprints(plugins), Versions(plugins)
        self._workshop = workshop

    def workshop(self) -> Workshop:
        """Models and corpora of this process."""
        from bench.assets.assets import Assets
        from bench.training.materials import Workshop

        if self._workshop is None:
            self._workshop = Workshop(self.plugins, Assets(quiet=self.progress.quiet), say=self.progress.once)
        return self._workshop

    def pinned(self, row: Row) -> Row:
        """The row with its model's revision filled in (a hub's commit, a local directory's SHA-256), so that its
        identity follows the weights. Models that SiloBench pins itself stay as they are."""
        model = row.run.model
        if _is_pinned(model):
            return row
        revision = self.workshop().assets.model(model).revision
        changed = row.run.model_copy(update={"model": model.model_copy(update={"revision": revision})})
        return row.model_copy(update={"run": changed})

    def case(self, spec: RunSpec, seed: int, plantings: Plantings | None = None) -> Case:
        """A training with all that it is made of. ``plantings``: those of a transcript from anywhere; None: the
        store's. Raises UsageError where its parts don't combine, or records or model can't be had."""
        from bench.training.case import Case
        from bench.training.measure.checks import check
        from bench.training.training import build_parts, draw_plantings
        from bench.training.units import separated
        from bench.training.variant import build

        parts, variant = build_parts(spec, self.plugins), build(spec.variant, self.plugins)
        self.progress.note(f"{spec.task.name}, {spec.defense_name}, seed {seed}: loading model and records")
        materials = variant.materials(self.workshop().materials(spec, seed), spec, seed)
        check(materials)
        if plantings is None:
            self._adopt(spec.planting_id(seed))
            plantings = draw_plantings(variant, materials, spec, seed, self.store)
        materials, asked = separated(materials, plantings[1], parts.records, spec.pool.max_tokens)
        plantings = plantings if asked is plantings[1] else (plantings[0], asked)
        return Case(spec, seed, spec.run_id(seed), parts, variant, materials, plantings)

    def _adopt(self, planting_id: str) -> None:
        """Take the committed planting of this task, pool, partition and seed, where the checkout has one."""
        if self.store.planting(planting_id) is None and COMMITTED_PLANTINGS.is_dir():
            self.store.adopt(COMMITTED_PLANTINGS, [planting_id])

    @contextmanager
    def hold(self, case: Case, patient: bool, passing: bool = False) -> Iterator[Path]:
        """Hold a run's lock, and get its directory. ``patient``: wait for whoever has it, and say for whom, instead of
        raising Taken. ``passing``: only to train it."""
        what = f"{case.spec.defense_name} on {case.spec.task.name}, seed {case.seed}"
        doing = f"training {what} (shadow {case.spec.shadow})" if passing else f"computing {what}"
        waiting = self._waiting(case.run_id) if patient else None
        with self.store.lock(case.run_id, Holder(doing, passing), waiting) as directory:
            yield directory

    def await_run(self, run_id: str) -> None:
        """Wait until nobody holds a run, and say for whom."""
        with self.store.lock(run_id, Holder("looking whether it is free", passing=True), self._waiting(run_id)):
            pass

    def _waiting(self, run_id: str) -> Callable[[Holder | None], None]:
        def say(holder: Holder | None) -> None:
            self.progress.say(f"waiting for run {run_id}, held by {holder or 'another process'}")

        return say

    def finished(self, case: Case) -> Transcript | None:
        """The stored transcript of a training, where it is complete and of today's code; else None."""
        from bench.transcript.transcript import Transcript

        root = self.store.run_dir(case.run_id) / "transcript"
        if self._changed(case, "made_by", self.fingerprints.of_training(case.spec)) != ():
            return None
        if not (root / "manifest.json").exists():
            return None
        transcript = Transcript(root)
        return transcript if transcript.committed() == transcript.public.rounds - 1 else None

    def _changed(self, case: Case, key: str, now: Fingerprint) -> tuple[str, ...] | None:
        """What of a stored run's sources is other than now; None where nothing is stored of it."""
        known = self.store.spec(case.run_id)
        if known is None:
            return None
        former = known.get(key)
        return now.changed(former if isinstance(former, dict) else {})

    def attack(self, spec: PluginSpec) -> Attack:
        """Raises UsageError where it can't be built, or lacks what its game asks."""
        built: Attack = self.plugins.find("attack", spec.name).build(spec.config)
        question(built)
        return built

    def apart(self, row: Row) -> bool:
        """Whether a row's attack runs in a process of its own."""
        foreign = self.plugins.find("attack", row.attack.name).origin != "built-in"
        return foreign if self.options.isolate is None else self.options.isolate

    def stored(self, cell: Cell) -> Result | None:
        """The stored result of a cell, if what produced it is what is installed now and it is no error. Where only the
        scoring has another version since, its figures are computed anew from its sheet."""
        result = self.store.result(cell.cell_id)
        if result is None or result.status == "error":
            return None
        if self.apart(cell.row) and "isolated" not in result.provenance:
            return None
        now = self.fingerprints.of_result(cell.row)
        if result.fingerprint == now.text:
            return result
        changed = now.changed(self.store.sources(result.fingerprint))
        found = self._rescored(cell, result, changed)
        if found is None:
            self._tell(f"results in {self.store.root} are of other code", changed)
        return found

    def _rescored(self, cell: Cell, result: Result, changed: tuple[str, ...]) -> Result | None:
        from bench.assess.rescore import only_scoring_is_new, rescored

        now = self.fingerprints.of_result(cell.row)
        versions = self.versions.of(cell.row)
        if not only_scoring_is_new(result, versions, changed):
            return None
        sheet = self.store.scores(result.scores_sha256) if result.scores_sha256 is not None else None
        if sheet is None:
            return None
        anew = rescored(result, sheet).model_copy(update={"fingerprint": now.text, "versions": versions})
        self.store.save_sources(now.text, now.parts)
        return self.store.save_result(anew)

    def drop_stale(self, case: Case) -> None:
        """Remove what is stored of a run where other code made it: all of it, or what was measured on it alone. The
        caller holds its lock."""
        made, measured = self.fingerprints.of_training(case.spec), self.fingerprints.of_measuring(case.spec)
        if changed := self._changed(case, "made_by", made):
            self._tell(f"run {case.run_id} was trained by other code", changed)
            self.store.discard_run(case.run_id)
        elif changed := self._changed(case, "measured_by", measured):
            self._tell(f"run {case.run_id} was measured by other code", changed)
            self.store.discard_summary(case.run_id)
        spec = case.spec.model_dump(mode="json")
        self.store.save_spec(
            case.run_id, {"spec": spec, "made_by": dict(made.parts), "measured_by": dict(measured.parts)}
        )

    def _tell(self, what: str, changed: tuple[str, ...]) -> None:
        shown = ", ".join(changed[:6]) + (", ..." if len(changed) > 6 else "")
        self.progress.once(f"{what} (changed since: {shown}): done anew")

    @contextmanager
    def rounds(self, spec: RunSpec) -> Iterator[Callable[[int], None]]:
        """Shows a training's progress, round by round."""
        rounds = spec.federation.rounds
        shadow = f", shadow {spec.shadow}" if spec.shadow else ""
        with self.progress.task(f"training {spec.defense_name}{shadow}", rounds) as step:
            yield lambda r: step(f"round {r + 1} of {rounds}") if r >= 0 else None


def _is_pinned(model: ModelSpec) -> bool:
    from bench.assets.assets import NAMES

    return model.name in NAMES or model.revision is not None
