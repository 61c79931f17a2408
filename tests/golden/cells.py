"""The answers of one small federation per defense: what is recorded once, and computed again by the tests.

Every defense is asked by ``mia``, and ``fedavg`` and ``fedshield`` by every attack, as all six adversaries. Secrets
come from a number, so that two computations agree; the claims are those that the same notes would give without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from bench.assess.assess import Assessor
from bench.assess.harness import Harness, Options
from bench.assess.jobs import Job, jobs, ordered, shadows_wanted
from bench.assess.run import shadows, trained
from bench.assess.tools import Memo
from bench.assess.write import Writer
from bench.cli.grid import Request, expand
from bench.core.errors import Refused
from bench.plugins.find import Plugins
from bench.spec.config import canonical_json
from bench.spec.result import Result
from bench.spec.run import Cell
from bench.store.store import Store
from bench.training.training import TrainedRun
from bench.transcript.notes import opened_sums
from tests.golden.machine import made_on, one_thread
from tests.golden.settings import SECRET_SEED, TASK, attacks_on, keys, sets

#: the contents of one file
Answer = dict[str, Any]
#: significant digits that are kept of every number
DIGITS = 9
#: lists of numbers of at least this length are kept once per file
LONG = 6
#: of a run's cost: what follows from the protocol alone, no seconds and no memory
BYTES = (
    "up_bytes",
    "down_bytes",
    "setup_bytes",
    "released_bytes",
    "up_per_silo_round",
    "down_per_silo_round",
    "trained_tokens",
    "parameters",
)


# -- computing -----------------------------------------------------------------------------------------------------


def answers(plugins: Plugins, defense: str, more: Mapping[str, str] = MappingProxyType({})) -> dict[str, Answer]:
    """By key, what the harness answers today: of the run, and of every attack on it. ``more``: other settings than the
    recorded ones."""
    attacks = attacks_on(plugins, defense)
    named = keys(plugins, defense, attacks)
    given = sets(plugins, defense, attacks, more)
    asked = Request(defense, ",".join(attacks), TASK, preset="smoke", sets=given, secret_seed=SECRET_SEED)
    grid = expand(asked, plugins)
    cells: dict[str, dict[str, Any]] = {attack: {} for attack in attacks}
    run: dict[str, Any] = {}
    with one_thread(), TemporaryDirectory(prefix="silobench-golden-") as folder:
        recorder = _Recorder(Store(Path(folder)), plugins)
        for job in jobs(grid.rows, grid.seeds):
            for cell, result in recorder.results(job):
                cells[cell.row.attack.name][cell.row.adversary] = recorder.answer(cell, result)
            if job.spec.variant is None and recorder.trained is not None:
                run = _run(recorder.trained)
        made = made_on()
    found = {named[attack]: {"made": made, **_shared(cells[attack])} for attack in attacks}
    return {named[""]: {"made": made, "run": rounded(run)}, **found}


class _Recorder:
    """Trains as the command line does, and attacks each training with a memo for every attack: what one attack asks
    for decides in which batch a record is passed, and so the last bits of what another would get."""

    trained: TrainedRun | None = None

    def __init__(self, store: Store, plugins: Plugins) -> None:
        self.harness = Harness(store, plugins, Options(preset="smoke", quiet=True))
        self.writer = Writer(self.harness)

    def results(self, job: Job) -> Iterator[tuple[Cell, Result]]:
        """Every cell of one training with its result."""
        built = {canonical_json(row.attack): self.harness.attack(row.attack) for row in job.rows}
        known = shadows(job, shadows_wanted(job.rows, built), self.harness, patient=True)
        case = self.harness.case(job.spec, job.seed)
        try:
            with self.harness.hold(case, patient=False):
                run = trained(case, self.harness)
        except Refused as refusal:
            for cell in job.cells:
                yield cell, self.writer.refused(cell, case, refusal)
            return
        self.trained = run
        claiming = replace(case, spec=case.spec.model_copy(update={"secret_seed": None}))
        assessor = Assessor(replace(run, case=claiming), Memo(), known)
        memos = {key: Memo() for key in built}
        for row in ordered(job.rows, built):
            key = canonical_json(row.attack)
            assessor.memo = memos[key]
            found = assessor.assess(row.attack.name, built[key], row.adversary)
            cell = Cell(row, job.seed)
            yield cell, self.writer.measured(cell, assessor, found, built[key])
        assessor.drop_views()

    def answer(self, cell: Cell, result: Result) -> dict[str, Any]:
        """What is recorded of one row."""
        row = result.model_dump(mode="json")
        text = None if result.scores_sha256 is None else self.harness.store.scores(result.scores_sha256)
        found = {name: row[name] for name in ("status", "reads", "claim", "audit", "note", "simulated", "active")}
        found["figures"] = row["leakage"]
        found["sheet"] = None if text is None else json.loads(text)
        if cell.row.run.variant is not None:
            found["bytes"] = _bytes(result.cost)
        return found


def _run(run: TrainedRun) -> dict[str, Any]:
    """Usefulness, bytes, and what the accountant goes by."""
    notes = {name: [[m.kind, dict(m.params), m.round] for m in items] for name, items in run.mechanisms.items()}
    sums = [
        {"round": s.round, "bounds": dict(s.bounds), "noise": s.noise and [s.noise.kind, dict(s.noise.params)]}
        for s in opened_sums(run.transcript)
    ]
    return {
        "utility": [one.model_dump(mode="json") for one in run.utility],
        "learned": run.learned,
        "bytes": _bytes(run.cost),
        "mechanisms": notes,
        "nominal_sizes": dict(run.nominal_sizes),
        "sums": sums,
    }


def _bytes(cost: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cost[name] for name in BYTES if name in cost}


# -- as they are kept ----------------------------------------------------------------------------------------------


def rounded(value: Any) -> Any:
    """JSON with every float at ``DIGITS`` significant digits; a list as it is where that would make two of its numbers
    the same, since figures follow from ranks."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if not isinstance(value, list | tuple):
        return value
    kept = [rounded(one) for one in value]
    numbers = all(isinstance(one, float) for one in value)
    return list(value) if numbers and len(set(kept)) < len(set(value)) else kept


def _shared(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of one attack, every long list in them kept once: adversaries that read the same guess the same."""
    lists: dict[str, int] = {}

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(one) for key, one in value.items()}
        if isinstance(value, list) and len(value) >= LONG:
            return {"list": lists.setdefault(canonical_json(value), len(lists))}
        return value

    kept = put(rounded(cells))
    return {"cells": kept, "lists": [json.loads(text) for text in lists]}


def unshared(content: Answer) -> dict[str, Any]:
    """A file's contents with every list in its place, without what it was made on."""
    lists = content.get("lists", [])

    def take(value: Any) -> Any:
        if isinstance(value, dict):
            return lists[value["list"]] if value.keys() == {"list"} else {key: take(v) for key, v in value.items()}
        return value

    return {key: take(value) for key, value in content.items() if key not in ("made", "lists")}
