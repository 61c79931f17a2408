"""Tuning on validation records: every defense gets the same grid of trials, and nothing is attacked or held out.

A trial is an ordinary training, kept in the store; its figure is the task's first metric on the validation records,
which no utility and no leakage figure uses. Under a privacy claim the trials themselves would cost epsilon if they were
run on the members of a real federation: a benchmark's reader may ignore that, an operator may not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench.assess.harness import Harness
from bench.assess.jobs import jobs
from bench.assess.run import validation
from bench.cli.grid import Request, expand, parse_sets
from bench.core.errors import UsageError
from bench.plugins.find import Plugins
from bench.spec.result import Utility
from bench.store.locks import Taken

#: the most trials of one defense
MAX_TRIALS = 1000


@dataclass(frozen=True)
class Attempt:
    """One setting of one defense. ``metric``: over the validation records, mean over ``seeds``; ``base`` is the base
    model's. ``runs``: ids of the trainings, one per seed."""

    defense: str
    values: Mapping[str, Any]
    metric: str
    value: float
    base: float
    better: str
    records: int
    seeds: tuple[int, ...]
    runs: tuple[str, ...]

    @property
    def sets(self) -> str:
        """The words that repeat it on the command line."""
        return " ".join(f"--set {key}={value}" for key, value in self.values.items())

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "values": dict(self.values)}


def combinations(tries: Sequence[str]) -> list[dict[str, Any]]:
    """Every combination of ``KEY=V1,V2,...`` items, in order. Raises UsageError on none, a key twice, or too many."""
    options: dict[str, list[Any]] = {}
    for item in tries:
        key, equals, text = item.partition("=")
        values = [part.strip() for part in text.split(",")]
        if not equals or not all(values):
            raise UsageError(f"--try '{item}' is not of the form SECTION.KEY=VALUE,VALUE,...")
        if key in options:
            raise UsageError(f"--try gives {key} twice.")
        options[key] = [parse_sets([f"{key}={value}"])[key.strip()] for value in values]
    if not options:
        raise UsageError("Name what to try, for instance --try federation.local.lr=1e-3,2e-3,4e-3.")
    found = [dict(zip(options, values, strict=True)) for values in product(*options.values())]
    if len(found) > MAX_TRIALS:
        raise UsageError(f"--try names {len(found)} combinations; the most is {MAX_TRIALS}.")
    return found


def tune(request: Request, defenses: Sequence[str], tries: Sequence[str], harness: Harness) -> Iterator[Attempt]:
    """Trials of every defense in turn, as they are done; those whose runs another process holds come last. A key that a
    defense does not have (``dp-sgd.clip``) is tried on those that have it. ``request.defense`` is not used. Raises
    UsageError before anything runs, and Taken at the end for what is still held and not waited for."""
    wanted = combinations(tries)
    plans = [(name, plan) for name in defenses for plan in _plans(request, name, wanted, harness.plugins)]
    late = []
    for name, (values, grid) in plans:
        try:
            yield _trial(harness, name, values, grid, patient=False)
        except Taken:
            late.append((name, values, grid))
    for name, values, grid in late:
        yield _trial(harness, name, values, grid, patient=harness.options.wait)


def _plans(request: Request, name: str, wanted: Sequence[Mapping[str, Any]], plugins: Plugins) -> list[Any]:
    """(values, grid) of each distinct setting of one defense."""
    own = name.split("+")
    sections = ("model", "pool", "federation", request.task or "")
    found: dict[str, Any] = {}
    for values in wanted:
        kept = {key: value for key, value in values.items() if key.partition(".")[0] in (*own, *sections)}
        words = tuple(f"{key}={value}" for key, value in kept.items())
        one = Request(**{**request.__dict__, "defense": name, "sets": (*request.sets, *words)})
        found.setdefault(" ".join(words), (kept, expand(one, plugins)))
    return list(found.values())


def _trial(harness: Harness, name: str, values: Mapping[str, Any], grid: Any, patient: bool) -> Attempt:
    rows = [harness.pinned(row) for row in grid.rows[:1]]
    measured: list[Utility] = []
    runs = []
    for job in jobs(rows, grid.seeds):
        case = harness.case(job.spec, job.seed)
        measured.append(validation(case, harness, patient))
        runs.append(case.run_id)
    first = measured[0]
    return Attempt(
        defense=name,
        values=values,
        metric=first.name,
        value=sum(u.value for u in measured) / len(measured),
        base=sum(u.base for u in measured) / len(measured),
        better=first.better,
        records=int(sum(u.n for u in measured)),
        seeds=grid.seeds,
        runs=tuple(runs),
    )


def best(trials: Sequence[Attempt]) -> dict[str, Attempt]:
    """The best trial of each defense; the first of equals."""
    found: dict[str, Attempt] = {}
    for trial in trials:
        both = found.get(trial.defense, trial), trial
        found[trial.defense] = min(both, key=lambda one: one.value if one.better == "lower" else -one.value)
    return found
