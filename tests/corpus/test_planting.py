"""Planting: whole clusters, fixed shares, secrets that don't repeat, hostile files."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams
from bench.corpus.planting import Planting, plant, queries


def silos(sizes: dict[str, list[int]]) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Silos with clusters of the given sizes; ids ``silo/cluster/k``."""
    held: dict[str, tuple[str, ...]] = {}
    clusters: dict[str, int] = {}
    for silo, counts in sizes.items():
        ids = [f"{silo}/{c}/{k}" for c, count in enumerate(counts) for k in range(count)]
        held[silo] = tuple(ids)
        for i in ids:
            clusters[i] = len(held) * 1000 + int(i.split("/")[1])
    return held, clusters


@given(
    counts=st.lists(st.lists(st.integers(1, 3), min_size=4, max_size=12), min_size=1, max_size=4),
    share=st.sampled_from([0.25, 0.4, 0.5, 0.6]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_draws_whole_clusters_and_the_nearest_number(counts: list[list[int]], share: float, seed: int) -> None:
    held, clusters = silos({f"silo-{i}": c for i, c in enumerate(counts)})
    planting = plant("p", held, clusters, share, SecretStreams("game", seed))
    for silo, sizes in zip(held, counts, strict=True):
        members, others = set(planting.members[silo]), set(planting.nonmembers[silo])
        assert members | others == set(held[silo])
        assert not members & others
        drawn, left = {clusters[i] for i in members}, {clusters[i] for i in others}
        assert not drawn & left
        assert abs(len(drawn) - share * len(sizes)) <= 0.5
        assert all(planting.is_member(i) for i in members)
        assert not any(planting.is_member(i) for i in others)
    with pytest.raises(KeyError):
        planting.is_member("nobody")


@pytest.mark.parametrize(
    ("count", "share", "drawn"), [(10, 0.5, 5), (5, 0.5, 3), (3, 0.5, 2), (10, 0.24, 2), (10, 0.25, 3)]
)
def test_rounding(count: int, share: float, drawn: int) -> None:
    held, clusters = silos({"silo-0": [1] * count})
    assert len(plant("p", held, clusters, share, SecretStreams("game", 1)).members["silo-0"]) == drawn


@pytest.mark.parametrize(
    ("count", "share", "kind"), [(1, 0.5, "non-members"), (4, 0.1, "members"), (4, 0.9, "non-members")]
)
def test_refuses_an_empty_class(count: int, share: float, kind: str) -> None:
    held, clusters = silos({"silo-0": [2] * 6, "silo-1": [1] * count})
    with pytest.raises(UsageError, match=f"silo-1's {count} clusters .* no {kind}: raise pool.candidates"):
        plant("p", held, clusters, share, SecretStreams("game", 1))


def test_refuses_a_cluster_in_two_silos() -> None:
    held = {"silo-0": ("a", "b"), "silo-1": ("c", "d")}
    with pytest.raises(SiloBenchError, match="cluster 7"):
        plant("p", held, {"a": 7, "b": 1, "c": 7, "d": 2}, 0.5, SecretStreams("game", 1))


def test_every_cluster_is_drawn_alike() -> None:
    held, clusters = silos({"silo-0": [1] * 8})
    times = Counter(
        i for seed in range(2000) for i in plant("p", held, clusters, 0.5, SecretStreams("g", seed)).members["silo-0"]
    )
    low, high = binom.ppf([1e-7, 1 - 1e-7], 2000, 0.5)
    assert all(low <= times[i] <= high for i in held["silo-0"])


def test_order_of_silos_and_candidates_does_not_matter_and_secrets_do() -> None:
    held, clusters = silos({"silo-0": [1] * 20, "silo-1": [1] * 20})
    one = plant("p", held, clusters, 0.5, SecretStreams("game", 3))
    turned = {silo: tuple(reversed(ids)) for silo, ids in reversed(held.items())}
    assert plant("p", turned, clusters, 0.5, SecretStreams("game", 3)).to_json() == one.to_json()
    assert plant("p", held, clusters, 0.5, SecretStreams("game", 4)).to_json() != one.to_json()
    fresh = [plant("p", held, clusters, 0.5, SecretStreams("game")).to_json() for _ in range(2)]
    assert fresh[0] != fresh[1]


def test_round_trip() -> None:
    held, clusters = silos({"silo-0": [2] * 5, "silo-1": [1] * 6})
    planting = plant("abc", held, clusters, 0.5, SecretStreams("game", 3))
    again = Planting.from_json(planting.to_json())
    assert again.to_json() == planting.to_json()
    assert dict(again.members) == dict(planting.members)
    assert again.id == "abc"


def _changed(**changes: object) -> str:
    value = {
        "format": "silobench-planting",
        "version": 1,
        "id": "x",
        "members": {"silo-0": ["a"]},
        "nonmembers": {"silo-0": ["b"]},
    }
    return json.dumps(value | changes, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        "NaN",
        _changed(format="other"),
        _changed(version=2),
        _changed(version="1"),
        _changed(version=True),
        _changed(id=""),
        _changed(id="x" * 10_000),
        _changed(members={"silo-0": ["b"]}),
        _changed(members={"silo-0": ["a", "a"]}),
        _changed(members={"silo-1": ["a"]}),
        _changed(members=["a"]),
        _changed(members={"silo-0": [3]}),
        _changed(members={"silo-0": "a"}),
        _changed(extra=1),
        _changed() + " ",
        '{"format":"silobench-planting","format":"silobench-planting"}',
        _changed(version=10**400),
        "9" * 5000,
    ],
)
def test_hostile_text_is_refused_in_a_sentence(text: str) -> None:
    assert Planting.from_json(_changed()).id == "x"
    with pytest.raises(UsageError) as caught:
        Planting.from_json(text)
    assert len(str(caught.value)) < 500


def test_queries_ask_about_the_victims_in_an_order_that_says_nothing() -> None:
    held, clusters = silos({"silo-0": [1] * 40, "silo-1": [1] * 40, "silo-2": [1] * 40})
    planting = plant("p", held, clusters, 0.5, SecretStreams("game", 3))
    asked = queries(planting, ["silo-2", "silo-0"], np.random.default_rng(0))
    assert sorted(asked.candidates) == sorted(held["silo-0"] + held["silo-2"])
    assert all(i in held[s] for i, s in zip(asked.candidates, asked.silos, strict=True))
    assert len(set(asked.opaque)) == 80
    assert not set(asked.opaque) & set(asked.candidates)
    same = queries(planting, ["silo-0", "silo-2"], np.random.default_rng(0))
    assert same.candidates == asked.candidates
    # the mean place of members among 80 is 39.5, with a deviation of sqrt(81 / 12 / 40 x 40) / sqrt(40) or so
    places = [k for k, i in enumerate(asked.candidates) if planting.is_member(i)]
    assert abs(np.mean(places) - 39.5) < 5 * np.sqrt(81 * 40 / (12 * 40))
