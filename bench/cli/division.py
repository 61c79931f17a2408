"""By what the records of a run are divided among silos: ``federation.partition=auto`` made into what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.assets.assets import Assets
from bench.cli.presets import AUTO
from bench.core.parties import silo
from bench.corpus.organisations import brought, organisations
from bench.corpus.task import Task
from bench.plugins.find import Plugins
from bench.spec.explain import validated
from bench.spec.run import FederationSpec, PluginSpec, PoolSpec, RunSpec


@dataclass(frozen=True)
class Brings:
    """What an organisation brings: ``records`` of the task, of which ``candidates`` are drawn for its silo."""

    silo: str
    name: str
    records: int
    candidates: int


def divided(sections: Mapping[str, Any], how: str, task: PluginSpec, sets: Mapping[str, Any], plugins: Plugins) -> Any:
    """The ``federation`` of ``sections`` for the records of ``task``: where these are divided by organisations, with as
    many silos. ``how``: the partition that was asked for, or ``auto``; ``sets``: what ``--set`` gives.

    Raises UsageError where records don't name their organisations well, or ``sets`` asks for another number of silos.
    """
    federation: FederationSpec = sections["federation"]
    pool: PoolSpec = sections["pool"]
    built = _built(task, plugins) if how in (AUTO, "silo") else None
    if built is None or not (how == "silo" or built.organised):
        return federation
    sizes = organisations(built.records(Assets(quiet=True)))
    asked = {"partition": "silo"} if "federation.silos" in sets else {"partition": "silo", "silos": len(sizes)}
    found = validated(FederationSpec, {**dict(federation), **asked}, "federation")
    brought(sizes, found, pool)
    return found


def brings(run: RunSpec, plugins: Plugins) -> list[Brings]:
    """Every silo's organisation; empty where silos are none."""
    if run.federation.partition != "silo":
        return []
    sizes = organisations(_built(run.task, plugins).records(Assets(quiet=True)))
    candidates = brought(sizes, run.federation, run.pool)
    return [Brings(silo(i), name, sizes[name], candidates[name]) for i, name in enumerate(sizes)]


def _built(task: PluginSpec, plugins: Plugins) -> Task:
    built: Task = plugins.find("task", task.name).build(task.config)
    return built
