"""Ring arithmetic of threshold CKKS against schoolbook products and Python's integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError
from defenses.channels.threshold_ckks import ring
from defenses.channels.threshold_ckks.parameters import LIMBS, MAX_WIDTH, choose

SMALL = replace(choose(3, 3, 1000, 2, 1e-4, 4.0, 40), degree=16)


def number(limbs: np.ndarray, width: int) -> list[int]:
    """The coefficients that (limbs, N) stand for, as Python's integers, not reduced."""
    return [sum(int(d) << (width * k) for k, d in enumerate(column)) for column in limbs.T]


def limbs_of(numbers: list[int], count: int, width: int) -> np.ndarray:
    return np.array([[n >> (width * k) & (2**width - 1) for n in numbers] for k in range(count)], dtype=np.int64)


def schoolbook(a: list[int], s: list[int], modulus: int) -> list[int]:
    """By the definition: X^N = -1."""
    n = len(a)
    found = [0] * n
    for i, x in enumerate(a):
        for j, y in enumerate(s):
            found[(i + j) % n] += x * y if i + j < n else -x * y
    return [x % modulus for x in found]


@settings(max_examples=40, deadline=None)
@given(
    log_degree=st.integers(1, 6),
    limbs=st.sampled_from([2, 4, 6, 8]),
    width=st.integers(5, MAX_WIDTH),
    seed=st.integers(0, 2**32 - 1),
    extreme=st.booleans(),
)
def test_products_are_the_schoolbook_ones(log_degree, limbs, width, seed, extreme) -> None:
    degree, rng = 2**log_degree, np.random.default_rng(seed)
    a = rng.integers(0, 2**width, (limbs, degree))
    s = rng.integers(-1, 2, degree)
    if extreme:
        a[:], s = 2 ** (width - 1), rng.choice([-1, 1], degree)
    found = ring.product(ring.spectrum(a, width), ring.small_spectrum(s))
    modulus = 2 ** (limbs * width)
    wanted = schoolbook(number(a, width), s.tolist(), modulus)
    assert [x % modulus for x in number(found, width)] == wanted
    reduced = ring.reduce(found, width)
    assert number(reduced, width) == wanted
    assert reduced.min() >= 0
    assert reduced.max() < 2**width


@pytest.mark.parametrize("degree", sorted(LIMBS))
@pytest.mark.parametrize("sign", [-1, 1, 0])
def test_products_are_exact_where_all_terms_add_up(degree, sign) -> None:
    """Limbs of the largest size, all signs equal (or random); the error must also lie below the proven bound."""
    rng = np.random.default_rng(5)
    a = np.zeros((2, degree), dtype=np.int64)
    a[0] = 2 ** (MAX_WIDTH - 1)  # balanced: -2**26, and a carry into the upper limb
    a[1] = 2 ** (MAX_WIDTH - 1) - 1
    s = np.full(degree, sign) if sign else rng.choice([-1, 1], degree)
    balanced = ring.reduce(a + 2 ** (MAX_WIDTH - 1), MAX_WIDTH) - 2 ** (MAX_WIDTH - 1)
    assert (np.abs(balanced) == 2 ** (MAX_WIDTH - 1)).all()
    element, small = ring.spectrum(a, MAX_WIDTH), ring.small_spectrum(s)
    found = ring.product(element, small)
    for limb in range(2):
        whole = np.convolve(balanced[limb], s)
        whole = np.append(whole, 0)
        np.testing.assert_array_equal(found[limb], whole[:degree] - whole[degree:])
    raw = np.fft.ifft(element[0] * small) * ring.twist(degree).conj()
    error = max(np.abs(raw.real - found[0]).max(), np.abs(raw.imag - found[1]).max())
    assert error < ring.error_bound(degree, MAX_WIDTH, degree**0.5) < 0.25


def test_roots_of_unity_are_as_near_as_the_bound_takes_them() -> None:
    for degree in LIMBS:
        angle = np.arange(degree, dtype=np.longdouble) * (np.longdouble("3.14159265358979323846264338") / degree)
        error = np.hypot(ring.twist(degree).real - np.cos(angle), ring.twist(degree).imag - np.sin(angle))
        assert error.max() <= 4 * 2.0**-53


@settings(max_examples=60, deadline=None)
@given(
    sent=st.integers(2, 48), width=st.integers(24, MAX_WIDTH), limbs=st.sampled_from([4, 6]), seed=st.integers(0, 2**31)
)
def test_rescaling_divides_by_p_and_takes_the_upper_bits(sent, width, limbs, seed) -> None:
    p = replace(SMALL, sent=sent, width=width, limbs=limbs)
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 2**width, (limbs, p.degree))
    x, scale = number(a, width), 2**p.flood
    found = ring.rescaled(a.copy(), p)
    assert found.tolist() == [(2 * v + scale) // (2 * scale) % 2**sent for v in x]
    dither = [int.from_bytes(rng.bytes(40), "little") % scale for _ in x]
    found = ring.rescaled(a.copy(), p, limbs_of(dither, limbs, width))
    assert found.tolist() == [(v + r) // scale % 2**sent for v, r in zip(x, dither, strict=True)]


def test_elements_travel_as_bytes_of_their_length_only() -> None:
    p = choose(3, 3, 1000, 2, 1e-4, 4.0, 40)
    a = ring.public_element(b"seed", p)
    raw = ring.to_bytes(a, p)
    assert len(raw) == p.element == p.degree * p.modulus // 8
    np.testing.assert_array_equal(ring.from_bytes(raw, p), a)
    for wrong in (raw[:-1], raw + b"\0", b""):
        with pytest.raises(SiloBenchError, match="no ring element"):
            ring.from_bytes(wrong, p)


def test_the_public_element_is_its_seeds_and_uses_all_bits() -> None:
    p = choose(3, 3, 1000, 2, 1e-4, 4.0, 40)
    a, b = ring.public_element(b"1", p), ring.public_element(b"2", p)
    np.testing.assert_array_equal(a, ring.public_element(b"1", p))
    assert (a != b).mean() > 0.99
    assert a.min() >= 0
    assert a.max() < 2**p.width
    # every bit is set in half of the 16384 limbs: six deviations are 0.023
    shares = [(a >> bit & 1).mean() for bit in range(p.width)]
    assert np.abs(np.array(shares) - 0.5).max() < 0.024
