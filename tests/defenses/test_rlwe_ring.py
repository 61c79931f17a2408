"""Ring arithmetic: products against an exact schoolbook, roots of unity, public elements."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from defenses.channels.rlwe.parameters import DEGREE, ETA
from defenses.channels.rlwe.ring import Multiplier, coefficients, error_bound, expand, twist

MASK = np.uint64(2**54 - 1)
LARGEST = 2**26
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def schoolbook(element: np.ndarray, small: np.ndarray) -> np.ndarray:
    """element * small modulo X^N + 1 and 2^54, through convolutions of 64-bit integers that can't overflow."""
    total = np.zeros(DEGREE, dtype=np.uint64)
    for part, shift in ((element.real, 0), (element.imag, 27)):
        straight = np.convolve(part.astype(np.int64), small.astype(np.int64))  # below 2^26 * 2^20 * 2^11
        folded = straight[:DEGREE].copy()
        folded[:-1] -= straight[DEGREE:]
        total += folded.view(np.uint64) << np.uint64(shift)
    return total & MASK


def schoolbook_by_hand(element: list[int], small: list[int]) -> list[int]:
    """The definition, for a few coefficients that are not zero."""
    total = [0] * DEGREE
    for i, x in enumerate(element):
        for j, y in enumerate(small):
            if x and y:
                sign, place = (1, i + j) if i + j < DEGREE else (-1, i + j - DEGREE)
                total[place] += sign * x * y
    return [value % 2**54 for value in total]


def halves(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return (low + 1j * high).astype(np.complex128)


def extremes() -> list[tuple[str, np.ndarray]]:
    """Elements all of whose halves are of the largest size, with signs that add up at one coefficient or frequency."""
    k = np.arange(DEGREE)
    rng = np.random.default_rng(3)
    signs = {
        "equal": np.ones(DEGREE),
        "alternating": (-1.0) ** k,
        "lowest frequency": np.where(np.cos(np.pi * (k + 0.5) / DEGREE) >= 0, 1.0, -1.0),
        "a middle frequency": np.where(np.cos(np.pi * 691 * (k + 0.5) / DEGREE) >= 0, 1.0, -1.0),
        "random": rng.choice([-1.0, 1.0], DEGREE),
    }
    return [(name, halves(-LARGEST * sign, -LARGEST * sign)) for name, sign in signs.items()]


def test_the_schoolbook_is_right() -> None:
    element, small = [0] * DEGREE, [0] * DEGREE
    element[3], element[2047] = 5 + (7 << 27), -11
    small[0], small[1], small[2046] = 2, -3, 48
    low, high = np.zeros(DEGREE), np.zeros(DEGREE)
    low[3], high[3], low[2047] = 5, 7, -11
    found = schoolbook(halves(low, high), np.array(small))
    assert found.tolist() == schoolbook_by_hand(element, small)
    assert found.tolist() == (Multiplier(np.array(small)).times(halves(low, high)[None])[0] & MASK).tolist()


@pytest.mark.parametrize("element", [e for _, e in extremes()], ids=[name for name, _ in extremes()])
@pytest.mark.parametrize("pattern", ["equal", "matched", "random"])
@pytest.mark.parametrize("size", [ETA, 1000 * ETA, 2**20])
def test_products_are_exact_at_the_largest_inputs(element, pattern, size) -> None:
    sign = {
        "equal": np.ones(DEGREE),
        # coefficient N-1 of the product is the sum of all |element| * size
        "matched": np.sign(element.real)[::-1],
        "random": np.random.default_rng(5).choice([-1.0, 1.0], DEGREE),
    }[pattern]
    small = (sign * size).astype(np.int64)
    found = Multiplier(small).times(element[None])[0] & MASK
    np.testing.assert_array_equal(found, schoolbook(element, small))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**20))
def test_products_are_exact_at_random_inputs(seed, size) -> None:
    rng = np.random.default_rng(seed)
    element = expand(rng.bytes(32), int(rng.integers(0, 1000)), 1)
    small = rng.integers(-size, size + 1, DEGREE)
    found = Multiplier(small).times(element)[0] & MASK
    np.testing.assert_array_equal(found, schoolbook(element[0], small))


def test_the_error_bound_holds_for_every_key_and_the_error_is_far_below_it() -> None:
    worst = ETA * DEGREE**0.5
    assert error_bound(worst) < 0.5  # a silo's product never needs to be cut into digits
    largest = 0.0
    for _, element in extremes():
        spectrum = np.fft.fft(element * twist()) * np.fft.fft(ETA * np.sign(element.real)[::-1] * twist())
        product = np.fft.ifft(spectrum) * twist().conj()
        values = product.view(np.float64)
        largest = max(largest, float(np.abs(values - np.rint(values)).max()))
    assert 0 < largest < error_bound(worst) / 4


def exact_root(k: int) -> tuple[float, float]:
    """cos and sin of pi k / N to 40 digits, correctly rounded."""
    with localcontext() as context:
        context.prec = 50
        angle = PI * k / DEGREE
        terms, term = [], Decimal(1)
        for n in range(60):
            terms.append(term)
            term = term * angle / (n + 1)
        cosine = sum(t * (1, 0, -1, 0)[n % 4] for n, t in enumerate(terms))
        sine = sum(t * (0, 1, 0, -1)[n % 4] for n, t in enumerate(terms))
        return float(cosine), float(sine)


def test_roots_of_unity_are_as_exact_as_the_bound_assumes() -> None:
    ours = max(abs(complex(*exact_root(k)) - twist()[k]) for k in range(0, DEGREE, 3))
    assert ours <= 4 * 2.0**-53
    for place in (1, 2, 3, 5, 1023, 1024, 2047):
        unit = np.zeros(DEGREE, dtype=np.complex128)
        unit[place] = 1
        transformed = np.fft.fft(unit)
        # exp(-2 pi i place k / N), at angles below 2 pi
        errors = [
            abs(complex(*exact_root(2 * place * k % (2 * DEGREE))).conjugate() - transformed[k])
            for k in range(0, DEGREE, 17)
        ]
        assert max(errors) <= 11 * (4 + 5**0.5) * 2.0**-53


def test_public_elements_are_the_same_wherever_one_starts() -> None:
    whole = expand(b"s" * 32, 0, 7)
    np.testing.assert_array_equal(whole[5:], expand(b"s" * 32, 5, 2))
    assert not np.array_equal(whole, expand(b"t" * 32, 0, 7))


def test_public_elements_are_uniform_modulo_every_power_of_two() -> None:
    values = coefficients(expand(bytes(32), 0, 64)).reshape(-1)
    limit = chi2.isf(1e-6 / 7, 255)
    for shift in (0, 8, 16, 19, 27, 40, 46):
        counts = np.bincount(((values & MASK) >> np.uint64(shift)).astype(np.int64) & 255, minlength=256)
        assert ((counts - len(values) / 256) ** 2).sum() / (len(values) / 256) < limit
    low = expand(bytes(32), 0, 64).real
    assert low.min() >= -LARGEST
    assert low.max() < LARGEST
