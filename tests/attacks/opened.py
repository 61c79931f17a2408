"""What opened, and what is lent, in tests of attacks that train on the real ``tiny`` model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.attack.attack import Tools
from bench.core.tokens import Tokens, TokenStats
from bench.model.lora import LoraModel

Flat = NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    kind: str
    silos: frozenset[str]
    adapter: Flat
    before: Flat | None = None
    round: int = 0
    handle: str = "x"

    @property
    def before_path(self) -> Path | None:
        return None if self.before is None else Path("before")


@dataclass(frozen=True)
class View:
    readings: Sequence[Reading]
    spec: Mapping[str, Any]
    initial: Flat | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def public(self) -> SimpleNamespace:
        return SimpleNamespace(sizes=self.sizes)

    @property
    def initial_path(self) -> Path | None:
        return None if self.initial is None else Path("initial")

    def uploads(self, silo: str | None = None) -> list[Reading]:
        return [r for r in self.readings if r.kind == "upload" and silo in (None, *r.silos)]

    def adapters(self) -> list[Reading]:
        return [r for r in self.readings if r.kind == "adapter"]

    def last_adapter(self, silo: str) -> Reading | None:
        last = [r for r in self.readings if r.kind != "upload" or silo in r.silos]
        return last[-1] if last else None


class Lent(Tools):
    """Forward passes by the model itself; ``made``: what was computed once."""

    def __init__(self, model: LoraModel) -> None:
        self.model = model
        self.made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def token_stats(self, source: Any, tokens: Tokens) -> TokenStats:
        return self.stats_under(None if source is None else source.adapter, tokens)

    def stats_under(self, adapter: Any, tokens: Tokens) -> TokenStats:
        self.model.set_adapter(adapter)
        return self.model.stats(tokens)
