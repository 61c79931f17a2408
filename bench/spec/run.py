"""The run specification: everything that decides a result, frozen and canonical.

Identity: ``run`` hashes all that training depends on, with the seed; a *row* is the spec, the attack and the adversary
without the seed; a *cell* is a row and a seed, and its id names its result. Devices, workers and verbosity are no part
of any of them, and a field that came later is left out where it has its default (``bench.spec.config.later``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.spec.config import Config, digest, later

SPEC_SCHEMA = 1
ADVERSARIES = ("user", "outsider", "silo", "server", "server+silo", "all-but-one")


class PluginSpec(Config):
    """A plug-in's name and its full configuration, defaults filled in."""

    name: str
    config: dict[str, Any] = Field(default_factory=dict)


class ModelSpec(Config):
    """The base model. ``name``: ``smollm2-135m``, ``tiny``, ``hf:org/name`` or a local directory. ``bos``: what stands
    in front of every record: what the model's tokenizer puts there by itself, its BOS in any case, or nothing."""

    name: str = "smollm2-135m"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantize: Literal["none", "8bit", "4bit"] = "none"
    bos: Literal["auto", "always", "never"] = later("auto")


class LoraSpec(Config):
    """The adapter: rank, scale numerator, and the suffixes of the projections it sits on."""

    rank: int = Field(8, ge=1, le=1024)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = ("q_proj", "v_proj")


class LocalSpec(Config):
    """Training at a silo in one round: ``steps`` where given, else ``epochs`` over its records."""

    epochs: int = Field(2, ge=1, le=1000)
    steps: int | None = Field(None, ge=1, le=100_000)
    batch: int = Field(8, ge=1, le=4096)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(2e-3, gt=0, le=100)
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class Dropout(Config):
    """Silo ``silo`` is away from stage ``stage`` of round ``round`` until the end of that round."""

    round: int = Field(ge=0)
    silo: int = Field(ge=0)
    stage: str = "train"


class FederationSpec(Config):
    """Who trains, how often, on which share, and what is published. ``partition``: the command line takes ``auto``
    too, its default: ``silo``, with as many silos as the records name organisations, where they do, else ``iid``."""

    silos: int = Field(3, ge=1, le=10_000)
    rounds: int = Field(3, ge=1, le=10_000)
    partition: Literal["iid", "field", "dirichlet", "silo"] = "iid"
    dirichlet_alpha: float = Field(0.5, gt=0)
    client_fraction: float = Field(1.0, gt=0, le=1)
    dropouts: tuple[Dropout, ...] = ()
    lora: LoraSpec = LoraSpec()
    local: LocalSpec = LocalSpec()
    release: Literal["none", "final", "every-round"] = "final"
    release_precision: Literal["float64", "float32", "bfloat16", "float16"] = "float32"


class PoolSpec(Config):
    """How many records of each kind, counted in records; all kinds are disjoint by cluster.

    ``candidates`` is per silo, in the mean where silos are organisations of different sizes; ``share`` of every silo's
    candidate clusters is trained on (the members). Tokens are a record's own: what stands in front of every record
    (``model.bos``) counts neither here nor there.
    """

    candidates: int = Field(60, ge=2)
    share: float = Field(0.5, gt=0, lt=1)
    validation: int = Field(30, ge=0)
    heldout: int = Field(60, ge=1)
    population: int = Field(150, ge=0)
    min_tokens: int = Field(24, ge=2)
    max_tokens: int = Field(48, ge=4, le=8192)


class UtilitySpec(Config):
    """How usefulness is measured. ``labels``: what a label's score is, the log-probability of all its tokens or their
    mean (which favours no short label)."""

    labels: Literal["sum", "mean"] = "sum"


class RunSpec(Config):
    """All that one training depends on, but the seed.

    ``shadow``: 0 is the run that attacks are scored on; k the k-th federation of the same kind under another planting,
    and with other public randomness in its silos' training. Each may be a target in turn. ``variant``: what makes it
    no ordinary run (``bench.training.variant``).
    """

    schema_version: Literal[1] = SPEC_SCHEMA  # type: ignore[assignment]
    task: PluginSpec
    model: ModelSpec = ModelSpec()
    pool: PoolSpec = PoolSpec()
    federation: FederationSpec = FederationSpec()
    utility: UtilitySpec = later(UtilitySpec())
    defense: tuple[PluginSpec, ...]
    behaviour: Literal["passive"] = "passive"
    secret_seed: int | None = Field(None, ge=0)
    shadow: int = later(0, ge=0, le=100_000)
    variant: PluginSpec | None = later(None)

    @model_validator(mode="after")
    def _dropouts_name_silos_and_rounds(self) -> RunSpec:
        for away in self.federation.dropouts:
            if away.silo >= self.federation.silos or away.round >= self.federation.rounds:
                raise ValueError(
                    f"federation.dropouts names silo {away.silo} in round {away.round}, but there are "
                    f"{self.federation.silos} silos and {self.federation.rounds} rounds (both counted from 0)"
                )
        return self

    @model_validator(mode="after")
    def _who_takes_part_is_secret(self) -> RunSpec:
        if self.federation.partition == "silo" and self.variant is not None and self.variant.name == "participation":
            raise ValueError(
                "who takes part is public where silos are the organisations that records name, so the participation "
                "game has nothing to ask: leave its attack out, or set federation.partition=iid"
            )
        return self

    @property
    def defense_name(self) -> str:
        return "+".join(part.name for part in self.defense)

    @property
    def active(self) -> bool:
        """Whether parties of the coalition deviate from the protocol (``bench.training.variants.active``)."""
        return self.variant is not None and self.variant.name == "active"

    def run_id(self, seed: int) -> str:
        return digest({"run": self.model_dump(mode="json"), "seed": seed})

    def planting_id(self, seed: int) -> str:
        """Identity of the game's secret: task, model's token limits, pool, partition and seed, not the defense."""
        f = self.federation
        shadow = {"shadow": self.shadow} if self.shadow else {}
        return digest(
            {
                **shadow,
                "task": self.task.model_dump(mode="json"),
                "pool": self.pool.model_dump(mode="json"),
                "model": self.model.name,
                "partition": [f.silos, f.partition, f.dirichlet_alpha],
                "secret_seed": self.secret_seed,
                "seed": seed,
            }
        )


class Row(Config):
    """A training's spec, an attack and an adversary: what a line of a board is about, over all seeds."""

    run: RunSpec
    attack: PluginSpec
    adversary: Literal["user", "outsider", "silo", "server", "server+silo", "all-but-one"]

    @property
    def row_id(self) -> str:
        # the key is the word that this was called by when the first ids were made
        return digest({"cell": self.model_dump(mode="json")})


@dataclass(frozen=True)
class Cell:
    """A row and a seed: what has one result."""

    row: Row
    seed: int

    @property
    def cell_id(self) -> str:
        """The id of its result."""
        return digest(
            {
                "run": self.row.run.run_id(self.seed),
                "attack": self.row.attack.model_dump(mode="json"),
                "adversary": self.row.adversary,
                "game": "planted",
            }
        )
