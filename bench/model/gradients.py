"""Per-record gradients of an adapter, one forward and one backward pass for a batch of records; and what they tell.

The base model is frozen, and each LoRA matrix W is a linear map y = W x of its own. Record i's gradient is then G_i =
sum over its positions t of dy_it x_it^T (Goodfellow 2015, "Efficient per-example gradient computations"): autograd is
asked for the dy of all maps, never for a gradient of a parameter, and no batch is summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Array, Layout

if TYPE_CHECKING:
    import torch

    from bench.model.lora import LoraModel

Floats = NDArray[np.float64]
Told = Callable[[Tokens, TokenStats], None]

#: padded tokens of one backward pass: their logits are what takes memory (4 vocabularies of float32 each)
BATCH_TOKENS = 512


def record_gradients(
    model: LoraModel, at: Array | None, tokens: Tokens, batch_tokens: int = BATCH_TOKENS, told: Told | None = None
) -> Iterator[Array]:
    """Yields for each record, in order, the gradient of its own mean negative log-likelihood (nats per predicted token)
    with respect to the adapter: (layout.size,) float32, in canonical order.

    at: the flat adapter at which it is taken; None: zeros, where with B = 0 every gradient is zero (take the initial
    adapter, which has an A, for the base model's own). A record without a predicted token has a gradient of zeros. At
    every yield the model has the adapter that it had before. ``batch_tokens``: how many tokens, padding included, go
    through the model at once; at least one record does. ``told`` is handed the token statistics that the forward passes
    give besides, with their records. Raises SiloBenchError where ``at`` is misshapen or not finite.
    """
    for rows in _batches(tokens.lengths, batch_tokens):
        part = tokens.take(rows)
        with under(model, at):
            found = _together(model, part, told)
            if found is None:
                found = np.stack([_alone(model, part.take([row])) for row in range(len(part))])
        yield from found


def _batches(lengths: NDArray[np.integer], limit: int) -> Iterator[list[int]]:
    """Consecutive rows whose padded size is at most ``limit``, or single ones."""
    rows: list[int] = []
    for row in range(len(lengths)):
        if rows and (len(rows) + 1) * int(lengths[[*rows, row]].max()) > limit:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


@contextmanager
def under(model: LoraModel, values: Array | None) -> Iterator[None]:
    """The model with another adapter (None: the base model), given back as it was."""
    kept = model.get_adapter()
    model.set_adapter(values)
    try:
        yield
    finally:
        model.set_adapter(kept)


def _together(model: LoraModel, tokens: Tokens, told: Told | None) -> NDArray[np.float32] | None:
    """(n, layout.size), or None where the maps don't see one record per row (experts that tokens are sent to) or a
    parameter is no weight of a linear map."""
    import torch

    parameters = model.parameters()
    maps = _maps(model, parameters)
    if maps is None:
        return None
    used: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    with torch.enable_grad(), _watched(maps, used):
        if told is None:
            losses = model.losses(tokens)
        else:
            losses, stats = model.losses_and_stats(tokens)
            told(tokens, stats)
        total = losses.sum()
    shape = torch.Size(tokens.ids.shape)
    if any(x.shape[:-1] != shape or y.shape[:-1] != shape for _, x, y in used):
        return None
    outputs = [y for _, _, y in used]
    slopes = torch.autograd.grad(total, outputs, allow_unused=True) if outputs and total.requires_grad else []
    found: dict[int, torch.Tensor] = {}
    for (key, x, _), dy in zip(used, slopes, strict=False):
        if dy is not None:
            piece = torch.bmm(dy.float().mT, x.float())
            found[key] = found[key] + piece if key in found else piece
    flat = np.zeros((len(tokens), model.layout.size), dtype=np.float32)
    for number, parameter in enumerate(parameters):
        if id(parameter) in found:
            start, end = model.layout.offsets[number : number + 2]
            flat[:, start:end] = found[id(parameter)].flatten(1).cpu().numpy()
    return flat


def _maps(model: LoraModel, parameters: Sequence[torch.nn.Parameter]) -> list[tuple[int, Any]] | None:
    """(id of the weight, linear map) for every parameter, or None where one belongs to something else."""
    import torch

    wanted = {id(p) for p in parameters}
    maps = [
        (id(owner.weight), owner)
        for owner in model.module.modules()
        if isinstance(owner, torch.nn.Linear) and id(owner.weight) in wanted
    ]
    return maps if {key for key, _ in maps} == wanted else None


@contextmanager
def _watched(maps: Iterable[tuple[int, Any]], used: list[Any]) -> Iterator[None]:
    """Every use of a map within is noted in ``used``: (id of its weight, input, output)."""

    def watch(key: int) -> Any:
        def note(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if not output.requires_grad:  # nothing before it is trained, nor is its own weight just now
                output.requires_grad_()
            used.append((key, inputs[0].detach(), output))

        return note

    handles = [owner.register_forward_hook(watch(key)) for key, owner in maps]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _alone(model: LoraModel, tokens: Tokens) -> Array:
    """(layout.size,) one record's gradient, by autograd itself."""
    import torch

    parameters = model.parameters()
    with torch.enable_grad():
        total = model.losses(tokens).sum()
    slopes = torch.autograd.grad(total, parameters, allow_unused=True)
    flat = np.zeros(model.layout.size, dtype=np.float32)
    for number, slope in enumerate(slopes):
        if slope is not None:
            start, end = model.layout.offsets[number : number + 2]
            flat[start:end] = slope.float().cpu().numpy().ravel()
    return flat


@dataclass(frozen=True)
class Measured:
    """What k directions say about n gradients, by the layout's T tensors.

    dots: (n, k, T) inner products of gradient and direction. squares: (n, T) squared norms of the gradients. within:
    (n, k, T) the part of ``squares`` that lies in the direction's row space (``row_spaces``), between 0 and
    ``squares``. lengths: (k, T) squared norms of the directions.
    """

    dots: Floats
    squares: Floats
    within: Floats
    lengths: Floats

    @property
    def norms(self) -> Floats:
        """(n,) the gradients' norms."""
        found: Floats = np.sqrt(self.squares.sum(1))
        return found

    @property
    def projections(self) -> Floats:
        """(n, k) inner products of the whole gradient and the whole direction."""
        found: Floats = self.dots.sum(2)
        return found

    @property
    def cosines(self) -> Floats:
        """(n, k) cosines of the whole gradient and the whole direction; 0 where one of them is zero."""
        scale = self.norms[:, None] * np.sqrt(self.lengths.sum(1))[None, :]
        found: Floats = np.divide(self.projections, scale, out=np.zeros_like(scale), where=scale > 0)
        return found

    @property
    def explained(self) -> Floats:
        """(n, k) in [0, 1], the share of the gradient's energy within the direction's row spaces; 0 for a gradient of
        zeros. One less this is the squared relative projection residual."""
        energy = np.broadcast_to(self.squares.sum(1)[:, None], self.within.shape[:2])
        found: Floats = np.divide(self.within.sum(2), energy, out=np.zeros(energy.shape), where=energy > 0)
        return found


def measure(gradients: Iterable[Array], layout: Layout, directions: Sequence[NDArray[np.floating]]) -> Measured:
    """One pass over ``gradients``, of which one at a time is held; see ``Measured``. directions: k flat arrays of
    ``layout.size`` values. Raises ValueError where one has another shape."""
    flat = [np.asarray(d, dtype=np.float64) for d in directions]
    spaces = [row_spaces(layout, d) for d in flat]
    count, tensors = len(flat), len(layout.names)
    starts = layout.offsets[:-1]
    rows: list[tuple[Floats, Floats, Floats]] = []
    for gradient in gradients:
        g = np.asarray(gradient, dtype=np.float64)
        dots = np.array([np.add.reduceat(g * d, starts) for d in flat]).reshape(count, tensors)
        within = np.array([_within(layout, g, space) for space in spaces]).reshape(count, tensors)
        rows.append((dots, np.add.reduceat(g * g, starts), within))
    lengths = np.array([np.add.reduceat(d * d, starts) for d in flat]).reshape(count, tensors)
    n = len(rows)
    return Measured(
        np.array([r[0] for r in rows]).reshape(n, count, tensors),
        np.array([r[1] for r in rows]).reshape(n, tensors),
        np.array([r[2] for r in rows]).reshape(n, count, tensors),
        lengths,
    )


def row_spaces(layout: Layout, direction: NDArray[np.floating]) -> tuple[Floats, ...]:
    """For each tensor of the direction an orthonormal basis (longer side, rank) of the space that its rank-many vectors
    along the longer side span: the rows of a lora_A, the columns of a lora_B. Directions of less than 1e-6 of the
    largest singular value are rounding, and left out."""
    spaces = []
    for _, tensor in layout.tensors(np.asarray(direction, dtype=np.float64)):
        matrix = _lengthwise(tensor)
        _, values, rows = np.linalg.svd(matrix, full_matrices=False)
        spaces.append(rows[values > 1e-6 * values[0]].T if values[0] > 0 else np.zeros((matrix.shape[1], 0)))
    return tuple(spaces)


def _within(layout: Layout, gradient: Floats, spaces: Sequence[Floats]) -> list[float]:
    pairs = zip(layout.tensors(gradient), spaces, strict=True)
    return [float(np.square(_lengthwise(tensor) @ space).sum()) for (_, tensor), space in pairs]


def _lengthwise(tensor: NDArray[np.floating]) -> Floats:
    """As a matrix whose rows run along the longer side."""
    matrix = np.asarray(tensor, dtype=np.float64).reshape(len(tensor), -1)
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
