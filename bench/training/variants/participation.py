"""A run for the question whether an organisation took part: two organisations of two kinds for every silo's place.

A fair coin decides which of the two fills the place. Nothing else about the federation is secret, and the game asks
about texts of both organisations that nobody trained on. Organisations are divided by field, or by label where records
have no field, whatever the spec's partition is: of one kind they could not be told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from bench.core.errors import UsageError
from bench.core.parties import silo
from bench.core.streams import SecretStreams
from bench.corpus.planting import Planting, plant
from bench.corpus.pool import build_pool
from bench.plugins.find import Plugins
from bench.spec.config import Config as Base
from bench.spec.config import digest
from bench.spec.run import FederationSpec, RunSpec
from bench.store.store import Store
from bench.training.materials import Materials
from bench.training.variant import Variant


class Config(Base):
    """No options."""


class Participation(Variant):
    """Draws who takes part."""

    def materials(self, materials: Materials, spec: RunSpec, seed: int) -> Materials:
        """With twice as many organisations as silos in the pool. Raises UsageError where records have neither field
        nor label, or are too few."""
        corpus = materials.corpus
        federation = spec.federation.model_copy(update={"silos": 2 * spec.federation.silos, **_divided(materials)})
        pool = build_pool(
            corpus.records,
            corpus.lengths(),
            spec.pool,
            FederationSpec(**dict(federation)),
            materials.streams,
            corpus.seen,
        )
        return replace(materials, pool=pool)

    def plantings(
        self, ordinary: Callable[[], Planting], materials: Materials, spec: RunSpec, seed: int, store: Store
    ) -> tuple[Planting, Planting]:
        """(what each place trains on, the fresh texts of who took part and of who did not, by place)."""
        planting_id = digest({"participation": spec.planting_id(seed)})

        def draw() -> str:
            secret = SecretStreams(f"game/{seed}/participation", spec.secret_seed)
            pool = materials.pool
            coins = secret.generator("coins").integers(0, 2, spec.federation.silos)
            shares = plant(planting_id, pool.silos, pool.clusters, spec.pool.share, secret)
            chosen = {silo(j): silo(2 * j + int(coin)) for j, coin in enumerate(coins)}
            absent = {silo(j): silo(2 * j + 1 - int(coin)) for j, coin in enumerate(coins)}
            return _filled(planting_id, shares, chosen, absent).to_json()

        both = Planting.from_json(store.draw_planting(planting_id, draw))
        return _split(both)


def _divided(materials: Materials) -> dict[str, str]:
    records = materials.corpus.records
    if any(record.field is not None for record in records):
        return {"partition": "field"}
    if any(record.label is not None for record in records):
        return {"partition": "dirichlet"}
    raise UsageError(
        "The participation game needs organisations of different kinds, and this task's records have neither a field "
        "nor a label to divide them by."
    )


#: marks the places of fresh texts in the stored planting, beside those of the silos' own records
_FRESH = "fresh/"


def _filled(planting_id: str, shares: Planting, chosen: Mapping[str, str], absent: Mapping[str, str]) -> Planting:
    """One planting that holds both: what a place trains on, and fresh texts of both organisations."""
    sides = []
    for who in (chosen, absent):
        own = {place: shares.members[name] for place, name in who.items()}
        sides.append(MappingProxyType(own | {_FRESH + place: shares.nonmembers[name] for place, name in who.items()}))
    return Planting(planting_id, *sides)


def _split(both: Planting) -> tuple[Planting, Planting]:
    sides = both.members, both.nonmembers
    trained = [{p: ids for p, ids in side.items() if not p.startswith(_FRESH)} for side in sides]
    fresh = [{p.removeprefix(_FRESH): ids for p, ids in side.items() if p.startswith(_FRESH)} for side in sides]
    return Planting(both.id, *map(MappingProxyType, trained)), Planting(both.id, *map(MappingProxyType, fresh))


def build(config: Config, plugins: Plugins) -> Participation:
    return Participation()
