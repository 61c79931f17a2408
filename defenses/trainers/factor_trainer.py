"""Plain training of some of the LoRA matrices."""

from __future__ import annotations

from bench.defense.defaults.trainer import GradientTrainer
from bench.defense.parts import Training, TrainJob
from defenses.trainers.factors import Factors, training_only


class FactorTrainer(GradientTrainer):
    """Plain training of the matrices that ``factors`` names for the round; the others keep their values exactly."""

    def __init__(self, factors: Factors) -> None:
        self.factors = factors

    def train(self, job: TrainJob) -> Training:
        with training_only(job.model, self.factors, job.round):
            return super().train(job)
