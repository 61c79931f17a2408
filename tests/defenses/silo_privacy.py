"""Federations of known updates under a defense of whole silos, and what each adversary is promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from bench.assess.assess import Assessor
from bench.defense.compose import Defense, compose
from bench.defense.parts import Trainer, Training, TrainJob
from bench.federation.setup import Setup
from bench.plugins.find import Plugins
from bench.spec.result import Claim
from bench.spec.run import Dropout, FederationSpec
from bench.transcript.notes import logged_mechanisms
from bench.transcript.transcript import Transcript
from tests.federation.fakes import LAYOUT, make_setup, run


class LongTrainer(Trainer):
    """Updates of L2 norm 10 in a direction of the silo's own: longer than any clip of the tests."""

    def train(self, job: TrainJob) -> Training:
        values = job.order.normal(size=LAYOUT.size)
        job.model.set_adapter(job.model.get_adapter() + (10 * values / np.linalg.norm(values)).astype(np.float32))
        return Training(steps=1, tokens=7, losses=(1.0,), batches=((0,),))


def named(names: str, **options: Mapping[str, Any]) -> Defense:
    """A composition as on the command line; ``options`` by name, with _ for -."""
    plugins = Plugins()
    found = [(name, plugins.find("defense", name)) for name in names.split("+")]
    built = [(n, p.build(p.validate(dict(options.get(n.replace("-", "_"), {}))))) for n, p in found]
    return replace(compose(built), trainer=LongTrainer())


def federate(
    root: Path,
    defense: Defense,
    *,
    silos: int = 4,
    rounds: int = 2,
    dropouts: tuple[Dropout, ...] = (),
    change: Callable[[Setup], None] = lambda setup: None,
    **more: Any,
) -> tuple[Setup, Transcript]:
    spec = FederationSpec(silos=silos, rounds=rounds, dropouts=dropouts, **more)
    setup = make_setup(spec, defense)
    change(setup)
    return setup, run(root / "run", setup)


def claimed(root: Path, setup: Setup, transcript: Transcript, adversary: str) -> Claim:
    """As a result would state it, from the views of all coalitions."""
    spec = SimpleNamespace(secret_seed=None, federation=setup.federation, variant=None, active=False)
    trained = SimpleNamespace(
        spec=spec,
        directory=root,
        transcript=transcript,
        parts=setup.parts,
        mechanisms=logged_mechanisms(transcript),
        nominal_sizes=setup.nominal_sizes,
        case=SimpleNamespace(materials=None),
    )
    assessor = Assessor(cast(Any, trained), cast(Any, None))
    found = assessor.claim(adversary)
    assessor.drop_views()
    assert found is not None
    return found
