"""Organisations that records name: what is known of them, what each brings, and that records stay where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.corpus.organisations import apportion, brought, organisations
from bench.corpus.pool import Pool
from bench.corpus.task import Record
from bench.spec.run import FederationSpec, PoolSpec
from tests.corpus.test_pool import make_pool, make_records

SIZES = {"Klinik Nord": 320, "Ost": 160, "Süd": 80, "West": 40}


def records_of(sizes: Mapping[str, int]) -> list[Record]:
    """Records in an order that no organisation stands out in."""
    made = make_records(sum(sizes.values()))
    silos = [name for name, size in sizes.items() for _ in range(size)]
    return [replace(record, silo=silos[k * 7 % len(made)]) for k, record in enumerate(made)]


RECORDS = records_of({**SIZES, "Klinik Nord": 319})  # 599 is prime to 7, so that every place is taken once


def divided(records: list[Record], **changes: int) -> Pool:
    """By organisations, with 24 candidates a silo in the mean where nothing else is said."""
    return make_pool(records, **{"candidates": 24, "silos": 4, "partition": "silo", **changes})


# -- what is known ---------------------------------------------------------------------------------------------------


def test_organisations_are_counted_in_the_order_of_their_names() -> None:
    assert list(organisations(RECORDS).items()) == [("Klinik Nord", 319), ("Ost", 160), ("Süd", 80), ("West", 40)]


def test_records_without_a_name_beside_others_are_counted_and_the_first_is_shown() -> None:
    some = [replace(r, silo=None) if k in (5, 9) else r for k, r in enumerate(RECORDS)]
    with pytest.raises(UsageError, match=r"2 of 599 records name no organisation .* 'r5': name one on every record"):
        organisations(some)


@pytest.mark.parametrize("name", ["", " ", "N\x1b[31mord", "a\u202eb", "a\nb", "N" * 201, "\ud800"])
def test_a_name_that_can_t_be_shown_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"name of 1 to 200 printable characters") as refused:
        organisations([replace(RECORDS[0], silo=name), *RECORDS])
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1200
    organisations([replace(RECORDS[0], silo="N" * 200), *RECORDS])


@pytest.mark.parametrize("name", ["klinik nord", " Klinik  Nord", "Klinik\u00a0Nord", "Su\u0308d"])
def test_one_organisation_that_is_spelt_in_two_ways_is_not_divided(name: str) -> None:
    with pytest.raises(UsageError):
        organisations([*RECORDS, replace(RECORDS[0], silo=name)])


def test_one_organisation_is_no_federation() -> None:
    with pytest.raises(UsageError, match=r"same organisation, 'A', .* federation\.partition=iid"):
        organisations([replace(record, silo="A") for record in RECORDS])


# -- what each brings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "sizes", "found"),
    [
        (150, (320, 160, 80, 40), (80, 40, 20, 10)),
        (96, (320, 160, 80, 40), (51, 26, 13, 6)),
        # the published example of Balinski and Young's: votes of five parties for 26 seats
        (26, (9061, 7179, 5259, 3319, 1182), (9, 8, 5, 3, 1)),
        (3, (1, 1), (2, 1)),
        (0, (2, 1), (0, 0)),
    ],
)
def test_shares_by_hand(total: int, sizes: tuple[int, ...], found: tuple[int, ...]) -> None:
    assert tuple(apportion(total, {str(k): size for k, size in enumerate(sizes)}).values()) == found


@given(st.lists(st.integers(1, 500), min_size=1, max_size=8), st.integers(0, 400))
def test_shares_round_a_common_quotient(sizes: list[int], total: int) -> None:
    """Webster's definition: some divisor d exists by which every n / d rounds to the share."""
    found = list(apportion(total, {str(k): size for k, size in enumerate(sizes)}).values())
    assert sum(found) == total
    lowest = max(Fraction(2 * n, 2 * k + 1) for n, k in zip(sizes, found, strict=True))
    highest = min((Fraction(2 * n, 2 * k - 1) for n, k in zip(sizes, found, strict=True) if k), default=lowest)
    assert lowest <= highest


def test_another_number_of_silos_says_what_to_leave_out() -> None:
    with pytest.raises(UsageError, match=r"federation\.silos is 3, .* 4 organisations .* leave federation\.silos out"):
        brought(SIZES, FederationSpec(silos=3), PoolSpec())


def test_an_organisation_that_is_too_small_is_named() -> None:
    with pytest.raises(UsageError, match=r"'West' has 1 of 561 records and would bring 0 of 240 candidates"):
        brought({**SIZES, "West": 1}, FederationSpec(silos=4), PoolSpec())
    assert min(brought(SIZES, FederationSpec(silos=4), PoolSpec(candidates=6)).values()) == 2


# -- pools -----------------------------------------------------------------------------------------------------------


def test_silos_are_the_organisations_in_their_sizes() -> None:
    pool = divided(RECORDS)
    assert pool.names == {"silo-0": "Klinik Nord", "silo-1": "Ost", "silo-2": "Süd", "silo-3": "West"}
    assert [len(held) for held in pool.silos.values()] == [51, 26, 13, 6]
    for name, held in pool.silos.items():
        assert {pool.records[i].silo for i in held} == {pool.names[name]}
    assert [len(ids) for ids in (pool.heldout, pool.validation, pool.population)] == [7, 5, 9]
    everybody = [i for ids in (*pool.silos.values(), pool.heldout, pool.validation, pool.population) for i in ids]
    assert len(set(everybody)) == len(everybody) == 96 + 7 + 5 + 9


def test_an_organisation_is_the_same_silo_for_every_seed_and_order_of_records() -> None:
    shuffled = divided(RECORDS[::-1], seed=5)
    assert shuffled.names == divided(RECORDS).names
    assert set(shuffled.silos["silo-0"]) != set(divided(RECORDS).silos["silo-0"])


def test_no_record_moves_to_another_organisation_with_its_group() -> None:
    """Every third record belongs to one of 70 persons who have been everywhere."""
    records = [replace(r, group=f"p{k % 70}" if k % 3 == 0 else None) for k, r in enumerate(RECORDS)]
    pool = divided(records, candidates=12)
    assert any(len({r.silo for r in records if r.group == f"p{k}"}) > 2 for k in range(70))
    home: dict[int, set[str]] = {}
    for name, held in pool.silos.items():
        for i in held:
            assert pool.records[i].silo == pool.names[name]
            home.setdefault(pool.clusters[i], set()).add(name)
    assert all(len(found) == 1 for found in home.values())
    assert [len(held) for held in pool.silos.values()] == [26, 13, 6, 3]


def test_what_is_left_out_of_silos_has_every_organisation_in_it() -> None:
    pool = divided(RECORDS, population=200)
    counts = Counter(pool.records[i].silo for i in pool.population)
    assert counts["Klinik Nord"] > counts["Ost"] > counts["Süd"] > counts["West"] > 0


def test_an_organisation_with_too_few_usable_records_is_named_before_anything_else() -> None:
    short = {record.id: 10 if record.silo == "Süd" else 30 for record in RECORDS}
    with pytest.raises(
        UsageError, match=r"silo-2 \('Süd'\): 13 records are asked for and 0 are left; lower pool\.cand"
    ):
        divided(RECORDS, lengths=short)  # type: ignore[arg-type]


def test_silos_that_are_no_organisations_have_no_names() -> None:
    assert make_pool(RECORDS).names == {}
