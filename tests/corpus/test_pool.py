"""The pool: exact counts, disjoint by cluster, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.core.streams import Streams
from bench.corpus.pool import Pool, build_pool
from bench.corpus.task import Record
from bench.spec.run import FederationSpec, PoolSpec

COUNTS = {"candidates": 6, "heldout": 7, "validation": 5, "population": 9, "min_tokens": 24}


def make_records(
    count: int, seed: int = 0, fields: int = 8, persons: int | None = None, label: bool = True
) -> list[Record]:
    """Texts of random words; where ``persons`` is given, records belong to that many groups."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(500)]
    return [
        Record(
            id=f"r{i}",
            text=" ".join(rng.choice(words, 20)),
            label=("yes", "no")[i % 2] if label else None,
            field=f"f{rng.integers(fields)}" if fields else None,
            group=f"p{rng.integers(persons)}" if persons else None,
        )
        for i in range(count)
    ]


def make_pool(records: list[Record], seed: int = 0, lengths: dict[str, int] | None = None, **changes: Any) -> Pool:
    counts = {key: changes.pop(key, value) for key, value in COUNTS.items()}
    known = lengths if lengths is not None else {record.id: 30 for record in records}
    return build_pool(records, known, PoolSpec(**counts), FederationSpec(**changes), Streams(seed))


def parts(pool: Pool) -> dict[str, tuple[str, ...]]:
    return {**pool.silos, "validation": pool.validation, "heldout": pool.heldout, "population": pool.population}


@settings(max_examples=40)
@given(
    st.integers(0, 50), st.sampled_from(["iid", "field", "dirichlet"]), st.sampled_from([None, 60]), st.integers(1, 4)
)
def test_counts_are_exact_and_no_cluster_has_two_parts(seed: int, how: str, persons: int | None, silos: int) -> None:
    records = make_records(120, seed, persons=persons)
    try:
        pool = make_pool(records, seed, silos=silos, partition=how)
    except UsageError:
        assert how == "field"  # a silo's fields may hold too few; nothing else can fail here
        return
    held = parts(pool)
    assert list(pool.silos) == [f"silo-{i}" for i in range(silos)]
    assert [len(ids) for ids in pool.silos.values()] == [6] * silos
    assert (len(pool.heldout), len(pool.validation), len(pool.population)) == (7, 5, 9)
    clusters = [{pool.clusters[i] for i in ids} for ids in held.values()]
    persons_ = [{p for i in ids if (p := pool.records[i].group)} for ids in held.values()]
    assert all(not one & other for one, other in combinations(clusters, 2))
    assert all(not one & other for one, other in combinations(persons_, 2))
    used = [i for ids in held.values() for i in ids]
    assert len(used) == len(set(used))
    assert set(used) == set(pool.records) == set(pool.clusters)


def test_near_duplicates_stay_together() -> None:
    """Each text twice with one word changed: a split inside a pair would let the copy tell on the original."""
    records = []
    for record in make_records(60):
        copy = " ".join([*record.text.split()[:-1], "changed"])
        records += [record, Record(id=f"{record.id}-copy", text=copy, field=record.field)]
    pool = make_pool(records, candidates=10, heldout=10, validation=4, population=8)
    home = {i: name for name, ids in parts(pool).items() for i in ids}
    pairs = [(i, f"{i}-copy") for i in home if f"{i}-copy" in home]
    assert len(pairs) == len(home) / 2
    assert all(home[i] == home[copy] and pool.clusters[i] == pool.clusters[copy] for i, copy in pairs)


def test_the_seed_decides() -> None:
    records = make_records(200)
    assert make_pool(records, 1) == make_pool(records, 1)
    assert make_pool(records, 1).silos != make_pool(records, 2).silos


def test_short_records_are_left_out() -> None:
    records = make_records(100)
    lengths = {record.id: 23 if i % 2 else 24 for i, record in enumerate(records)}
    pool = make_pool(records, lengths=lengths, candidates=6)
    assert all(lengths[i] == 24 for i in pool.records)


def test_silos_by_field_share_none_and_the_rest_comes_from_all_of_them() -> None:
    """Held-out and population must be of the candidates' kind: each silo's fields give as many, but for one."""
    pool = make_pool(make_records(300, fields=12), partition="field", heldout=30, population=60)
    fields = [{pool.records[i].field for i in ids} for ids in pool.silos.values()]
    assert all(not one & other for one, other in combinations(fields, 2))
    home = silo_of_field(300, 12)
    for ids in (pool.heldout, pool.population, pool.validation):
        counts = Counter(home[pool.records[i].field or ""] for i in ids)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == 3


def silo_of_field(count: int, fields: int) -> dict[str, int]:
    """The field groups, found from a pool so large that every field has a candidate."""
    pool = make_pool(
        make_records(count, fields=fields), partition="field", candidates=80, heldout=1, validation=0, population=0
    )
    return {pool.records[i].field or "": s for s, ids in enumerate(pool.silos.values()) for i in ids}


def test_dirichlet_goes_by_label_where_there_is_no_field() -> None:
    pool = make_pool(make_records(200, fields=0), partition="dirichlet", dirichlet_alpha=1e-3, candidates=20)
    labels = [Counter(pool.records[i].label for i in ids) for ids in pool.silos.values()]
    assert all(max(count.values()) >= 19 for count in labels)


@pytest.mark.parametrize(
    ("records", "changes", "says"),
    [
        (make_records(38), {}, r"has 38 usable records .* and 39 are asked for: 3 silos x 6 candidates \+ 7 held-out"),
        (make_records(100, fields=0), {"partition": "field"}, r"needs records with a field.*use partition=iid"),
        (make_records(99, fields=0, label=False), {"partition": "dirichlet"}, r"a field or a label"),
        (make_records(100, fields=2), {"partition": "field"}, r"each of 3 silos, and the records have 2"),
        (make_records(100, persons=1), {}, r"silo-0: 6 records .* the 100 that are left come in 1 clusters"),
        (make_records(40, persons=1), {"candidates": 2, "population": 22}, r"silo-0: 2 records .* don't add up"),
    ],
)
def test_too_few_is_said_with_the_numbers(records: list[Record], changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_pool(records, **changes)


def test_every_silo_has_two_persons_at_least() -> None:
    """Persons of six records never fill a silo of six, and go to the other parts."""
    large = [Record(id=f"l{i}", text=f"word{i} other{i}", group=f"p{i // 6}") for i in range(60)]
    small = [Record(id=f"s{i}", text=f"thing{i} more{i}") for i in range(30)]
    pool = make_pool(large + small, heldout=6, validation=6, population=12)
    assert all(i.startswith("s") for ids in pool.silos.values() for i in ids)
    with pytest.raises(UsageError, match="a silo takes none of more than half its records"):
        make_pool(large, heldout=6, validation=6, population=6)


def test_records_without_a_field_are_left_out_where_fields_divide() -> None:
    records = make_records(150)
    bare = [Record(id=f"bare{i}", text=r.text[::-1]) for i, r in enumerate(make_records(50, 9))]
    assert not any(i.startswith("bare") for i in make_pool(records + bare, partition="field").records)
    assert any(i.startswith("bare") for i in make_pool(records + bare, population=120).records)
