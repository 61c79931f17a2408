"""The goldfish loss (Hans et al. 2024, "Be like a Goldfish, Don't Memorize!", arXiv 2406.10209, section 3).

A fixed one in k of the tokens never carries loss, so that the model must guess where a memorised passage goes on.
Which ones is decided by a hash of the h tokens before, so that a passage that stands in several records, or in several
silos, loses the same tokens everywhere and every time.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.core.tokens import Tokens
from bench.defense.defaults.trainer import GradientTrainer
from bench.defense.parts import Training, TrainJob


class GoldfishTrainer(GradientTrainer):
    """Plain training on the tokens that are not dropped; a record's loss is the mean over these (equation 2). A record
    of which none is left gives no gradient."""

    def __init__(self, k: int = 4, context: int = 13, early: bool = False) -> None:
        self.k, self.context, self.early = k, context, early

    def train(self, job: TrainJob) -> Training:
        kept = job.tokens.predicted & ~dropped(job.tokens, self.k, self.context, self.early)
        return super().train(replace(job, tokens=replace(job.tokens, predicted=kept)))


def dropped(tokens: Tokens, k: int, context: int, early: bool) -> NDArray[np.bool_]:
    """(n, length) bool: where the hash of the ``context`` tokens before is in its lowest 1/k; prompts count as context.

    A position with fewer tokens before it is never dropped, or, with ``early``, by the hash of those that there are.
    """
    mask = np.zeros(tokens.ids.shape, dtype=np.bool_)
    ids = np.ascontiguousarray(tokens.ids, dtype="<i4")
    for row, column in zip(*np.nonzero(tokens.predicted), strict=True):
        if early or column >= context:
            mask[row, column] = _hash(ids[row, max(0, column - context) : column]) * k < 2**64
    return mask


def _hash(before: NDArray[np.int32]) -> int:
    """The first 64 bits of SHA-256 over the token ids (little-endian int32): public, and the same everywhere."""
    return int.from_bytes(hashlib.sha256(before.tobytes()).digest()[:8], "big")
