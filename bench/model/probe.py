"""What a model must be before anything is trained on it, found by trying: causal, finite, long and wide enough.

A few short rows of random tokens are passed through a model when it is loaded, and the longest record when records are
encoded. What is wrong is one sentence, instead of a figure that means nothing or an error of the training's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.tokens import Tokens
from bench.corpus.task import Record
from bench.model import loading
from bench.model.text import start_of
from bench.spec.run import ModelSpec

#: nats by which rounding alone may move a log-probability, by the type of the weights; ``EIGHT_BITS``: for those whose
#: outlier columns are found in the whole batch. Rows of one shape, in one batch, were seen to move by nothing
TOLERANCE = {"float32": 1e-3, "float16": 0.01, "bfloat16": 0.05}
EIGHT_BITS = 0.25
#: of the rows that are passed forward: how many there are, each with another of its tokens the first that is changed,
#: and how many tokens they have
_ROWS, _LENGTH = 4, 8
#: how tables of learned positions are called, one row for each position
_TABLES = ("wpe", "embed_positions", "position_embeddings", "position_embedding")
#: what a model raises that its own configuration does not let run; memory that runs out is none of it
_BREAKS = (ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError, RuntimeError)

#: (n, length, vocabulary) logits
Logits = Callable[[Tokens], torch.Tensor]


@dataclass(frozen=True)
class Limits:
    """``vocabulary``: rows that every token id must lie in. ``table``: positions that there are values for, None where
    positions are computed. ``trained``: the longest text that the configuration speaks of, None where it doesn't."""

    vocabulary: int
    table: int | None
    trained: int | None


def limits(base: Any) -> Limits:
    """Read off the model and its configuration."""
    tables = [size for name, part in base.named_modules() if (size := _positions(name, part)) is not None]
    # GPT-J and its like keep sines in a buffer, from which rows are taken as well
    tables += [int(b.shape[0]) for name, b in base.named_buffers() if name.endswith("embed_positions") and b.dim() == 2]
    trained = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    rows = min(int(part.weight.shape[0]) for part in (base.get_input_embeddings(), base.get_output_embeddings()))
    return Limits(rows, min(tables, default=None), trained if isinstance(trained, int) and trained > 0 else None)


def _positions(name: str, part: Any) -> int | None:
    """How many positions a module has learned; None where it is no table of them."""
    if not isinstance(part, torch.nn.Embedding) or name.rpartition(".")[2] not in _TABLES:
        return None
    # OPT and its like leave out as many rows as an offset says, RoBERTa and its like those up to the padding's
    padding = -1 if part.padding_idx is None else part.padding_idx
    return int(part.num_embeddings) - int(getattr(part, "offset", padding + 1))


def check_weights(base: Any, path: object, spec: ModelSpec) -> None:
    """Raises UsageError naming the first of the model's tensors that holds a value that is not finite."""
    for name, tensor in base.named_parameters():
        values = tensor.detach()
        if not values.is_floating_point() or torch.isfinite(values.sum(dtype=torch.float32)):
            continue
        if torch.isnan(values).any():
            raise UsageError(f"{path}: the weights in {name} are not all numbers (NaN): the file is damaged.")
        if torch.isinf(values).any():
            raise UsageError(f"{path}: the weights in {name} are infinite in {spec.dtype}: {_other(spec)}.")


def check(logits: Logits, path: object, spec: ModelSpec, limit: Limits, special: Sequence[int] = ()) -> None:
    """Raises UsageError unless log-probabilities of random tokens are finite, and stay as they are where only later
    tokens change. ``special``: ids that are left out, as they may mean something."""
    rows, before = _rows(limit, special)
    with torch.no_grad():
        found = torch.log_softmax(logits(rows).float(), -1)
        _check_finite(bool(torch.isnan(found).any()), path, spec)
        found, early = found.cpu(), torch.from_numpy(before)
        one, other = found[:_ROWS][early], found[_ROWS:][early]
        moved = float(torch.where(one == other, 0.0, (one - other).abs()).max())
    if moved > (TOLERANCE[spec.dtype] if spec.quantize != "8bit" else EIGHT_BITS):
        raise UsageError(
            f"{path} is no causal language model: log-probabilities of earlier tokens move by {moved:.2g} nats when "
            "later tokens change, so it sees what it is to predict; name a decoder (an encoder such as BERT is none)."
        )


