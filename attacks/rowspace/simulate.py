"""What a silo's update would be if its records were these: gradients of guesses, compared with what was observed.

A record's loss is a mean over its predicted positions, and position t's loss depends on the tokens up to t alone. So a
record's gradient is a sum of one term per position, and a prefix's terms are part of it: guesses can be grown token by
token, each compared by its cosine with the update (as in gradient matching: Zhu et al. 2019; LAMP, Balunovic et al.
2022). Adam's first steps keep little but the signs of a gradient; then signs are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.observe import Observed
from bench.core.tokens import Tokens
from bench.model.gradients import record_gradients

if TYPE_CHECKING:
    from bench.model.lora import LoraModel

Flat = NDArray[np.float32]


class Spent(Exception):
    """The budget of forward-backward passes is used up."""


class Matcher:
    """Compares guesses with one observed update, and counts the records that go through the model.

    ``sign``: the update came from an optimiser that divides a gradient by its size (AdamW). ``budget``: passes allowed.
    """

    def __init__(self, model: LoraModel, seen: Observed, sign: bool, budget: int) -> None:
        self.model, self.before = model, seen.before
        self.sign, self.budget, self.used = sign, budget, 0
        self.at = np.flatnonzero(seen.known)
        self.whole = len(self.at) == len(seen.known)
        self.sizes = np.diff(np.searchsorted(self.at, model.layout.offsets))
        self.wanted = self._part(-seen.change.astype(np.float32))
        self._target = self._shaped(self.wanted)

    def spend(self, passes: int) -> None:
        """Raises Spent, and spends nothing, where that many are not left."""
        if self.used + passes > self.budget:
            raise Spent
        self.used += passes

    def terms(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(n, known entries) the gradient of each row's last token's loss given those before it."""
        return self._gradients(rows, [len(row) - 1 for row in rows])

    def records(self, rows: Sequence[Sequence[int]], start: int) -> NDArray[np.float32]:
        """(n, known entries) the sum over each row's positions from ``start`` on."""
        found = self._gradients(rows, [min(start, len(row) - 1) for row in rows])
        counts = np.array([max(len(row) - start, 1) for row in rows], np.float32)
        return found * counts[:, None]

    def _gradients(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> NDArray[np.float32]:
        self.spend(len(rows))
        found = record_gradients(self.model, self.before, tokens_of(rows, starts))
        return np.stack([self._part(g) for g in found])

    def _part(self, flat: Flat) -> Flat:
        return flat if self.whole else flat[self.at]

    def agreement(self, sums: NDArray[np.float32], target: Flat | None = None) -> NDArray[np.float64]:
        """(n,) cosine in [-1, 1] of each row of ``sums`` (n, known entries) with the update, or with ``target``."""
        wanted = self._target if target is None else self._shaped(target)
        shaped = np.stack([self._shaped(row) for row in sums])
        size = np.linalg.norm(shaped, axis=1).astype(np.float64) * float(np.linalg.norm(wanted))
        along = (shaped @ wanted).astype(np.float64)
        return np.asarray(np.divide(along, size, out=np.zeros(len(sums)), where=size > 0))

    def _shaped(self, flat: Flat) -> Flat:
        """A gradient as it is, or, where signs are compared, each entry x as x / (|x| + its tensor's mean size)."""
        if not self.sign:
            return flat
        counts = np.maximum(self.sizes, 1)
        bounds = np.concatenate([[0], np.cumsum(self.sizes)])
        magnitude = np.abs(flat)
        means = np.array([magnitude[a:b].sum() for a, b in pairwise(bounds)]) / counts
        return np.asarray(flat / np.maximum(magnitude + np.repeat(means, self.sizes), 1e-30), np.float32)


def tokens_of(rows: Sequence[Sequence[int]], starts: Sequence[int]) -> Tokens:
    """Records of these tokens with loss on the positions from each one's ``start`` (at least 1) on."""
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), int(lengths.max())), np.int32)
    predicted = np.zeros(ids.shape, bool)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, : len(row)] = row
        predicted[i, max(start, 1) : len(row)] = True
    return Tokens(ids, lengths, predicted, np.full(len(rows), -1, np.int32))


def log_next(model: LoraModel, before: Flat, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """(n, vocabulary) log-probability of the next token after each row (all of one length), under the adapter."""
    import torch

    kept = model.get_adapter()
    model.set_adapter(before)
    try:
        with torch.no_grad():
            batch = torch.tensor([list(row) for row in rows], device=model.device)
            logits = model.module(input_ids=batch, use_cache=False).logits[:, -1].float()
        return np.asarray(torch.log_softmax(logits, 1).double().cpu().numpy())
    finally:
        model.set_adapter(kept)


def log_records(model: LoraModel, before: Flat, rows: Sequence[Sequence[int]], start: int) -> NDArray[np.float64]:
    """(n,) log-probability of each row's tokens from ``start`` on, under the adapter."""
    kept = model.get_adapter()
    model.set_adapter(before)
    try:
        stats = model.stats(tokens_of(rows, [start] * len(rows)))
    finally:
        model.set_adapter(kept)
    return np.asarray(np.where(stats.predicted, stats.logp, 0.0).sum(1, dtype=np.float64))
