"""How long a run will take and how much it will write, roughly: for ``--dry-run`` only, never in a result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bench.assets.assets import Assets
from bench.core.errors import UsageError
from bench.core.meter import cores
from bench.core.parties import silo
from bench.core.update import Layout
from bench.defense.compose import Parts
from bench.spec.foreign import Foreign, read
from bench.spec.run import RunSpec

#: multiply-adds per second and core that a step reaches in float32 (60 to 75 GFLOP/s were measured per server core)
_CORE_RATE = 6e10
#: seconds that a step costs beside its arithmetic
_STEP_OVERHEAD = 0.01
#: seconds to load libraries, model and records
_START = 10.0


@dataclass(frozen=True)
class Shape:
    """What the estimate needs of a model: width, layers, vocabulary, and the parameters that are multiplied."""

    hidden: int
    layers: int
    vocabulary: int
    parameters: float


_Size = Annotated[int, Field(ge=1, le=2**31)]


class _Config(Foreign, extra="ignore"):
    hidden_size: _Size
    num_hidden_layers: _Size
    vocab_size: _Size
    intermediate_size: _Size | None = None


#: assumed until the model is here to be read
_UNKNOWN = Shape(576, 30, 49152, 1.35e8)


def shape(spec: RunSpec) -> Shape:
    """From the model's config.json where it is present, else that of a small language model."""
    path = Assets(quiet=True).present(spec.model.name)
    if path is None:
        return _UNKNOWN
    try:
        found = read(_Config, path / "config.json")
    except UsageError:
        found = None
    if found is None:
        return _UNKNOWN
    hidden, layers, words = found.hidden_size, found.num_hidden_layers, found.vocab_size
    inner = found.intermediate_size or 4 * hidden
    return Shape(hidden, layers, words, layers * hidden * (3.0 * hidden + 3.0 * inner) + words * hidden)


def _pass_seconds(spec: RunSpec, records: float) -> float:
    """One forward pass: 2 operations per parameter and token."""
    return 2 * shape(spec).parameters * records * spec.pool.max_tokens / (_CORE_RATE * cores())


def training_seconds(spec: RunSpec) -> float:
    """Forward and backward (frozen weights: twice the forward pass) of all local steps, and the utility's passes."""
    federation, pool = spec.federation, spec.pool
    local = federation.local
    records = pool.candidates * pool.share
    steps = local.steps or local.epochs * math.ceil(records / local.batch)
    trained = steps * min(local.batch, records) if local.steps else local.epochs * records
    taking_part = federation.rounds * math.ceil(federation.client_fraction * federation.silos)
    seconds = taking_part * (2.2 * _pass_seconds(spec, trained) + steps * _STEP_OVERHEAD)
    return _START + seconds + (federation.rounds + 1) * _pass_seconds(spec, pool.heldout)


def attack_seconds(spec: RunSpec, records: float) -> float:
    """So many records passed forward; adversaries that read the same adapter share them."""
    return 1.0 + _pass_seconds(spec, records)


def training_bytes(spec: RunSpec, parts: Parts) -> int:
    """Messages of all rounds and the harness's own copies of updates (float32)."""
    model, lora = shape(spec), spec.federation.lora
    silos = spec.federation.silos
    # one square projection stands for all: what of it is summed, which may be more than its factors
    factors = Layout(("x.lora_A", "x.lora_B"), ((lora.rank, model.hidden), (model.hidden, lora.rank)))
    summed = parts.aggregator.plan(factors, [silo(i) for i in range(silos)]).summed
    values = summed.size * model.layers * len(lora.targets)
    uploads = spec.federation.rounds * math.ceil(spec.federation.client_fraction * silos)
    return int(uploads * values * (parts.channel.bytes_per_value * 1.5 + 8))
