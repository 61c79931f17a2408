"""What the base model adds where the row spaces fall silent: an order for known tokens, a choice among prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.tokens import Tokens

if TYPE_CHECKING:
    from bench.model.lora import LoraModel

#: what a token that already stands in the sequence loses, in nats: a known token occurs at least once, mostly once
REPEAT = 4.0


@torch.no_grad()
def by_likelihood(model: LoraModel, prefixes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """``prefixes`` by their mean log-probability per token, the most likely first; single tokens last."""
    means = []
    for prefix in prefixes:
        ids = torch.tensor([list(prefix)], device=model.device)
        logits = model.module(input_ids=ids, use_cache=False).logits[0, :-1].float()
        means.append(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:])) if len(prefix) > 1 else np.inf)
    return [tuple(prefixes[i]) for i in np.argsort(means, kind="stable")]


@torch.no_grad()
def arrange(model: LoraModel, tokens: NDArray[np.int64], population: Tokens, length: int) -> tuple[int, ...]:
    """One sequence that uses all of ``tokens`` and nothing else, in the order that the model finds most natural.

    Greedy, from the opening that the population has most often; at most ``length`` tokens.
    """
    ids = list(opening(tokens, population))
    missing = set(tokens.tolist()) - set(ids)
    index = torch.as_tensor(np.asarray(tokens, np.int64), device=model.device)
    while missing and len(ids) < length:
        batch = torch.tensor([ids], device=model.device)
        logits = model.module(input_ids=batch, use_cache=False).logits[0, -1, index].float().cpu().numpy()
        used = np.array([ids.count(int(token)) for token in tokens])
        ids.append(int(tokens[int(np.argmax(logits - REPEAT * used))]))
        missing.discard(ids[-1])
    return tuple(ids)


def opening(tokens: NDArray[np.int64], population: Tokens) -> tuple[int, ...]:
    """The population's most frequent beginning (up to the first predicted token) made of ``tokens``, else the token
    that stands most often in the population, else the first."""
    known = set(tokens.tolist())
    seen: dict[tuple[int, ...], int] = {}
    for ids, predicted in zip(population.ids, population.predicted, strict=True):
        start = tuple(int(token) for token in ids[: int(np.argmax(predicted))])
        if start and set(start) <= known:
            seen[start] = seen.get(start, 0) + 1
    if seen:
        return min(seen, key=lambda start: (-seen[start], start))
    counts = [int((population.ids == token).sum()) for token in tokens]
    return (int(tokens[int(np.argmax(counts))]),)
