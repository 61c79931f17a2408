"""What a correct DP-SGD shows (``dp_audit``), and copies broken in known ways, each of which a check must catch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bench.defense import Training, TrainJob
from bench.streams import SecretStreams
from defenses.trainers.dp_sgd import DPSGD
from tests.defenses.dp_audit import CHECKS


class NoClip(DPSGD):
    def factors(self, gradients):
        return torch.ones(len(gradients[0]), dtype=torch.float64)


class ClipPerTensor(DPSGD):
    """Clips each tensor on its own: the whole then has a norm of up to sqrt(tensors) times the clip."""

    def clipped_sum(self, model, tokens, rows):
        total, losses = super().clipped_sum(model, tokens, rows[:0])
        for row in rows:
            gradients = torch.autograd.grad(model.losses(tokens.take([row])).sum(), model.parameters())
            for summed, gradient in zip(total, gradients, strict=True):
                summed += gradient * min(1.0, self.clip / float(gradient.norm()))
        return total, losses


class MultipliesInfinityByZero(DPSGD):
    def clipped_sum(self, model, tokens, rows):
        total, losses = super().clipped_sum(model, tokens, rows)
        with_bad = [row for row in rows if not torch.isfinite(model.losses(tokens.take([row]))).all()]
        for summed in total:
            summed += 0.0 * float("inf") if with_bad else 0.0
        return total, losses


class BatchMeanLoss(DPSGD):
    """What ``transformers`` returns: the mean over all tokens of the batch."""

    def clipped_sum(self, model, tokens, rows):
        if len(rows) == 0:
            return super().clipped_sum(model, tokens, rows)

        class Coupled:
            module = model.module
            parameters = staticmethod(model.parameters)

            @staticmethod
            def losses(batch):
                counts = torch.from_numpy(batch.predicted.sum(1))
                return model.losses(batch) * counts * len(counts) / counts.sum()

        return super().clipped_sum(Coupled, tokens, rows)


class NoNoise(DPSGD):
    def add_noise(self, total, scale, noise):
        pass


class HalfTheNoise(DPSGD):
    def add_noise(self, total, scale, noise):
        super().add_noise(total, scale / 2, noise)


class NoiseOfTheMean(DPSGD):
    """Forgets that the sum is divided after the noise is added."""

    def add_noise(self, total, scale, noise):
        super().add_noise(total, scale * 4, noise)


class SameNoiseEveryStep(DPSGD):
    def add_noise(self, total, scale, noise):
        super().add_noise(total, scale, np.random.default_rng(int(scale * 1e6)))


class NoNoiseOnEmptyBatches(DPSGD):
    def add_noise(self, total: Sequence[torch.Tensor], scale, noise):
        if any(bool(summed.any()) for summed in total):
            super().add_noise(total, scale, noise)


class WithSecret(DPSGD):
    """Trains with other secrets than the party's own."""

    def secret(self, job: TrainJob):
        raise NotImplementedError

    def train(self, job: TrainJob) -> Training:
        job.secret = self.secret(job)
        return super().train(job)


class SecretsFromThePublicSeed(WithSecret):
    def secret(self, job):
        return SecretStreams("silo-0", secret_seed=int(job.order.integers(2**31)))


class SameSecretsEveryRound(WithSecret):
    def secret(self, job):
        fixed = SecretStreams("silo-0", secret_seed=1)

        class Fixed:
            @staticmethod
            def generator(name, *indices):
                return fixed.generator(name)

        return Fixed


class SamplerThrownAway(DPSGD):
    """Makes the Poisson sample, then walks over the records in order."""

    _next = 0

    def sample(self, records, rate, sampling):
        size = len(super().sample(records, rate, sampling))
        first, self._next = self._next, self._next + size
        return np.unique(np.arange(first, first + size) % max(records, 1))[: max(records, 0)]


class FixedBatches(DPSGD):
    """Batches of one size without replacement: not what the accountant counts."""

    def sample(self, records, rate, sampling):
        return np.sort(sampling.permutation(records)[: round(records * rate)])


class ForgetsEmptyBatches(DPSGD):
    def train(self, job):
        training = super().train(job)
        kept = [m for m in training.mechanisms if any(training.batches)]
        return Training(training.steps, training.tokens, training.losses, training.batches, tuple(kept))


BROKEN = {
    NoClip: "check_sensitivity",
    ClipPerTensor: "check_sensitivity",
    MultipliesInfinityByZero: "check_sensitivity",
    BatchMeanLoss: "check_sensitivity",
    NoNoise: "check_noise",
    HalfTheNoise: "check_noise",
    NoiseOfTheMean: "check_noise",
    SameNoiseEveryStep: "check_noise",
    NoNoiseOnEmptyBatches: "check_noise",
    SecretsFromThePublicSeed: "check_sampling",
    SameSecretsEveryRound: "check_sampling",
    SamplerThrownAway: "check_sampling",
    FixedBatches: "check_sampling",
    ForgetsEmptyBatches: "check_noise",
}


def maker(kind: type[DPSGD]):
    return lambda **options: kind(epsilon=None, **options)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_the_trainer_passes(check) -> None:
    check(maker(DPSGD))


@pytest.mark.parametrize("kind", BROKEN, ids=lambda k: k.__name__)
def test_a_broken_copy_is_caught(kind) -> None:
    check = {c.__name__: c for c in CHECKS}[BROKEN[kind]]
    with pytest.raises(AssertionError):
        check(maker(kind))
