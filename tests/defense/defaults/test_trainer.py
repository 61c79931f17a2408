"""Local training: which records each step sees, and the step itself against a loop written out."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.core.errors import SiloBenchError
from bench.core.streams import SecretStreams, Streams
from bench.corpus.task import Record
from bench.defense.defaults.trainer import GradientTrainer, batches
from bench.defense.parts import TrainJob
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec, LoraSpec, ModelSpec

TEXTS = ["The patient was seen on the ward.", "No fever was found.", "Discharged home with a plan.", "Pain in the leg."]


@pytest.fixture(scope="module")
def model() -> LoraModel:
    path = Path(str(files("bench"))) / "models" / "tiny"
    return LoraModel.load(path, ModelSpec(name="tiny"), LoraSpec(rank=4), "cpu")


def job(model: LoraModel, local: LocalSpec, seed: int = 0) -> TrainJob:
    tokens = model.encode([Record(str(i), text) for i, text in enumerate(TEXTS)], 32)
    order = Streams(seed).generator("silo", 0, 0)
    return TrainJob(model, tokens, local, local.lr, 0, 1, len(TEXTS), order, SecretStreams("silo-0"), {})


def test_every_record_is_seen_once_per_epoch() -> None:
    steps = list(batches(10, LocalSpec(epochs=3, batch=4), np.random.default_rng(0)))
    assert [len(rows) for rows in steps] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(row for rows in steps[3 * epoch : 3 * epoch + 3] for row in rows) == list(range(10))
    assert steps[:3] != steps[3:6]


def test_a_number_of_steps_overrides_epochs() -> None:
    assert len(list(batches(10, LocalSpec(epochs=3, batch=4, steps=7), np.random.default_rng(0)))) == 7
    assert len(list(batches(10, LocalSpec(steps=1), np.random.default_rng(0)))) == 1


def test_no_records_is_an_error() -> None:
    with pytest.raises(SiloBenchError, match="no records"):
        list(batches(0, LocalSpec(), np.random.default_rng(0)))


def test_one_sgd_step_is_minus_the_rate_times_the_mean_of_the_records_gradients(model: LoraModel) -> None:
    start = model.initial_adapter(np.random.default_rng(1))
    local = LocalSpec(steps=1, batch=4, optimizer="sgd", lr=0.5)
    work = job(model, local)
    gradients = []
    for row in range(4):
        model.set_adapter(start)
        loss = model.losses(work.tokens.take([row])).sum()
        found = torch.autograd.grad(loss, model.parameters())
        gradients.append(np.concatenate([g.numpy().ravel() for g in found]))
    model.set_adapter(start)
    training = GradientTrainer().train(work)
    np.testing.assert_allclose(model.get_adapter(), start - 0.5 * np.mean(gradients, axis=0), atol=2e-6)
    assert sorted(training.batches[0]) == [0, 1, 2, 3]
    assert training.tokens == int(work.tokens.lengths.sum())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_is_repeatable_and_lowers_the_loss(model: LoraModel, optimizer: str) -> None:
    local = LocalSpec.model_validate({"epochs": 6, "batch": 2, "optimizer": optimizer, "lr": 0.01})
    results = []
    for seed in (0, 0, 1):
        model.set_adapter(model.initial_adapter(np.random.default_rng(1)))
        training = GradientTrainer().train(job(model, local, seed))
        results.append((model.get_adapter(), training.losses))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert not np.array_equal(results[0][0], results[2][0])
    losses = results[0][1]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


def test_a_diverged_training_is_an_error_not_a_number(model: LoraModel) -> None:
    model.set_adapter(model.initial_adapter(np.random.default_rng(1)))
    work = job(model, LocalSpec(epochs=30, batch=1, optimizer="sgd"))
    work.lr = math.inf  # not merely large: behind a normalisation 1e30 still gives finite losses on some processors
    with pytest.raises(SiloBenchError, match="diverged in round 0"):
        GradientTrainer().train(work)
    model.set_adapter(None)


def test_gradient_norm_is_bounded(model: LoraModel) -> None:
    start = model.initial_adapter(np.random.default_rng(1))
    model.set_adapter(start)
    GradientTrainer().train(job(model, LocalSpec(steps=1, batch=4, optimizer="sgd", lr=1.0, max_grad_norm=1e-3)))
    assert np.linalg.norm(model.get_adapter() - start) == pytest.approx(1e-3, rel=1e-3)
