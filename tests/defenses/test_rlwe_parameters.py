"""Parameters, digits in slots, the noise bound at its extremes, and the figures that docs/crypto.md prints."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError
from defenses.channels.rlwe.estimate import left_over, primal, widest_sum
from defenses.channels.rlwe.parameters import ETA, MAX_MODULUS, Parameters, choose
from defenses.channels.rlwe.payload import _rounded
from defenses.channels.rlwe.slots import from_slots, to_slots

DOCS = Path(__file__).parents[2] / "docs" / "crypto.md"
sizes = {"silos": st.integers(1, 300), "bits": st.integers(2, 20)}


def reduced(slots: np.ndarray, parameters: Parameters) -> np.ndarray:
    return slots & np.uint64(2**parameters.modulus - 1)


@settings(max_examples=30, deadline=None)
@given(**sizes)
def test_no_sum_overflows_a_digit_and_no_noise_reaches_one(silos, bits) -> None:
    p = choose(silos, 2 ** (bits - 1) - 1)
    assert p.modulus <= MAX_MODULUS
    assert 2 * silos * p.levels + 1 <= 2**p.width
    rounding = Fraction(2**p.dropped, 2) if p.dropped else 0
    assert 2 * silos * (ETA + rounding) < 2**p.scale
    assert 2 * silos * ETA < 2**p.key_bits
    assert 0 <= p.dropped < p.scale


def test_parameters_by_hand() -> None:
    """Three silos of eight bits: sums in [-381, 381], ten bits each, four in a slot; 3 * (48 + 256) = 912 < 1024."""
    p = choose(3, 127)
    assert (p.width, p.digits, p.scale, p.dropped, p.modulus, p.sent) == (10, 4, 11, 9, 51, 42)
    assert p.noise == 912
    assert p.key_bits == 9  # 144 and -144
    assert p.bytes_per_value == 1.3125
    # 460,800 values: 115,200 slots of 42 bits, and not a byte more
    assert sum(p.lengths(460_800)) == 115_200 * 42 // 8
    assert max(p.lengths(460_800)) <= 2**20


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SiloBenchError, match="no room for noise"):
        choose(3, 2**50)
    with pytest.raises(SiloBenchError, match="silos and levels"):
        choose(0, 1)
    with pytest.raises(SiloBenchError, match="silos and levels"):
        choose(3, 0)


@settings(max_examples=30, deadline=None)
@given(**sizes, count=st.integers(1, 50), seed=st.integers(0, 2**32 - 1), sign=st.sampled_from([-1, 1]))
def test_digits_come_back_under_the_largest_noise(silos, bits, count, seed, sign) -> None:
    p = choose(silos, 2 ** (bits - 1) - 1)
    rng = np.random.default_rng(seed)
    sums = rng.choice([-silos * p.levels, silos * p.levels, 0, 1, -1], count)
    slots = to_slots(sums, p)
    noise = np.full(len(slots), sign * p.noise, dtype=np.int64)
    np.testing.assert_array_equal(from_slots(reduced(slots + noise.view(np.uint64), p), count, p), sums)


def check_noise_fits(p: Parameters) -> None:
    sums = np.array([p.silos * p.levels, -p.silos * p.levels, 0, 5, -5])
    for sign in (-1, 1):
        slots = to_slots(sums, p) + np.full(-(-5 // p.digits), sign * p.noise, dtype=np.int64).view(np.uint64)
        np.testing.assert_array_equal(from_slots(reduced(slots, p), 5, p), sums)


@pytest.mark.parametrize("silos", [2, 3, 7, 40])
def test_a_scale_one_too_small_is_found_by_the_noise_at_its_largest(silos) -> None:
    p = choose(silos, 127)
    check_noise_fits(p)
    with pytest.raises((AssertionError, SiloBenchError)):
        check_noise_fits(replace(p, scale=p.scale - 1))
    with pytest.raises((AssertionError, SiloBenchError)):
        check_noise_fits(replace(p, dropped=p.dropped + 1))


@pytest.mark.parametrize("silos", [2, 3, 7])
def test_rounding_is_off_by_half_a_step_at_most_and_that_is_attained(silos) -> None:
    p = choose(silos, 127)
    step = 1 << p.dropped
    numbers = np.arange(4 * step, dtype=np.uint64) + np.uint64(2**p.modulus - 2 * step)  # around the wrap
    back = (_rounded(numbers, p) << np.uint64(p.dropped)) - numbers
    error = (back << np.uint64(64 - p.modulus)).view(np.int64) >> (64 - p.modulus)  # centred
    assert (error.max(), error.min()) == (step // 2, 1 - step // 2)


@pytest.mark.parametrize("change", ["noise", "digit", "padding"])
def test_what_no_sum_can_be_is_refused(change) -> None:
    p = choose(3, 127)
    slots = to_slots(np.array([1, 2, 3]), p)  # the fourth digit is padding
    slots += {
        "noise": np.uint64(p.noise + 1),
        "digit": np.uint64(381) << np.uint64(p.scale),
        "padding": np.uint64(1) << np.uint64(p.scale + 3 * p.width),
    }[change]
    with pytest.raises(SiloBenchError, match="do not open"):
        from_slots(reduced(slots, p), 3, p)


def test_left_over_deviation_against_counting() -> None:
    """All pairs of two silos' bits for eta = 2, against the closed form."""
    eta, groups = 2, {}
    for one in range(2**4):
        for other in range(2**4):
            s = [bin(x).count("1") - eta for x in (one, other)]
            groups.setdefault(sum(s), []).append(s[0])
    for total, firsts in groups.items():
        assert left_over(total, eta) == pytest.approx(np.std(firsts), abs=1e-12)


