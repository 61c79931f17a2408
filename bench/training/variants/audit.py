"""A run with planted canaries: records made to be found, each trained on by the toss of its own fair coin.

The game asks about the canaries, so their coins are all the secret there is. What silos train on besides, and all else,
is that of the ordinary run of the same spec. No utility figure is taken from such a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from pydantic import Field

from bench.core.errors import UsageError
from bench.core.parties import silo
from bench.core.records import joined
from bench.core.streams import SecretStreams
from bench.corpus.clusters import cluster
from bench.corpus.planting import Planting
from bench.corpus.task import Record
from bench.plugins.find import Plugins
from bench.spec.config import Config as Base
from bench.spec.config import digest
from bench.spec.run import RunSpec
from bench.store.store import Store
from bench.training.materials import Materials, seen_texts
from bench.training.variant import Variant
from bench.training.variants.canaries import Kind


class Config(Base):
    """``canaries``: in all silos together. ``repeat``: how often one that is planted stands among its silo's records;
    more than once it is evidence about groups of that size, and about single records none."""

    canaries: int = Field(60, ge=2, le=1_000_000)
    kind: Kind = "random-tokens"
    repeat: int = Field(1, ge=1, le=100)


class Audit(Variant):
    """Plants canaries."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def materials(self, materials: Materials, spec: RunSpec, seed: int) -> Materials:
        """With the canaries among the records, each a cluster of its own. Raises UsageError where this kind can't be
        made from the task."""
        made = self._canaries(materials, spec)
        taken = materials.corpus.rows.keys() & {record.id for record in made}
        if taken:
            raise UsageError(f"The task has a record with the id {sorted(taken)[0]!r}, which canaries need.")
        task = materials.corpus.task
        tokens = materials.model.encode(made, spec.pool.max_tokens, task.answer_prefix)
        corpus = replace(
            materials.corpus,
            records=(*materials.corpus.records, *made),
            tokens=joined([materials.corpus.tokens, tokens]),
            seen={**materials.corpus.seen, **seen_texts(materials.model, made, tokens)},
        )
        pool, first = materials.pool, max(materials.pool.clusters.values(), default=-1) + 1
        numbers = {record.id: first + n for n, record in enumerate(made)}
        records = {**pool.records, **{record.id: record for record in made}}
        return replace(
            materials, corpus=corpus, pool=replace(pool, records=records, clusters={**pool.clusters, **numbers})
        )

    def plantings(
        self, ordinary: Callable[[], Planting], materials: Materials, spec: RunSpec, seed: int, store: Store
    ) -> tuple[Planting, Planting]:
        """Every canary's coin is tossed once per planting and kind of audit, whatever the defense."""
        drawn = ordinary()
        asked_id = digest({"audit": self.config.model_dump(mode="json"), "planting": drawn.id})
        homes = self.homes(spec)

        def toss() -> str:
            coins = SecretStreams(f"game/{seed}/audit", spec.secret_seed).generator("coins").integers(0, 2, len(homes))
            sides: tuple[dict[str, list[str]], ...] = tuple({name: [] for name in drawn.members} for _ in range(2))
            for (canary, home), coin in zip(homes, coins, strict=True):
                sides[int(coin)][home].append(canary)
            out, inside = ({name: tuple(sorted(ids)) for name, ids in side.items()} for side in sides)
            return Planting(asked_id, MappingProxyType(inside), MappingProxyType(out)).to_json()

        asked = Planting.from_json(store.draw_planting(asked_id, toss))
        trained = {name: (*ids, *asked.members[name] * self.config.repeat) for name, ids in drawn.members.items()}
        return replace(drawn, members=MappingProxyType(trained)), asked

    def nominal_size(self, nominal: int, spec: RunSpec) -> int:
        """With the canaries that a silo trains on in expectation, rounded up."""
        return nominal + math.ceil(self.config.canaries / spec.federation.silos / 2) * self.config.repeat

    def homes(self, spec: RunSpec) -> list[tuple[str, str]]:
        """(canary, silo that holds it if anyone does), in turns."""
        silos = spec.federation.silos
        return [(f"canary-{k}", silo(k % silos)) for k in range(self.config.canaries)]

    def _canaries(self, materials: Materials, spec: RunSpec) -> list[Record]:
        rng = materials.streams.generator(f"canaries/{self.config.kind}")
        makers = {"random-tokens": _random_tokens, "out-of-distribution": _foreign, "mislabelled": _mislabelled}
        return makers[self.config.kind](materials, spec, self.config.canaries, rng)


def _random_tokens(materials: Materials, spec: RunSpec, count: int, rng: np.random.Generator) -> list[Record]:
    """Tokens drawn uniformly from those that stand in the population, as long as its records are."""
    population = materials.tokens(materials.pool.population or tuple(materials.pool.records))
    known = np.unique(np.concatenate(population.own()))
    length = int(np.median(population.lengths)) - population.lead
    drawn = rng.choice(known, size=(count, length))
    return _labelled(materials, [materials.model.decode(row.tolist()) for row in drawn], rng)


def _foreign(materials: Materials, spec: RunSpec, count: int, rng: np.random.Generator) -> list[Record]:
    """Hexadecimal words, which no record of any task looks like."""
    words = max(4, spec.pool.max_tokens // 6)
    texts = [" ".join(bytes(rng.integers(0, 256, 3, dtype=np.uint8)).hex() for _ in range(words)) for _ in range(count)]
    return _labelled(materials, texts, rng)


def _mislabelled(materials: Materials, spec: RunSpec, count: int, rng: np.random.Generator) -> list[Record]:
    """Records of the task that nobody else uses, with another label than their own."""
    task, pool = materials.corpus.task, materials.pool
    if len(task.labels) < 2:
        raise UsageError(
            f"The task '{spec.task.name}' has no labels, so no canary can be mislabelled: take another kind."
        )
    usable = [r for r in materials.corpus.records if r.label is not None and materials.corpus.lengths()[r.id] > 2]
    numbers = cluster([materials.corpus.seen[r.id] for r in usable], [r.group for r in usable])
    held = {number for record, number in zip(usable, numbers, strict=True) if record.id in pool.records}
    free: dict[int, Record] = {}
    for record, number in zip(usable, numbers, strict=True):
        if number not in held:
            free.setdefault(number, record)
    if len(free) < count:
        raise UsageError(
            f"{count} mislabelled canaries are asked for and the pool leaves {len(free)} records unused: "
            "lower audit.canaries or pool.population."
        )
    chosen = [list(free.values())[k] for k in rng.permutation(len(free))[:count]]
    made = []
    for number, record in enumerate(chosen):
        wrong = str(rng.choice([label for label in task.labels if label != record.label]))
        answer = task.answer_prefix + task.label_text(wrong)
        made.append(replace(record, id=f"canary-{number}", answer=answer, label=wrong, group=None, secrets=()))
    return made


def _labelled(materials: Materials, texts: Sequence[str], rng: np.random.Generator) -> list[Record]:
    """Texts as records, each with a label drawn at random where the task has any."""
    task = materials.corpus.task
    made = []
    for number, text in enumerate(texts):
        label = str(rng.choice(list(task.labels))) if task.labels else None
        answer = "" if label is None else task.answer_prefix + task.label_text(label)
        made.append(Record(f"canary-{number}", text, answer=answer, label=label))
    return made


def build(config: Config, plugins: Plugins) -> Audit:
    return Audit(config)
