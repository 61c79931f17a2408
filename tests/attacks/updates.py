"""Real updates of a small model, and the least of a view and of tools that a reconstruction attack asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attacks import inversion
from bench.attack.attack import Reconstruction, Target, Tools
from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Layout
from bench.model.lora import LoraModel

Adapter = NDArray[np.float32]


def tokens_of(rows: Sequence[Sequence[int]], start: int = 1) -> Tokens:
    """Records as they are, loss on the tokens from position ``start`` on."""
    width = max(len(row) for row in rows)
    ids = np.zeros((len(rows), width), dtype=np.int32)
    predicted = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        predicted[i, start : len(row)] = True
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    return Tokens(ids, lengths, predicted, np.full(len(rows), -1, dtype=np.int32))


def train(
    model: LoraModel,
    before: Adapter,
    tokens: Tokens,
    *,
    lr: float = 2e-3,
    batches: Sequence[Sequence[int]] | None = None,
    adamw: bool = False,
) -> Adapter:
    """The adapter after one step per batch (default: one step on all records); the model is left at the base."""
    model.set_adapter(before)
    parameters = model.parameters()
    if adamw:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    else:
        optimizer = torch.optim.SGD(parameters, lr=lr)
    for batch in batches or [range(len(tokens))]:
        optimizer.zero_grad()
        torch.autograd.backward(model.losses(tokens.take(list(batch))).mean())
        optimizer.step()
    optimizer.zero_grad()
    after = model.get_adapter()
    model.set_adapter(None)
    return after


@dataclass(frozen=True)
class Upload:
    """An opened upload."""

    adapter: Adapter
    before: Adapter | None
    silo: str = "silo-0"
    round: int = 0
    kind: str = "upload"

    @property
    def silos(self) -> frozenset[str]:
        return frozenset({self.silo})

    @property
    def values(self) -> Adapter:
        """The summand: the change."""
        return self.adapter - (0 if self.before is None else self.before)


@dataclass(frozen=True)
class FakeView:
    """A view that holds these uploads and nothing else of an adapter of this layout."""

    layout: Layout
    readings: tuple[Upload, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    initial: Adapter | None = None

    @property
    def public(self) -> Any:
        return SimpleNamespace(layout=self.layout, adapter=self.layout, weights={}, sizes={})

    def uploads(self, silo: str | None = None, round: int | None = None) -> tuple[Upload, ...]:
        uploads = [u for u in self.readings if u.kind == "upload"]
        return tuple(u for u in uploads if silo in (None, u.silo) and round in (None, u.round))


@dataclass
class FakeTools(Tools):
    """The model and the population."""

    model: LoraModel
    population: Tokens
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    population_texts: tuple[str, ...] = ()

    def token_stats(self, source: Any, tokens: Tokens) -> TokenStats:
        self.model.set_adapter(None if source is None else source.adapter)
        return self.model.stats(tokens)


def attack(
    model: LoraModel, population: Tokens, before: Adapter, after: Adapter, records: int = 1, steps: int = 1
) -> Reconstruction:
    """What the row-space attack makes of one upload."""
    view: Any = FakeView(model.layout, (Upload(after, before),))
    target = Target(0, "silo-0", records, steps)
    (answer,) = inversion.build(inversion.Config()).reconstruct(view, [target], FakeTools(model, population))
    return answer


def auc(scores: NDArray[np.float64], there: Sequence[int] | set[int]) -> float:
    """P(a token that was there scores higher than one that was not) + half of ties."""
    mask = np.zeros(len(scores), dtype=bool)
    mask[list(there)] = True
    order = np.sort(scores[~mask])
    below = np.searchsorted(order, scores[mask], side="left") + np.searchsorted(order, scores[mask], side="right")
    return float(below.mean() / 2 / len(order))
