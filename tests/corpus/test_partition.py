"""Who holds what: exact counts, whole clusters, disjoint fields, Dirichlet shares."""

from __future__ import annotations

from collections import Counter, deque
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.corpus.partition import Partition, Unit, partition, take
from bench.spec.run import FederationSpec


def make_units(sizes: list[int], values: list[str] | None = None) -> list[Unit]:
    chosen = values if values is not None else [None] * len(sizes)
    return [
        Unit(i, tuple(f"r{i}.{j}" for j in range(size)), value)
        for i, (size, value) in enumerate(zip(sizes, chosen, strict=True))
    ]


def divide(units: list[Unit], size: int, seed: int = 0, **federation: Any) -> Partition:
    return partition(units, FederationSpec(**federation), size, np.random.default_rng(seed))


def records(units: Any) -> int:
    return sum(len(unit.ids) for unit in units)


def possible(sizes: list[int], count: int) -> bool:
    """Subset sum by trying all subsets."""
    return any(sum(part) == count for n in range(len(sizes) + 1) for part in combinations(sizes, n))


@given(st.lists(st.integers(1, 6), max_size=9), st.integers(0, 25))
def test_take_is_exact_wherever_some_choice_is(sizes: list[int], count: int) -> None:
    units = make_units(sizes)
    order = deque(units)
    taken = take(order, count)
    if not possible(sizes, count):
        assert taken is None
        assert list(order) == units
    else:
        assert taken is not None
        assert records(taken) == count
        assert taken == [unit for unit in units if unit in taken]  # in order
        assert list(order) == [unit for unit in units if unit not in taken]


def test_take_follows_its_rule() -> None:
    """What fits is taken in order; a unit is passed over only where the rest could not fill the gap with it."""
    assert [u.cluster for u in take(deque(make_units([2, 3, 1, 2])), 5) or []] == [0, 1]
    assert [u.cluster for u in take(deque(make_units([3, 4, 1])), 4) or []] == [0, 2]
    assert [u.cluster for u in take(deque(make_units([3, 2, 2])), 4) or []] == [1, 2]
    assert [u.cluster for u in take(deque(make_units([1, 9, 1])), 2) or []] == [0, 2]
    assert [u.cluster for u in take(deque(make_units([4, 2, 3, 2])), 4, largest=2) or []] == [1, 3]
    assert take(deque(make_units([4, 3, 1])), 4, largest=2) is None


sized = st.lists(st.integers(1, 3), min_size=30, max_size=60)


