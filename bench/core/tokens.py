"""Tokenised records as plain NumPy arrays (no torch), made once per run by ``LoraModel.encode``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """``n`` records padded on the right to ``length`` tokens.

    ids: (n, length) int32. lengths: (n,) int32, at least 2. predicted: (n, length) bool, True at the positions t
    whose token carries loss (predicted from positions < t; never position 0). answer: (n,) int32, the position of
    the first token after ``answer_prefix`` (it names the label), or -1. lead: how many tokens every record begins with
    that are the model's start (a BOS) and none of its own; never predicted. ends: (n,) int32, the position where the
    text ends and the template's answer begins; None: all is text.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    predicted: NDArray[np.bool_]
    answer: NDArray[np.int32]
    lead: int = 0
    ends: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> Tokens:
        """The records at ``rows``, padding trimmed to the longest of them."""
        index = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[index]
        width = int(lengths.max()) if len(index) else 0
        ends = None if self.ends is None else self.ends[index]
        predicted = self.predicted[index, :width]
        return Tokens(self.ids[index, :width], lengths, predicted, self.answer[index], self.lead, ends)

    def of_text(self) -> NDArray[np.bool_]:
        """(n, length) True at the predicted tokens of the text; those of the answer are the other predicted ones."""
        if self.ends is None:
            return self.predicted
        return self.predicted & (np.arange(self.ids.shape[1]) < self.ends[:, None])

    def own(self) -> list[NDArray[np.int32]]:
        """Each record's own tokens, without the model's start and padding."""
        return [row[self.lead : n] for row, n in zip(self.ids, self.lengths, strict=True)]

    def without_lead(self) -> Tokens:
        """The records' own tokens only; nothing predicts a first one any more. For whoever counts tokens, not for the
        model."""
        if not self.lead:
            return self
        n = self.lead
        answer = np.where(self.answer >= 0, self.answer - n, -1).astype(np.int32)
        predicted = self.predicted[:, n:].copy()
        predicted[:, :1] = False
        ends = None if self.ends is None else self.ends - np.int32(n)
        return Tokens(self.ids[:, n:], (self.lengths - n).astype(np.int32), predicted, answer, ends=ends)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the contents, the key of memoised scores."""
        state = hashlib.sha256(str(self.ids.shape).encode())
        for part in (self.ids, self.lengths, self.predicted, self.answer):
            state.update(np.ascontiguousarray(part).tobytes())
        return state.hexdigest()


@dataclass(frozen=True)
class TokenStats:
    """What one forward pass says about each predicted token. All (n, length); 0 where not ``predicted``.

    logp: natural log-probability of the token. mean, sd: mean and standard deviation of the log-probability over the
    model's next-token distribution at that position (Min-K%++, Zhang et al. 2024, eq. 3); None for an adversary
    that sees log-probabilities of the text only. choices: (n, k) log-probabilities of k tokens, or whole labels, at
    ``answer``.
    first: bool, whether no other token is likelier there (what greedy generation of one token tells); None where that
    was not asked.
    """

    logp: NDArray[np.float32]
    predicted: NDArray[np.bool_]
    mean: NDArray[np.float32] | None = None
    sd: NDArray[np.float32] | None = None
    choices: NDArray[np.float32] | None = None
    first: NDArray[np.bool_] | None = None

    def losses(self) -> NDArray[np.float64]:
        """(n,) mean negative log-likelihood per record, in nats per token."""
        counts = np.maximum(self.predicted.sum(1), 1)
        total: NDArray[np.float64] = np.where(self.predicted, self.logp, 0.0).sum(1, dtype=np.float64)
        losses: NDArray[np.float64] = -total / counts
        return losses