def _rows(limit: Limits, special: Sequence[int]) -> tuple[Tokens, NDArray[np.bool_]]:
    """``_ROWS`` rows of random tokens and the same rows with all tokens replaced from somewhere on; and which positions
    of either lie before."""
    ordinary = np.setdiff1d(np.arange(limit.vocabulary, dtype=np.int32), np.array(special, dtype=np.int64))
    length = min(_LENGTH, limit.table or _LENGTH)
    first_changed = 1 + np.arange(_ROWS) * (length - 1) // _ROWS
    before, rng = np.arange(length) < first_changed[:, None], np.random.default_rng(0)
    first = rng.integers(len(ordinary), size=before.shape)
    later = (first + rng.integers(1, len(ordinary), size=first.shape)) % len(ordinary)
    return _whole(ordinary[np.concatenate([first, np.where(before, first, later)])]), before


def _whole(ids: NDArray[np.int32]) -> Tokens:
    """Rows without padding; every token but the first is predicted."""
    lengths = np.full(len(ids), ids.shape[1], dtype=np.int32)
    predicted = np.broadcast_to(np.arange(ids.shape[1]) > 0, ids.shape).copy()
    return Tokens(ids, lengths, predicted, np.full(len(ids), -1, dtype=np.int32))


def _check_finite(broken: bool, path: object, spec: ModelSpec) -> None:
    if broken:
        raise UsageError(f"{path}: its log-probabilities are not finite in {spec.dtype}: {_other(spec)}.")


def _other(spec: ModelSpec) -> str:
    """What to do about values that are not finite."""
    if spec.dtype == "float16":
        return "its values are too large for that type, take --dtype bfloat16 or float32"
    return "take --dtype float32" if spec.dtype == "bfloat16" else "the file is damaged"


def check_length(limit: Limits, max_tokens: int, path: object, start: int = 0) -> str | None:
    """Raises UsageError where there is no position for every token that a record may have behind ``start`` others. A
    warning where records may be longer than what the model was made for."""
    asked = f"pool.max_tokens is {max_tokens}" + (f" behind {start} that stand in front" if start else "")
    if limit.table is not None and limit.table < start + max_tokens:
        raise UsageError(
            f"{path} has {limit.table} positions, and {asked}: "
            f"take --set pool.max_tokens={limit.table - start} or a model for longer texts."
        )
    if limit.trained is not None and limit.trained < start + max_tokens:
        return (
            f"warning: {path} was made for texts of {limit.trained} tokens, and {asked}: its figures may mean little "
            "beyond that"
        )
    return None


def check_outline(path: Path, model: ModelSpec, targets: tuple[str, ...], max_tokens: int) -> None:
    """What can be said without loading weights: whether the adapter has a place, and every token a position. Raises
    UsageError."""
    base = loading.skeleton(path)
    loading.choose_targets(base, targets)
    start = start_of(loading.load_tokenizer(path), model.bos, path)
    check_length(limits(base), max_tokens, model.name, len(start))


def check_vocabulary(ids: NDArray[np.integer], records: Sequence[Record], limit: Limits, tokenizer: Any) -> None:
    """Raises UsageError naming the first token id of the records (rows of ``ids``) that the model has no row for."""
    found = np.argwhere(ids >= limit.vocabulary)
    if len(found):
        row, column = found[0]
        check_token(int(ids[row, column]), f"Record '{records[row].id}'", limit, tokenizer)


def check_token(token: int, who: str, limit: Limits, tokenizer: Any) -> None:
    """Raises UsageError where the model has no row for a token of ``who``."""
    if token >= limit.vocabulary:
        raise UsageError(
            f"{who} has the token {tokenizer.convert_ids_to_tokens(token)!r} (id {token}), and the model's vocabulary "
            f"ends at id {limit.vocabulary - 1}: the tokenizer is another model's, or was extended without the model."
        )


def check_longest(model: Any, tokens: Tokens, path: object, spec: ModelSpec) -> None:
    """Pass the longest record forward. Raises UsageError where that fails, or gives a loss that is not finite."""
    if len(tokens) == 0:
        return
    longest = tokens.take([int(tokens.lengths.argmax())])
    with running(path, f"a record of {longest.ids.shape[1]} tokens"):
        loss = float(model.stats(longest).losses()[0])
    _check_finite(not np.isfinite(loss), path, spec)


@contextmanager
def running(path: object, what: str) -> Iterator[None]:
    """What a model raises that can't be run on ``what`` leaves as a UsageError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except _BREAKS as error:
        text = str(error).strip().splitlines()
        raise UsageError(
            f"{path} can't be run on {what} ({type(error).__name__}: {text[0][:300] if text else 'no reason given'}); "
            "check its config.json and the versions of torch and transformers, or name another model."
        ) from error  # shown with SILOBENCH_TRACEBACK=1