@given(sized, st.integers(1, 4), st.integers(2, 6), st.sampled_from(["iid", "field", "dirichlet"]), st.integers(0, 99))
def test_counts_are_exact_and_clusters_whole(sizes: list[int], silos: int, size: int, how: str, seed: int) -> None:
    values = [f"v{i % 7}" for i in range(len(sizes))]
    units = make_units(sizes + [1] * 28, values + [f"v{i % 7}" for i in range(28)])
    try:
        made = divide(units, size, seed, silos=silos, partition=how)
    except UsageError:
        # seven values of 8 to 12 units of 2 records on average: only a small group of values can be too few
        assert (how == "field" and size * silos > 8) or size < 2
        return
    assert all(len(unit.ids) <= size // 2 for held in made.silos for unit in held)
    assert [records(held) for held in made.silos] == [size] * silos
    everything = [unit for part in (*made.silos, *made.rest) for unit in part]
    assert sorted(unit.cluster for unit in everything) == [unit.cluster for unit in units]
    assert divide(units, size, seed, silos=silos, partition=how) == made


@given(st.lists(st.integers(0, 9), min_size=60, max_size=90), st.integers(2, 4), st.integers(0, 99))
def test_silos_by_field_share_no_value(values: list[int], silos: int, seed: int) -> None:
    units = make_units([1] * len(values), [f"v{value}" for value in values])
    if len(set(values)) < silos:
        with pytest.raises(UsageError, match="needs a different field"):
            divide(units, 5, seed, silos=silos, partition="field")
        return
    try:
        made = divide(units, 5, seed, silos=silos, partition="field")
    except UsageError:
        assert min(Counter(values).values()) < 5  # some silo has small fields only
        return
    held = [{u.value for u in (*taken, *rest)} for taken, rest in zip(made.silos, made.rest, strict=True)]
    assert all(not one & other for one, other in combinations(held, 2))
    assert set().union(*held) == {u.value for u in units}


def test_fields_are_balanced_largest_first() -> None:
    """Sizes 5, 4, 3, 3, 3 on two silos: 5+3, 4+3 and the last to the smaller: 8 and 10 (LPT), by hand."""
    values = [v for v, n in {"a": 5, "b": 4, "c": 3, "d": 3, "e": 3}.items() for _ in range(n)]
    made = divide(make_units([1] * 18, values), 2, silos=2, partition="field")
    totals = [records((*held, *rest)) for held, rest in zip(made.silos, made.rest, strict=True)]
    assert totals == [8, 10]


def test_too_few_values_or_records_are_said_with_their_numbers() -> None:
    units = make_units([1] * 10, ["a"] * 7 + ["b"] * 3)
    with pytest.raises(UsageError, match=r"each of 3 silos, and the records have 2; lower federation\.silos"):
        divide(units, 2, silos=3, partition="field")
    with pytest.raises(UsageError, match=r"silo-1 \(fields b\): 4 records are asked for and 3 are left"):
        divide(units, 4, silos=2, partition="field")
    with pytest.raises(UsageError, match="silo-1: 6 records are asked for and 4 are left"):
        divide(units, 6, silos=2)
    with pytest.raises(UsageError, match=r"in 5 clusters .* \(of up to 2\) that don't add up"):
        divide(make_units([2] * 5), 3, silos=1)


def test_iid_keeps_the_order_it_is_given() -> None:
    made = divide(make_units([1] * 10), 3, silos=2)
    assert [[u.cluster for u in held] for held in made.silos] == [[0, 1, 2], [3, 4, 5]]
    assert [u.cluster for u in made.rest[0]] == [6, 7, 8, 9]


@pytest.mark.parametrize("alpha", [0.05, 1.0, 50.0])
def test_dirichlet_shares_have_the_moments_of_the_distribution(alpha: float) -> None:
    """Two records of one silo: P(first = v) = p_v, and P(same value) = sum p_v (alpha p_v + 1) / (alpha + 1).

    Margins of 5 standard errors.
    """
    p, n = np.array([0.7, 0.2, 0.1]), 2000
    units = make_units([1] * 100, ["a"] * 70 + ["b"] * 20 + ["c"] * 10)
    rng = np.random.default_rng(1)
    spec = FederationSpec(silos=1, partition="dirichlet", dirichlet_alpha=alpha)
    pairs = []
    for _ in range(n):
        (held,) = partition(units, spec, 2, rng).silos
        pairs.append([unit.value for unit in held])
    first = np.array([pairs_[0] == "a" for pairs_ in pairs]).mean()
    assert abs(first - 0.7) < 5 * np.sqrt(0.7 * 0.3 / n)
    same = float((p * (alpha * p + 1)).sum() / (alpha + 1))
    assert abs(np.mean([one == other for one, other in pairs]) - same) < 5 * np.sqrt(same * (1 - same) / n)


def test_dirichlet_takes_from_other_values_when_one_is_used_up() -> None:
    units = make_units([1] * 40, ["a"] * 20 + ["b"] * 20)
    for seed in range(20):
        made = divide(units, 20, seed, silos=2, partition="dirichlet", dirichlet_alpha=1e-6)
        assert sorted(Counter(u.value for u in made.silos[0]).values()) in ([20], [0, 20])
        assert {u.cluster for held in made.silos for u in held} == set(range(40))
