"""Which candidates a defense's records part makes the same: what was trained on can't be told from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.core.errors import UsageError
from bench.corpus.clusters import UnionFind
from bench.corpus.planting import Planting
from bench.corpus.task import Record
from bench.defense.parts import RecordsPart
from bench.training.materials import Materials

Row = tuple[int, ...]


def separated(
    materials: Materials, planting: Planting, parts: Sequence[RecordsPart], max_tokens: int
) -> tuple[Materials, Planting]:
    """Materials and planting in which no candidate that was not trained on is, to the model, one that was.

    A records part (a scrubber, say) can make two records one row of tokens. Candidates that it makes the same are one
    cluster; non-members that are, or become, a row that somebody trained on are not asked about (``undecided`` counts
    them). Raises UsageError where that leaves a silo without non-members.
    """
    if not parts:
        return materials, planting
    pool = materials.pool
    trained = [one for held in planting.members.values() for one in _applied([pool.records[i] for i in held], parts)]
    known = set(_rows(materials, trained, max_tokens))
    ids = [i for side in (planting.members, planting.nonmembers) for held in side.values() for i in held]
    alone = [one for i in ids for one in _applied([pool.records[i]], parts)[:1] or [pool.records[i]]]
    becomes = dict(zip(ids, _rows(materials, alone, max_tokens), strict=True))
    is_now = dict(zip(ids, _rows(materials, [pool.records[i] for i in ids], max_tokens), strict=True))
    kept = {
        silo: tuple(i for i in held if becomes[i] not in known and is_now[i] not in known)
        for silo, held in planting.nonmembers.items()
    }
    for silo, held in kept.items():
        if planting.nonmembers[silo] and not held:
            raise UsageError(
                f"The defense's records part makes every non-member of {silo} the same as a record that was trained "
                "on, so nothing can be asked about it: raise pool.max_tokens, or leave the part out."
            )
    clusters = _joined(pool.clusters, becomes)
    undecided = sum(map(len, planting.nonmembers.values())) - sum(map(len, kept.values()))
    changed = replace(materials, pool=replace(pool, clusters=clusters), undecided=undecided)
    return changed, planting if not undecided else replace(planting, nonmembers=kept)


def _applied(records: Sequence[Record], parts: Sequence[RecordsPart]) -> list[Record]:
    found = list(records)
    for part in parts:
        found = list(part.apply(found))
    return found


def _rows(materials: Materials, records: Sequence[Record], max_tokens: int) -> list[Row]:
    """What the model sees of each record, without its answer."""
    plain = [replace(record, answer="") for record in records]
    return [tuple(own.tolist()) for own in materials.model.encode(plain, max_tokens).own()]


def _joined(clusters: Mapping[str, int], becomes: Mapping[str, Row]) -> dict[str, int]:
    """Clusters of which those with equal rows are one, under the smallest of their numbers."""
    union = UnionFind(max(clusters.values(), default=-1) + 1)
    first: dict[Row, str] = {}
    for i, row in becomes.items():
        union.join(clusters[first.setdefault(row, i)], clusters[i])
    return {i: union.find(number) for i, number in clusters.items()}
