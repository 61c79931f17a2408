"""DP-SGD trainers that are each broken in one way found in published code.

``BROKEN`` is the list: which copy makes the mistake, which check of ``dp_audit`` sees it, and in what words.
"""

from __future__ import annotations

import numpy as np
import torch

from bench.core.streams import SecretStreams
from bench.defense.parts import Training, TrainJob
from defenses.trainers.dp_sgd import DPSGD, PoissonRound
from defenses.trainers.private import Batch


class NoClip(DPSGD):
    def cut(self, norms, clip):
        return torch.isfinite(norms).double()


class MultipliesInfinityByZero(DPSGD):
    def clipped_sum(self, backend, model, tokens, rows, clip):
        batch = super().clipped_sum(backend, model, tokens, rows, clip)
        with torch.no_grad():
            bad = [row for row in rows if not torch.isfinite(model.losses(tokens.take([row]))).all()]
        for summed in batch.total:
            summed += 0.0 * float("inf") if bad else 0.0
        return batch


class _ClipsAfterwards(DPSGD):
    """Sums gradients over the parts of a batch that ``parts`` gives, and clips those sums instead of records."""

    def parts(self, rows):
        return [[row] for row in rows]

    def clip_part(self, gradients, clip):
        norm = float(torch.cat([g.double().ravel() for g in gradients]).norm())
        return [g * (min(1.0, clip / norm) if norm > 0 else 1.0) for g in gradients]

    def clipped_sum(self, backend, model, tokens, rows, clip):
        batch = super().clipped_sum(backend, model, tokens, rows[:0], clip)
        for part in self.parts(rows):
            model.losses(tokens.take(np.asarray(part))).sum().backward()
            gradients = backend.collect(len(part))
            norms = torch.stack([g.norms() for g in gradients]).norm(dim=0)
            finite = torch.isfinite(norms).double() / len(part)
            for summed, own in zip(
                batch.total, self.clip_part([g.weighted(finite) for g in gradients], clip), strict=True
            ):
                summed += own
        return batch


class ClipPerTensor(_ClipsAfterwards):
    """Clips each tensor on its own: the whole then has a norm of up to sqrt(tensors) times the clip."""

    def clip_part(self, gradients, clip):
        return [super(ClipPerTensor, self).clip_part([g], clip)[0] for g in gradients]


class PacksRecords(_ClipsAfterwards):
    """Fills rows with two records each, and clips rows: one record changes which others share a row."""

    def parts(self, rows):
        return [rows[i : i + 2] for i in range(0, len(rows), 2)]


class ClipsMicrobatches(_ClipsAfterwards):
    """Clips the mean of a microbatch and counts it as often as it has records."""

    def parts(self, rows):
        return [rows[i : i + self.microbatch] for i in range(0, len(rows), self.microbatch)]

    def clip_part(self, gradients, clip):
        return [g * self.microbatch for g in super().clip_part(gradients, clip)]


class BatchMeanLoss(DPSGD):
    """What ``transformers`` returns: the mean over all tokens of the batch."""

    def clipped_sum(self, backend, model, tokens, rows, clip):
        class Coupled:
            parameters = staticmethod(model.parameters)

            @staticmethod
            def losses(batch):
                counts = torch.from_numpy(batch.predicted.sum(1))
                return model.losses(batch) * counts * len(counts) / counts.sum()

        return super().clipped_sum(backend, Coupled, tokens, rows, clip)


class NoNoise(DPSGD):
    def randomise(self, batch, scale, noise):
        pass


class HalfTheNoise(DPSGD):
    def randomise(self, batch, scale, noise):
        super().randomise(batch, scale / 2, noise)


class NoiseOverRootTwo(DPSGD):
    """Variance and deviation mixed up."""

    def randomise(self, batch, scale, noise):
        super().randomise(batch, scale / 2**0.5, noise)


class NoiseShareOfThree(DPSGD):
    """One silo's share of noise that three divide, in an upload that travels by itself."""

    def randomise(self, batch, scale, noise):
        super().randomise(batch, scale / 3**0.5, noise)


class NoiseSharesSummed(NoiseShareOfThree):
    """What a sum of three such uploads holds: the shares of all."""

    def randomise(self, batch, scale, noise):
        for _ in range(3):
            super().randomise(batch, scale, noise)


class NoiseOfTheMean(DPSGD):
    """Forgets that the sum is divided after the noise is added."""

    def randomise(self, batch, scale, noise):
        super().randomise(batch, scale * 4, noise)


class FixedSensitivity(DPSGD):
    """Noise for a sensitivity of 1, whatever the clip."""

    def randomise(self, batch, scale, noise):
        super().randomise(batch, scale / self.clip, noise)


class SameNoiseEveryStep(DPSGD):
    def randomise(self, batch, scale, noise):
        super().randomise(batch, scale, np.random.default_rng(int(scale * 1e6)))


class NoiseFromAGlobalGenerator(DPSGD):
    """Which the run's public seed sets."""

    def randomise(self, batch, scale, noise):
        for summed in batch.total:
            summed += scale * torch.randn(summed.shape)