def test_widest_sum_against_counting() -> None:
    # eta = 1: sums of two are -2..2 with 1/16, 4/16, 6/16, 4/16, 1/16
    assert widest_sum(1, 0.13, eta=1) == 1
    assert widest_sum(1, 0.12, eta=1) == 2
    assert widest_sum(1, 0.7, eta=1) == 0
    assert widest_sum(2, 0.7, eta=1) == 1


def test_two_honest_silos_keep_a_deviation_above_the_standards_error() -> None:
    assert left_over() == pytest.approx(math.sqrt(2 * ETA / 4 * 2 * ETA / (4 * ETA - 1)))
    assert left_over() > 3.2
    thinnest = left_over(widest_sum(2**25, 2.0**-40))
    assert thinnest > 2.6
    # more than the standard's own parameters, even if every coefficient were the thinnest
    ours, standard = (primal(2048, MAX_MODULUS, *d) for d in ((thinnest, thinnest), ((2 / 3) ** 0.5, 3.2)))
    assert ours.standard > standard.standard > 128


def test_the_estimator_gives_the_standards_own_128_bits() -> None:
    """At the standard's ternary secrets and error of 3.2, its largest moduli come out at 128 bits, give or take 4."""
    for degree, modulus in ((1024, 27), (2048, 54), (4096, 109)):
        assert 127.5 < primal(degree, modulus, (2 / 3) ** 0.5, 3.2).standard < 132.5


def rows(title: str) -> list[list[str]]:
    text = DOCS.read_text(encoding="utf-8").split(title, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group().splitlines()[2:]]


def test_the_documents_table_of_sizes() -> None:
    found = rows("<!-- table: sizes -->")
    assert len(found) >= 8
    for silos, bits, digits, modulus, sent, size, masks, security in found:
        p = choose(int(silos), 2 ** (int(bits) - 1) - 1)
        assert (int(digits), int(modulus), int(sent)) == (p.digits, p.modulus, p.sent)
        assert float(size) == pytest.approx(p.bytes_per_value, abs=5e-4)
        assert float(masks) == pytest.approx(p.width / 8, abs=5e-4)
        attack = primal(2048, p.modulus, left_over(), left_over())
        assert security == f"{attack.standard:.0f} / {attack.core:.0f}"


def test_the_documents_table_of_estimates() -> None:
    found = rows("<!-- table: estimates -->")
    assert len(found) >= 5
    for _, degree, modulus, secret, error, block, standard, core in found:
        attack = primal(int(degree), int(modulus), float(secret), float(error))
        assert (int(block), standard, core) == (attack.block, f"{attack.standard:.0f}", f"{attack.core:.0f}")
