"""The packaged model and a few records, for trainers to be tried on."""

from __future__ import annotations

from functools import cache

import numpy as np

from bench.assets.assets import Assets
from bench.conformance.fixtures import sentences
from bench.core.streams import SecretStreams, State, Streams
from bench.core.tokens import Tokens
from bench.core.update import Array
from bench.corpus.task import Record
from bench.defense.parts import Trainer, Training, TrainJob
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec, LoraSpec, ModelSpec

LOCAL = LocalSpec(epochs=2, batch=4, lr=5e-3)


@cache
def tiny() -> LoraModel:
    spec = ModelSpec(name="tiny")
    return LoraModel.load(Assets(quiet=True).model(spec).path, spec, LoraSpec(rank=4, alpha=8.0), "cpu")


@cache
def start() -> Array:
    return tiny().initial_adapter(np.random.default_rng(1))


def some_tokens(records: int, words: int = 12, seed: int = 0) -> Tokens:
    texts = sentences(records, words, np.random.default_rng(seed))
    return tiny().encode([Record(f"r{i}", text) for i, text in enumerate(texts)], 48)


def job(tokens: Tokens, local: LocalSpec = LOCAL, round: int = 0, state: State | None = None) -> TrainJob:
    """A round at silo-0 from ``start()``."""
    tiny().set_adapter(start())
    return TrainJob(
        model=tiny(),
        tokens=tokens,
        local=local,
        lr=local.lr,
        round=round,
        rounds=4,
        nominal_size=len(tokens),
        order=Streams(3).generator("silo", 0, round),
        secret=SecretStreams("silo-0", 7),
        state={} if state is None else state,
    )


def train(trainer: Trainer, work: TrainJob) -> tuple[Training, Array]:
    """What was done, and the adapter after it."""
    training = trainer.train(work)
    return training, work.model.get_adapter()
