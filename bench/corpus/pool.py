"""Which records play which part: candidates of each silo, validation, held-out, population; disjoint by cluster."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from bench.core.errors import UsageError
from bench.core.parties import silo
from bench.core.streams import Streams
from bench.corpus.clusters import cluster
from bench.corpus.organisations import brought, organisations
from bench.corpus.partition import Unit, by_organisation, partition, take, too_few
from bench.corpus.task import Record
from bench.spec.run import FederationSpec, PoolSpec


@dataclass(frozen=True)
class Pool:
    """The records in use. ``silos``: the candidates of every silo, of which a game's planting trains on some; all
    tuples hold ids in random order. ``clusters``: the cluster of every record in use; no cluster has two parts.
    ``names``: of the organisations that silos are, where records name them; else empty.
    """

    records: Mapping[str, Record]
    clusters: Mapping[str, int]
    silos: Mapping[str, tuple[str, ...]]
    validation: tuple[str, ...]
    heldout: tuple[str, ...]
    population: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)


def build_pool(
    records: Sequence[Record],
    lengths: Mapping[str, int],
    spec: PoolSpec,
    federation: FederationSpec,
    streams: Streams,
    seen: Mapping[str, str] | None = None,
) -> Pool:
    """Divide ``records`` (``lengths``: their token counts, by id) into the parts that ``spec`` asks for. ``seen``: by
    id the text of each as the model sees it, on which near-duplicates are judged; None: prompt and text whole.

    Records under ``spec.min_tokens`` are left out, and, where silos are divided by a field that only some records have,
    those without. Clusters are shuffled (stream ``pool``); the silos get theirs first (what else the partition draws
    comes from stream ``partition``), then ``heldout``, ``validation`` and ``population`` get theirs from what is left:
    from the same values as the candidates, by turns from the silos' own leftovers under ``field``, and in the shuffled
    order otherwise. All counts are exact; ``bench.corpus.partition.take`` says how clusters of several records are
    made to add up. Of a cluster with records of several organisations only those of the organisation that has most of
    them are used. Raises UsageError naming the numbers where records are too few.
    """
    named = federation.partition == "silo"
    sizes = brought(organisations(records), federation, spec) if named else {}
    usable = [record for record in records if lengths[record.id] >= spec.min_tokens]
    attribute = _attribute(usable, federation.partition)
    if attribute is not None:
        usable = [record for record in usable if getattr(record, attribute) is not None]
    _require_enough(len(records), len(usable), spec, federation)
    texts = [f"{record.prompt}{record.text}" if seen is None else seen[record.id] for record in usable]
    numbers = cluster(texts, [record.group for record in usable])
    units = _units(usable, numbers, attribute)
    order = [units[i] for i in streams.generator("pool").permutation(len(units))]
    divided = streams.generator("partition")
    parts = by_organisation(order, sizes) if named else partition(order, federation, spec.candidates, divided)
    left = deque(unit for turn in zip_longest(*parts.rest) for unit in turn if unit is not None)
    public = {name: _public(left, name, getattr(spec, name)) for name in ("heldout", "validation", "population")}
    silos = {silo(i): _ids(held) for i, held in enumerate(parts.silos)}
    used = {i for ids in (*silos.values(), *public.values()) for i in ids}
    by_id = {record.id: (record, number) for record, number in zip(usable, numbers, strict=True) if record.id in used}
    return Pool(
        records={i: record for i, (record, _) in by_id.items()},
        clusters={i: number for i, (_, number) in by_id.items()},
        silos=silos,
        names={silo(i): name for i, name in enumerate(sizes)},
        **public,
    )


def _attribute(records: Sequence[Record], how: str) -> str | None:
    """The attribute that the partition divides by: None for iid, else ``silo``, ``field``, or ``label`` (dirichlet)."""
    if how in ("iid", "silo"):
        return None if how == "iid" else how
    if any(record.field is not None for record in records):
        return "field"
    if how == "dirichlet" and any(record.label is not None for record in records):
        return "label"
    wanted = "a field" if how == "field" else "a field or a label"
    raise UsageError(
        f"federation.partition={how} needs records with {wanted}, and this task's have none; use partition=iid."
    )


def _require_enough(total: int, usable: int, spec: PoolSpec, federation: FederationSpec) -> None:
    asked = federation.silos * spec.candidates + spec.heldout + spec.validation + spec.population
    if usable < asked:
        fewer = "" if federation.partition == "silo" else " or federation.silos"
        raise UsageError(
            f"The task has {usable} usable records (of {total}; the others are shorter than pool.min_tokens="
            f"{spec.min_tokens} or lack what the silos are divided by) and {asked} are asked for: "
            f"{federation.silos} silos x {spec.candidates} candidates + {spec.heldout} held-out + "
            f"{spec.validation} validation + {spec.population} population; "
            f"lower pool.population, pool.candidates{fewer}."
        )


def _units(records: Sequence[Record], numbers: Sequence[int], attribute: str | None) -> list[Unit]:
    members: dict[int, list[Record]] = {}
    for record, number in zip(records, numbers, strict=True):
        members.setdefault(number, []).append(record)
    return [_unit(number, found, attribute) for number, found in members.items()]


def _unit(number: int, found: Sequence[Record], attribute: str | None) -> Unit:
    value = _common(found, attribute)
    # a record never moves to another organisation, and a cluster has one part
    own = [record for record in found if attribute != "silo" or record.silo == value]
    return Unit(number, tuple(record.id for record in own), value)


def _common(records: Sequence[Record], attribute: str | None) -> str | None:
    """The value most of a cluster's records have; of several, the first in alphabetical order."""
    if attribute is None:
        return None
    counts = Counter(str(getattr(record, attribute)) for record in records)
    return min(counts, key=lambda value: (-counts[value], value))


def _public(left: deque[Unit], name: str, count: int) -> tuple[str, ...]:
    units = take(left, count)
    if units is None:
        raise too_few(f"pool.{name}", left, count, f"lower pool.{name}, or pool.candidates")
    return _ids(units)


def _ids(units: Iterable[Unit]) -> tuple[str, ...]:
    return tuple(i for unit in units for i in unit.ids)
