"""Trainings as a command makes them, without an attack."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bench.assess.harness import Harness, Options
from bench.assess.run import trained
from bench.assets.assets import Assets
from bench.plugins.find import Plugins
from bench.spec.run import RunSpec
from bench.store.store import Store
from bench.training.materials import Workshop
from bench.training.training import TrainedRun


@cache
def workshop() -> Workshop:
    """One for all tests of a worker, so that runs in a row load model and records once."""
    return Workshop(Plugins(), Assets(quiet=True))


@cache
def harness(folder: Path) -> Harness:
    """One for all runs of a folder."""
    return Harness(Store(folder), Plugins(), Options(quiet=True), workshop())


def train(spec: RunSpec, folder: Path, plugins: Plugins | None = None) -> TrainedRun:
    """The run of ``spec`` and seed 0, trained, or found in the store at ``folder``."""
    one = harness(folder) if plugins is None else Harness(Store(folder), plugins, Options(quiet=True), workshop())
    case = one.case(spec, 0)
    with one.hold(case, patient=False):
        return trained(case, one)
