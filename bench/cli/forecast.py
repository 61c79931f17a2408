"""What a grid would take before anything runs: which cells are stored, which trainings are missing, time and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.assess.harness import Harness, Options
from bench.assess.jobs import Job, jobs
from bench.assets.assets import Assets
from bench.cli.estimate import attack_seconds, training_bytes, training_seconds
from bench.plugins.find import Plugins
from bench.spec.config import canonical_json
from bench.spec.run import Row, RunSpec
from bench.store.store import Store
from bench.training.training import build_parts, shadow_specs
from bench.transcript.transcript import Transcript


@dataclass(frozen=True)
class Estimate:
    """What one cell would take. ``row``, ``cell``: their ids. ``trainings``: federations that it would have to train,
    shadows among them. ``budget``: ``Attack.budget``. ``seconds`` and ``bytes`` are rough, and 0 where the result is
    stored."""

    seed: int
    row: str
    cell: str
    stored: bool
    trainings: int = 0
    budget: str = ""
    seconds: float = 0.0
    bytes: int = 0


def estimate(rows: Sequence[Row], seeds: Sequence[int], store: Store, *, plugins: Plugins) -> list[Estimate]:
    """Per cell: whether it is stored, and a rough time and size; a training's is put on its first missing cell, and
    an attack's work on its first adversary's, whose passes the others share.

    Builds every defense, so that parts that don't combine are found, and looks at local models without loading them,
    and at what each task asks to be measured. Raises UsageError.
    """
    for run in {(r.run.model, r.run.federation.lora, r.run.pool): r.run for r in rows}.values():
        path = Assets(quiet=True).examine(run.model)
        if path is not None:
            from bench.model.probe import check_outline

            check_outline(path, run.model, run.federation.lora.targets, run.pool.max_tokens)
    for run in {(r.run.task.name, canonical_json(r.run.task), r.run.model.name): r.run for r in rows}.values():
        _look_at_task(run, plugins)
    harness = Harness(store, plugins, Options(quiet=True))
    return [one for job in jobs(rows, seeds) for one in _estimates(harness, job)]


def _look_at_task(run: RunSpec, plugins: Plugins) -> None:
    """Raises UsageError for a metric that there is not, and for labels that the model, if it is here, can't tell
    apart."""
    from bench.training.measure.checks import check_metrics

    task = plugins.find("task", run.task.name).build(run.task.config)
    check_metrics(task)
    path = Assets(quiet=True).present(run.model.name) if task.labels else None
    if path is not None:
        from bench.corpus.encoding import label_rows
        from bench.model.loading import load_tokenizer
        from bench.model.text import tokenise

        tokenizer = load_tokenizer(path)
        label_rows(lambda texts: tokenise(tokenizer, texts), [task.label_text(label) for label in task.labels])


def _estimates(harness: Harness, job: Job) -> list[Estimate]:
    parts = build_parts(job.spec, harness.plugins)
    charged: set[str] = set()
    found = []
    for cell in job.cells:
        ids = job.seed, cell.row.row_id, cell.cell_id
        if harness.stored(cell) is not None:
            found.append(Estimate(*ids, stored=True))
            continue
        attack = harness.attack(cell.row.attack)
        shadows = shadow_specs(job.spec, attack.shadows)
        missing = [s for s in (job.spec, *shadows) if s.run_id(job.seed) not in charged]
        missing = [s for s in missing if not trained(harness.store, s, job.seed)]
        charged |= {s.run_id(job.seed) for s in missing}
        shared = f"attack {canonical_json(cell.row.attack)}"
        work = 0.0 if shared in charged else attack.work(job.spec) * (1 + len(shadows))
        charged.add(shared)
        seconds = attack_seconds(job.spec, work) + sum(training_seconds(s) for s in missing)
        size = len(missing) * training_bytes(job.spec, parts)
        found.append(Estimate(*ids, False, len(missing), attack.budget(job.spec), seconds, size))
    return found


def trained(store: Store, spec: RunSpec, seed: int) -> bool:
    """Whether the store holds all rounds of a run."""
    root = store.run_dir(spec.run_id(seed)) / "transcript"
    return (root / "manifest.json").exists() and Transcript(root).committed() == spec.federation.rounds - 1
