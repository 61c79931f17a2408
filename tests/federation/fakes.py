"""A federation without a language model: updates are drawn from named streams, so sums are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.parties import silo
from bench.core.streams import Streams
from bench.core.tokens import Tokens
from bench.core.update import Layout
from bench.defense.compose import Defense, fill
from bench.defense.parts import Trainer, Training, TrainJob
from bench.defense.public import Layouts, Public
from bench.federation.rounds import Federation
from bench.federation.setup import Setup, participants
from bench.model.products import widened
from bench.spec.run import FederationSpec
from bench.transcript.transcript import Transcript

LAYOUT = Layout(("layer.lora_A", "layer.lora_B"), ((4, 6), (5, 4)))


class FakeModel:
    """Holds a flat adapter, nothing else."""

    layout = LAYOUT

    def __init__(self) -> None:
        self.values = np.zeros(LAYOUT.size, dtype=np.float32)

    def set_adapter(self, values: Any) -> None:
        self.values = np.array(values, dtype=np.float32)

    def get_adapter(self) -> Any:
        return self.values.copy()


class DrawnTrainer(Trainer):
    """Adds normal values from the silo's public order stream: the update of silo i in round r is reproducible."""

    def train(self, job: TrainJob) -> Training:
        adapter = job.model.get_adapter()
        adapter[: LAYOUT.size] += job.order.normal(size=LAYOUT.size).astype(np.float32)
        job.model.set_adapter(adapter)
        return Training(steps=1, tokens=7, losses=(1.0,), batches=((0,),))


def drawn(seed: int, index: int, round: int) -> Any:
    """What ``DrawnTrainer`` adds."""
    return Streams(seed).generator("silo", index, round).normal(size=LAYOUT.size).astype(np.float32)


def one_token(_: str) -> Tokens:
    ids = np.array([[1, 2]], dtype=np.int32)
    return Tokens(ids, np.array([2], np.int32), np.array([[False, True]]), np.array([-1], np.int32))


def make_setup(
    federation: FederationSpec, defense: Defense | None = None, seed: int = 0, counts: Sequence[int] = ()
) -> Setup:
    """``counts``: records of every silo; by default 10, 20, 30, and so on."""
    streams = Streams(seed)
    parts = fill(defense or Defense(trainer=DrawnTrainer()))
    silos = tuple(silo(i) for i in range(federation.silos))
    sizes = dict(zip(silos, counts or [10 * (i + 1) for i in range(len(silos))], strict=True))
    plan = parts.aggregator.plan(LAYOUT, silos)
    public = Public(
        layouts=Layouts(LAYOUT, plan.summed, plan.state),
        silos=silos,
        weights={name: parts.weight(sizes[name]) for name in silos},
        rounds=federation.rounds,
        participants=participants(federation, streams),
        sizes=sizes,
    )
    initial = widened(streams.generator("initial").normal(size=LAYOUT.size).astype(np.float32), public.state)
    model: Any = FakeModel()
    return Setup(model, parts, public, federation, initial, streams, None, one_token, sizes)


def run(root: Path, setup: Setup) -> Transcript:
    """A complete transcript, continuing one that is there already."""
    if (root / "manifest.json").exists():
        transcript = Transcript(root)
    else:
        transcript = Transcript.create(root, setup.public, setup.initial, {})
    Federation(setup, transcript).run()
    return transcript
