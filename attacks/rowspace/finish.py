"""The last token of a record whose other tokens are known, from the gradient that it leaves behind.

The last token is only predicted: it enters one record's gradient as -d logit_v / d adapter at the last position, so the
update is c (a - u_v) with a the gradient of everything else, u_v that derivative and -c an unknown step size. No token
of the vocabulary needs a gradient of its own to be compared: the derivative of all logits along a direction d gives
<d, u_v> for all v at once. With d the update's parts in groups of tensors, the true v is the one for which
<d, update> and <d, a - u_v> are proportional over all d; the best few are then compared exactly, by cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bench.model.lora import LoraModel

#: directions along which all tokens are compared, and tokens that are then compared exactly
DIRECTIONS, SHORTLIST = 16, 4
#: length of the step along a unit direction for a central difference of logits: error of order its square
STEP = 1e-2

Flat = NDArray[np.float64]


@dataclass(frozen=True)
class Finished:
    """A whole record and how well its gradient agrees with the update: cosine in [-1, 1]."""

    ids: tuple[int, ...]
    cosine: float


def finish(
    model: LoraModel, before: NDArray[np.float32], update: Flat, prefix: Sequence[int], starts: Sequence[int]
) -> Finished:
    """``prefix`` with the last token whose gradient agrees best with minus the ``update`` (one SGD step, one record).

    ``update``: (layout.size,) of the trained values, with which ``before`` begins. ``starts``: positions from which
    records may carry loss (at least 1), each tried. Leaves the model at ``before``.
    """
    model.set_adapter(before)
    ids = torch.tensor([list(prefix)], device=model.device)
    directions = _parts(model, -update)
    slopes = np.array([_derivatives(model, before, ids, direction) for direction in directions])
    found = [_finish(model, -update, ids, start, directions, slopes) for start in starts if 1 <= start <= len(prefix)]
    return max(found, key=lambda f: f.cosine, default=Finished(tuple(prefix), -1.0))


def _finish(
    model: LoraModel, gradient: Flat, ids: torch.Tensor, start: int, directions: Sequence[Flat], slopes: Flat
) -> Finished:
    """The best last token for loss from ``start`` on. ``slopes``: (directions, vocabulary)."""
    prefix, parameters = tuple(int(i) for i in ids[0]), model.parameters()
    logits = model.module(input_ids=ids, use_cache=False).logits[0].float()
    known = torch.nn.functional.cross_entropy(logits[start - 1 : -1], ids[0, start:], reduction="sum")
    rest = _flat(torch.autograd.grad(known + logits[-1].logsumexp(0), parameters, retain_graph=True))
    observed = np.array([d @ gradient for d in directions])
    expected = np.array([d @ rest for d in directions])[:, None] - slopes
    agreement = observed @ expected / np.maximum(np.linalg.norm(expected, axis=0), 1e-300)
    best = Finished(prefix, -1.0)
    for token in np.argsort(-agreement, kind="stable")[:SHORTLIST]:
        own = _flat(torch.autograd.grad(logits[-1, int(token)], parameters, retain_graph=True))
        cosine = _cosine(gradient, rest - own)
        if cosine > best.cosine:
            best = Finished((*prefix, int(token)), cosine)
    return best


def _parts(model: LoraModel, gradient: Flat) -> list[Flat]:
    """Unit vectors: the gradient's parts in groups of tensors that follow one another, zeros elsewhere."""
    offsets = model.layout.offsets
    moved = [i for i in range(len(model.layout.names)) if np.any(gradient[offsets[i] : offsets[i + 1]])]
    parts: list[Flat] = []
    for group in np.array_split(np.array(moved, dtype=int), min(DIRECTIONS, len(moved)) or 1):
        part = np.zeros_like(gradient)
        for i in group:
            part[offsets[i] : offsets[i + 1]] = gradient[offsets[i] : offsets[i + 1]]
        parts.append(part / max(float(np.linalg.norm(part)), 1e-300))
    return parts


def _derivatives(model: LoraModel, before: NDArray[np.float32], ids: torch.Tensor, direction: Flat) -> Flat:
    """(vocabulary,) derivative of the last position's logits along a unit ``direction``, by a central difference."""
    sides = []
    for sign in (1, -1):
        moved = before.astype(np.float64)
        moved[: len(direction)] += sign * STEP * direction
        model.set_adapter(moved.astype(np.float32))
        with torch.no_grad():
            sides.append(model.module(input_ids=ids, use_cache=False).logits[0, -1].double().cpu().numpy())
    model.set_adapter(before)
    return np.asarray((sides[0] - sides[1]) / (2 * STEP))


def _flat(parts: Sequence[torch.Tensor]) -> Flat:
    return np.concatenate([part.detach().double().cpu().numpy().ravel() for part in parts])


def _cosine(a: Flat, b: Flat) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300))
