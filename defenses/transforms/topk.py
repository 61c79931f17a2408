"""Top-k sparsification: the largest magnitudes of an update, the rest zero."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from bench.core.update import Array
from defenses.transforms.compress import Compressor
from defenses.transforms.prune import smallest


class TopK(Compressor):
    """Of n values the max(1, round(share * n)) of largest magnitude, bit for bit; of equal ones the last. n is the size
    of each LoRA tensor (``per="tensor"``) or of the whole update (``per="update"``).

    Which ones they are depends on the silo's records, so they are no public support: the update stays dense, with
    zeros. Whether a zero costs a byte is the channel's affair.
    """

    def __init__(self, share: float = 0.1, per: Literal["tensor", "update"] = "tensor", feedback: bool = True) -> None:
        super().__init__(feedback)
        self.share, self.per = share, per

    def compress(self, values: Array, bounds: Sequence[int]) -> Array:
        sent = values.copy()
        for start, stop in pairwise(bounds if self.per == "tensor" else (0, len(values))):
            size = stop - start
            if size:
                kept = max(1, round(self.share * size))
                sent[start:stop][smallest(values[start:stop], (size - kept) / size)] = np.float32(0)
        return sent
