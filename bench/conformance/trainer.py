"""Checks of a trainer, on the packaged model ``tiny``: it changes the adapter and logs what it did."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bench.conformance.checks import Check, Failed, expect
from bench.conformance.fixtures import sentences
from bench.core.streams import SecretStreams, Streams
from bench.core.update import Array
from bench.corpus.task import Record
from bench.defense.parts import Trainer, Training, TrainJob
from bench.privacy import Composition, Refused, composition
from bench.spec.run import LocalSpec, LoraSpec, ModelSpec

if TYPE_CHECKING:
    from bench.model.lora import LoraModel

RECORDS = 8
ROUNDS = 2
LOCAL = LocalSpec(epochs=2, batch=4)


def checks(trainer: Trainer) -> Iterator[Check]:
    subject = _Subject(trainer)
    name = type(trainer).__name__
    yield Check(f"trainer: {name} logs what it did", subject.logs)
    yield Check(f"trainer: {name} changes the adapter", subject.changes)
    yield Check(f"trainer: {name} can be repeated", subject.repeats)
    yield Check(f"trainer: {name} and its mechanisms", subject.mechanisms)
    if trainer.promise is not None and trainer.promise.unit == "record":
        yield Check(f"trainer: {name} audited with canaries", subject.audited)


class _Subject:
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    @cached_property
    def model(self) -> LoraModel:
        from bench.assets.assets import Assets
        from bench.model.lora import LoraModel

        spec = ModelSpec(name="tiny")
        return LoraModel.load(Assets(quiet=True).model(spec).path, spec, LoraSpec(rank=4, alpha=8.0), "cpu")

    def train(self, secret_seed: int | None = 7) -> tuple[Training, Array]:
        """One round on ``RECORDS`` records from a fresh start: the log and the update."""
        model = self.model
        texts = sentences(RECORDS, 12, np.random.default_rng(0))
        tokens = model.encode([Record(f"r{i}", text) for i, text in enumerate(texts)], 32)
        start = model.initial_adapter(np.random.default_rng(1))
        model.set_adapter(start)
        job = TrainJob(
            model=model,
            tokens=tokens,
            local=LOCAL,
            lr=LOCAL.lr,
            round=0,
            rounds=ROUNDS,
            nominal_size=RECORDS,
            order=Streams(3).generator("order"),
            secret=SecretStreams("silo-0", secret_seed),
            state={},
        )
        training = self.trainer.train(job)
        return training, model.get_adapter() - start

    @cached_property
    def first(self) -> tuple[Training, Array]:
        return self.train()

    def logs(self) -> str:
        training, _ = self.first
        counts = {training.steps, len(training.batches), len(training.losses)}
        expect(
            len(counts) == 1,
            f"it logs {training.steps} steps, {len(training.batches)} batches and {len(training.losses)} losses.",
        )
        expect(training.steps > 0, "it made no step.")
        used = {row for batch in training.batches for row in batch}
        expect(used <= set(range(RECORDS)), f"it logs records that the silo does not have: {sorted(used)[-1:]}.")
        filled = any(training.batches)
        expect(training.tokens > 0 or not filled, "it logs no tokens although it trained on records.")
        finite = all(np.isfinite(x) for x, batch in zip(training.losses, training.batches, strict=True) if batch)
        expect(finite, "it logs a loss that is not finite.")
        return f"{training.steps} steps, {training.tokens} tokens, {len(used)} of {RECORDS} records used"

    def changes(self) -> str:
        _, delta = self.first
        expect(np.isfinite(delta).all(), "the trained adapter holds values that are not finite.")
        norm = float(np.linalg.norm(delta))
        expect(norm > 0, "the adapter is as it was.")
        return f"the update's norm is {norm:.3g}"

    def repeats(self) -> str:
        """The same public order and the same secret give the same update, up to the order of float32 sums."""
        _, again = self.train()
        far = float(np.abs(again - self.first[1]).max())
        expect(far <= 1e-4, f"trained twice on the same seeds, two updates differ by {far:.3g}.")
        return f"two updates of the same seeds differ by {far:.1e} at most"

    def mechanisms(self) -> str:
        training, _ = self.first
        planned = list(self.trainer.plan(ROUNDS, LOCAL, RECORDS))
        if self.trainer.promise is None:
            return f"promises nothing, logs {len(training.mechanisms)} mechanisms"
        expect(training.mechanisms, "it makes a promise and logs no mechanism that epsilon could be computed from.")
        expect(planned, "it makes a promise and plans no mechanism, so a run can't be calibrated or estimated.")
        adjacency = self.trainer.promise.adjacency
        try:
            logged = composition(list(training.mechanisms) * ROUNDS, adjacency)
            foreseen = composition(planned, adjacency)
        except Refused as error:
            raise Failed(f"no epsilon can be computed from what it logs or plans: {error}") from None
        expect(
            _close(foreseen, logged),
            f"it plans {foreseen} for {ROUNDS} rounds and logs {logged} (rate, sigma, steps).",
        )
        return f"promises per {self.trainer.promise.unit} under {adjacency}, and logs what it planned: {logged}"

    def audited(self) -> str:
        """No audit of ``bench.conformance.canaries`` refutes what it logs; which of them could not be made is said."""
        from bench.conformance.canaries import AUDITS, Inapplicable

        told = []
        for audit in AUDITS:
            try:
                found = audit(self.trainer)
            except Inapplicable as reason:
                told.append(f"{audit.__name__} not made ({reason})")
                continue
            except Exception as error:  # a trainer may need more of a model than canaries have
                told.append(f"{audit.__name__} not made (on the canaries' model: {type(error).__name__}: {error})")
                continue
            expect(not found.refuted, f"what it logs is refuted: {found}.")
            told.append(str(found))
        return "; ".join(told)


def _close(one: Composition, other: Composition) -> bool:
    return len(one) == len(other) and all(np.allclose(a, b, rtol=1e-9) for a, b in zip(one, other, strict=True))