class NoNoiseOnEmptyBatches(DPSGD):
    def randomise(self, batch: Batch, scale, noise):
        if any(bool(summed.any()) for summed in batch.total):
            super().randomise(batch, scale, noise)


class MaskFromThePrivateSum(DPSGD):
    """Keeps the half of the values that was largest before the noise: where they are is told without noise."""

    def randomise(self, batch, scale, noise):
        kept = [summed.abs().ravel().argsort()[summed.numel() // 2 :] for summed in batch.total]
        super().randomise(batch, scale, noise)
        for summed, indices in zip(batch.total, kept, strict=True):
            mask = torch.zeros(summed.numel()).index_fill(0, indices, 1.0)
            summed *= mask.view_as(summed)


class SkipsEmptyBatches(DPSGD):
    """As a loader does that has nothing to hand out: no step, no noise."""

    def start(self, job, mechanism, records):
        if records == 0:
            mechanism.params["steps"] = 0.0
        return super().start(job, mechanism, records)

    def train(self, job):
        training = super().train(job)
        steps = sum(bool(rows) for rows in training.batches)
        full = tuple(rows for rows in training.batches if rows)
        return Training(steps, training.tokens, training.losses, full, training.mechanisms)


class ForgetsEmptyBatches(DPSGD):
    """Takes the steps, and logs no mechanism where no record joined."""

    def train(self, job):
        training = super().train(job)
        kept = [m for m in training.mechanisms if any(training.batches)]
        return Training(training.steps, training.tokens, training.losses, training.batches, tuple(kept))


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


class SeedOfItsOwn(WithSecret):
    """A seed in the code: the same in every run, whatever the run's seed."""

    def secret(self, job):
        return SecretStreams("silo-0", secret_seed=42)


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


class _PlansOtherwise(DPSGD):
    def changed(self, params, local, nominal_size):
        raise NotImplementedError

    def plan(self, rounds, local, nominal_size):
        plans = super().plan(rounds, local, nominal_size)
        for mechanism in plans:
            self.changed(mechanism.params, local, nominal_size)
        return plans


class RateFromTheLoader(_PlansOtherwise):
    """Opacus' rate: one over the number of batches of a loader."""

    def changed(self, params, local, nominal_size):
        params["rate"] = 1 / -(-nominal_size // local.batch)


class ForgetsEarlierRounds(DPSGD):
    """A new engine every round: each round's noise is calibrated as if it were the whole run."""

    def plan(self, rounds, local, nominal_size):
        return list(super().plan(1, local, nominal_size)) * rounds


class DividesByTheTrueBatch(DPSGD):
    def start(self, job, mechanism, records):
        class TrueBatch(PoissonRound):
            def rows(self):
                rows = super().rows()
                self.expected = max(1, len(rows))
                return rows

        return TrueBatch(self, job, mechanism, records)


BROKEN = {
    NoClip: ("check_sensitivity", "changes the sum by"),
    ClipPerTensor: ("check_sensitivity", "changes the sum by"),
    PacksRecords: ("check_sensitivity", "changes the sum by"),
    ClipsMicrobatches: ("check_sensitivity", "changes the sum by"),
    BatchMeanLoss: ("check_sensitivity", "changes the sum by"),
    MultipliesInfinityByZero: ("check_sensitivity", "spoils the sum"),
    NoNoise: ("check_noise", "noise of 0"),
    HalfTheNoise: ("check_noise", "noise of 0.[45]"),
    NoiseOverRootTwo: ("check_noise", "noise of 0.[67]"),
    NoiseShareOfThree: ("check_noise", "noise of 0.[56]"),
    NoiseOfTheMean: ("check_noise", "noise of [34]"),
    FixedSensitivity: ("check_noise", "noise of [12]"),
    SameNoiseEveryStep: ("check_noise", "noise of"),
    NoiseFromAGlobalGenerator: ("check_noise", "noise of two rounds or runs correlates"),
    NoNoiseOnEmptyBatches: ("check_noise", "noise of 0"),
    MaskFromThePrivateSum: ("check_noise", "noise of 0.[67]"),
    SkipsEmptyBatches: ("check_noise", "empty batches must be"),
    ForgetsEmptyBatches: ("check_noise", "empty batches must be counted"),
    SecretsFromThePublicSeed: ("check_sampling", "two rounds or runs draw alike"),
    SeedOfItsOwn: ("check_sampling", "two rounds or runs draw alike"),
    SameSecretsEveryRound: ("check_sampling", "two rounds or runs draw alike"),
    SamplerThrownAway: ("check_sampling", "records|neighbouring|rate"),
    FixedBatches: ("check_sampling", "batches of one size"),
    RateFromTheLoader: ("check_sampling", "the rate is not"),
    DividesByTheTrueBatch: ("check_division", "public expected batch"),
    ForgetsEarlierRounds: ("check_accounting", "the noise is that of epsilon"),
}
