"""Named streams: the same name gives the same numbers, different names don't, secrets follow no seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.streams import SecretStreams, Streams

NAMES = st.text(min_size=1, max_size=12)


@given(st.integers(0, 2**40), NAMES, st.lists(st.integers(0, 1000), max_size=3))
def test_a_stream_is_a_function_of_seed_name_and_indices(seed: int, name: str, indices: list[int]) -> None:
    first = Streams(seed).generator(name, *indices).integers(0, 2**62, 4)
    again = Streams(seed).generator(name, *indices).integers(0, 2**62, 4)
    np.testing.assert_array_equal(first, again)
    others = [
        Streams(seed + 1).generator(name, *indices),
        Streams(seed).generator(name + "x", *indices),
        Streams(seed).generator(name, *indices, 7),
    ]
    for other in others:
        assert not np.array_equal(first, other.integers(0, 2**62, 4))


def test_silo_and_round_do_not_collide() -> None:
    streams = Streams(0)
    draws = {streams.generator("silo", i, r).integers(0, 2**62).item() for i in range(20) for r in range(20)}
    assert len(draws) == 400


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        Streams(-1)


def test_secrets_of_the_operating_system_never_repeat() -> None:
    owner = SecretStreams("silo-0")
    assert not owner.simulated
    assert len({owner.token("key", 0) for _ in range(50)}) == 50
    draws = {owner.generator("noise", 0).integers(0, 2**62).item() for _ in range(50)}
    assert len(draws) == 50


def test_a_secret_seed_makes_them_repeatable_and_says_so() -> None:
    one, two = SecretStreams("silo-0", 5), SecretStreams("silo-0", 5)
    assert one.simulated
    assert one.token("key", 1) == two.token("key", 1)
    different = {
        SecretStreams("silo-1", 5).token("key", 1),
        SecretStreams("silo-0", 6).token("key", 1),
        one.token("key", 2),
        one.token("other", 1),
        one.token("key", 1),
    }
    assert len(different) == 5
    np.testing.assert_array_equal(one.generator("n", 0).normal(size=5), two.generator("n", 0).normal(size=5))


def test_secret_normal_noise_has_the_right_spread() -> None:
    # sample variance of 10^6 normals: sd of the estimate is sqrt(2/n) = .00141; 5 sd fails once in 1.7 x 10^6
    noise = SecretStreams("silo-0").generator("noise", 0).normal(size=1_000_000)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / 1e6)
    assert abs(noise.mean()) < 5 / 1000
