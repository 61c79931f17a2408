"""Federations of the real rounds, channels and releases over drawn updates, for attacks on what a channel sealed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.adversaries import Assignment
from bench.core.parties import silo
from bench.core.streams import Streams
from bench.core.update import Array, Layout
from bench.defense.compose import Defense, fill
from bench.defense.parts import Trainer, Training, TrainJob
from bench.defense.public import Public, alike
from bench.federation.rounds import Federation
from bench.federation.setup import Setup, participants
from bench.spec.run import FederationSpec
from bench.transcript.transcript import Transcript
from bench.view.build import build
from bench.view.openers.base import Opener, Traits
from bench.view.view import View
from tests.federation.fakes import one_token

#: the factors of two projections: A starts as LoRA's does, B at 0. Of each, one ciphertext of 4096 values is full
LAYOUT = Layout(
    ("q.lora_A", "q.lora_B", "v.lora_A", "v.lora_B"),
    ((8, 576), (576, 8), (8, 576), (576, 8)),
)


class _Model:
    def __init__(self, layout: Layout) -> None:
        self.layout, self.values = layout, np.zeros(layout.size, np.float32)

    def set_adapter(self, values: Any) -> None:
        self.values = np.array(values, dtype=np.float32)

    def get_adapter(self) -> Any:
        return self.values.copy()


class Steps(Trainer):
    """Normal steps of deviation ``size`` on every value."""

    def __init__(self, size: float) -> None:
        self.size = size

    def train(self, job: TrainJob) -> Training:
        before = job.model.get_adapter()
        job.model.set_adapter(before + job.order.normal(0, self.size, len(before)).astype(np.float32))
        return Training(steps=1, tokens=7, losses=(1.0,), batches=((0,),))


def start(layout: Layout, seed: int = 0) -> Array:
    """lora_A uniform as PyTorch's default, lora_B zero."""
    rng = np.random.default_rng(seed)
    parts = [
        np.zeros(int(np.prod(shape)))
        if name.endswith("lora_B")
        else rng.uniform(-1, 1, shape).ravel() / shape[1] ** 0.5
        for name, shape in zip(layout.names, layout.shapes, strict=True)
    ]
    return np.concatenate(parts).astype(np.float32)


@dataclass
class Sealed:
    """A finished federation."""

    transcript: Transcript
    setup: Setup
    precision: str

    def view(self, root: Path, *openers: Opener, coalition: tuple[str, ...] = ("server",)) -> View:
        public, parts = self.transcript.public, self.setup.parts
        victims = tuple(s for s in public.silos if s not in coalition)
        return build(
            self.transcript,
            parts,
            "server",
            Assignment(frozenset(coalition), victims),
            root,
            self.precision,
            traits=Traits(),
            openers=openers,
        )

    def upload(self, round: int, name: str) -> Array:
        """What a silo handed to the channel."""
        found = self.transcript.truth(round, name)
        assert found is not None
        return np.asarray(found)


def federate(
    root: Path,
    defense: Defense,
    *,
    release: Any = "every-round",
    precision: Any = "float64",
    layout: Layout = LAYOUT,
    step: float = 1e-3,
    rounds: int = 1,
    silos: int = 3,
    initial: Array | None = None,
) -> Sealed:
    federation = FederationSpec(silos=silos, rounds=rounds, release=release, release_precision=precision)
    parts = fill(Defense(**{**vars(defense), "trainer": Steps(step)}))
    names = tuple(silo(i) for i in range(silos))
    sizes = {name: 10 * (i + 1) for i, name in enumerate(names)}
    public = Public(
        layouts=alike(layout),
        silos=names,
        weights={name: parts.weight(sizes[name]) for name in names},
        rounds=rounds,
        participants=participants(federation, Streams(0)),
    )
    model: Any = _Model(layout)
    first = start(layout) if initial is None else initial
    setup = Setup(model, parts, public, federation, first, Streams(0), None, one_token, sizes)
    transcript = Transcript.create(root, public, first, {})
    Federation(setup, transcript).run()
    return Sealed(transcript, setup, precision)
