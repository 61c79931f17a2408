"""Noise, flooding and parameters of threshold CKKS: bounds that are attained, shares that show the sum only, and the
figures that docs/crypto.md prints."""

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

from bench.core.errors import UsageError
from bench.core.streams import SecretStreams
from defenses.channels.rlwe.estimate import primal
from defenses.channels.threshold_ckks import ring, scheme
from defenses.channels.threshold_ckks.parameters import ETA, SECURITY, Parameters, choose, noise_bound
from defenses.channels.threshold_ckks.sampling import centred_binomial, flooding, ternary

DOCS = Path(__file__).parents[2] / "docs" / "crypto.md"


def parameters(silos: int = 3, size: int = 5000) -> Parameters:
    return choose(silos, silos, size, 2, 1e-4, 4.0, 40)


def generator(name: str) -> np.random.Generator:
    return SecretStreams("test", secret_seed=3).generator(name)


def number(limbs: np.ndarray, p: Parameters) -> list[int]:
    return [sum(int(d) << (p.width * k) for k, d in enumerate(column)) for column in limbs.T]


def centred(numbers: list[int], p: Parameters) -> list[int]:
    q = 2**p.modulus
    return [(x + q // 2) % q - q // 2 for x in numbers]


class Federation:
    """Keys and uploads of all silos as the code makes them, with what it rescales caught before it is."""

    def __init__(self, p: Parameters, monkeypatch: pytest.MonkeyPatch, count: int, seed: int = 0) -> None:
        self.p, self.rng = p, np.random.default_rng(seed)
        self.element = ring.public_element(b"test", p)
        self.secrets = [scheme.ternary(generator(f"secret-{i}"), p.keys, p.degree) for i in range(p.silos)]
        pairs = enumerate(self.secrets)
        shares = [list(scheme.key_share(p, self.element, s, generator(f"key-{i}"))) for i, s in pairs]
        self.collective = ring.reduce(np.sum(shares, axis=0), p.width).astype(np.uint32)
        self.units = self.rng.integers(-p.most // p.silos, p.most // p.silos + 1, (p.silos, count))
        caught: list[np.ndarray] = []
        original = ring.rescaled

        def rescaled(limbs: np.ndarray, p: Parameters, dither: np.ndarray | None = None) -> np.ndarray:
            caught.append(limbs.copy())
            return original(limbs, p, dither)

        monkeypatch.setattr(ring, "rescaled", rescaled)
        self.firsts, self.tops = [], []
        for i in range(p.silos):
            sealer = scheme.Sealer(p, self.element, self.collective, generator(f"seal-{i}"))
            first, tops = sealer.group(self.units[i])
            self.firsts.append(first)
            self.tops.append(tops)
        monkeypatch.setattr(ring, "rescaled", original)
        #: (silos, polynomials, limbs, N) of c0 before rescaling
        self.seconds = np.array(caught)
        self.first = ring.reduce(np.sum(self.firsts, axis=0), p.width)

    def noise(self, key: int) -> list[int]:
        """Of the sum's polynomial ``key``: c0 + c1 s, from the definition, values left out."""
        p = self.p
        total = number(np.sum(self.seconds[:, key], axis=0), p)
        spectrum = ring.spectrum(self.first, p.width)
        for secrets in self.secrets:
            product = number(ring.product(spectrum, ring.small_spectrum(secrets[key])), p)
            total = [x + y for x, y in zip(total, product, strict=True)]
        return centred(total, p)

    def opened(self) -> np.ndarray:
        p, count = self.p, self.units.shape[1]
        total = np.sum(self.tops, axis=0, dtype=np.uint64)
        for i, secrets in enumerate(self.secrets):
            total += scheme.decryption_share(p, self.first, secrets, count, generator(f"flood-{i}"))
        return scheme.centred(total, p)


@pytest.mark.parametrize("silos", [2, 3, 6])
def test_noise_is_within_its_bound_and_sums_within_their_rounding(silos, monkeypatch) -> None:
    p = replace(parameters(silos, 3 * 4096), keys=3)
    federation = Federation(p, monkeypatch, 2 * 4096 + 7)
    worst = max(max(map(abs, federation.noise(key))) for key in range(p.keys))
    # a deviation of about 240 n; the bound is for the worst case, some 2000 times as much
    assert 500 * silos < worst < p.noise / 100
    error = federation.opened() - federation.units.sum(axis=0)
    assert np.abs(error).max() <= p.rounding
    assert np.abs(error).max() >= 1


@pytest.mark.parametrize("silos", [2, 3])
def test_the_noise_bound_is_attained_and_even_then_no_sum_is_off_by_more(silos, monkeypatch) -> None:
    """Every secret, every randomness and every error as large as it can be, with one sign: in the last coefficient all
    terms add up."""
    monkeypatch.setattr(scheme, "ternary", lambda generator, *shape: np.ones(shape, dtype=np.int8))
    monkeypatch.setattr(scheme, "centred_binomial", lambda generator, *shape: np.full(shape, ETA))
    p = parameters(silos)
    federation = Federation(p, monkeypatch, 5000)
    for key in range(p.keys):
        assert max(federation.noise(key)) == federation.noise(key)[-1] == p.noise
    assert p.noise == silos * (2 * 4096 * 21 * silos + 21)
    assert np.abs(federation.opened() - federation.units.sum(axis=0)).max() <= p.rounding


def test_distributions_are_those_that_the_argument_takes() -> None:
    secrets, errors = ternary(generator("t"), 300_000), centred_binomial(generator("e"), 300_000)
    assert set(np.unique(secrets)) == {-1, 0, 1}
    # six deviations of a share of one third among 300,000
    assert np.abs(np.bincount(secrets + 1) / 300_000 - 1 / 3).max() < 6 * math.sqrt(2 / 9 / 300_000)
    assert np.abs(errors).max() <= ETA
    assert abs(errors.mean()) < 6 * math.sqrt(ETA / 2 / 300_000)
    assert errors.var() == pytest.approx(ETA / 2, rel=6 * math.sqrt(2 / 300_000))


def test_flooding_is_uniform_below_p() -> None:
    p = parameters()
    drawn = flooding(generator("f"), p, 20)
    assert drawn.min() >= 0
    for k in range(p.limbs):
        bits = max(0, min(p.width, p.flood - k * p.width))
        assert drawn[:, k].max(initial=0) < 2**bits
        shares = [(drawn[:, k] >> bit & 1).mean() for bit in range(bits)]
        assert all(abs(share - 0.5) < 6 * 0.5 / math.sqrt(drawn[:, k].size) for share in shares)


def test_a_share_is_its_product_with_p_rounded_up_as_often_as_what_is_left_says() -> None:
    """floor((x + f) / P) with f uniform: one more than floor(x / P) with probability (x mod P) / P, and no other."""
    p = parameters()
    first, secrets = ring.public_element(b"c1", p), ternary(generator("s"), 1, p.degree)
    product = ring.reduce(ring.product(ring.spectrum(first, p.width), ring.small_spectrum(secrets[0])), p.width)
    x = number(product, p)
    whole = np.array([v // 2**p.flood for v in x])
    left = np.array([float(Fraction(v % 2**p.flood, 2**p.flood)) for v in x])
    ups = np.zeros(p.degree)
    for draw in range(40):
        share = scheme.decryption_share(p, first, secrets, p.degree, generator(f"draw-{draw}"))
        up = (share.astype(np.int64) - whole) % 2**p.sent
        assert set(np.unique(up)) <= {0, 1}
        ups += up
    # binomial counts: compare low and high remainders, and the whole
    for low in np.arange(0, 1, 0.1):
        here = (left >= low) & (left < low + 0.1)
        deviation = math.sqrt(40 * (left[here] * (1 - left[here])).sum())
        assert abs(ups[here].sum() - 40 * left[here].sum()) < 6 * deviation


def differing(p: Parameters, monkeypatch: pytest.MonkeyPatch) -> float:
    """The share of coefficients in which a silo's share differs from the one that is made of the sum alone, under the
    same flooding: what is simulated is P times the sum, less the uploads and the others' products."""
    federation = Federation(p, monkeypatch, p.degree)
    noise = federation.noise(0)
    product = ring.product(ring.spectrum(federation.first, p.width), ring.small_spectrum(federation.secrets[0][:1]))
    dither = flooding(generator("f"), p, 1)
    real = ring.rescaled(product.copy(), p, dither)
    simulated = product.copy()
    simulated[0, 0] -= np.array(noise)
    return float((real != ring.rescaled(simulated, p, dither)).mean())


def test_shares_can_be_made_from_the_sum_alone_and_not_where_flooding_is_narrow(monkeypatch) -> None:
    p = parameters()
    assert p.margin >= 40
    assert differing(p, monkeypatch) == 0
    # as many bits of flooding as a typical noise has: a broken copy
    broken = replace(p, limbs=2, width=27, sent=42)
    assert broken.flood == 12
    assert differing(broken, monkeypatch) > 0.05


@settings(max_examples=60, deadline=None)
@given(
    silos=st.integers(1, 60),
    weight=st.integers(1, 500),
    size=st.integers(0, 20_000_000),
    rounds=st.integers(1, 50),
    log_error=st.floats(-5, 0),
    largest=st.floats(0.01, 50),
    bits=st.integers(30, 80),
    least=st.sampled_from([4096, 8192]),
)
def test_parameters_keep_every_promise(silos, weight, size, rounds, log_error, largest, bits, least) -> None:
    error = 10**log_error
    p = choose(silos, silos * weight, size, rounds, error, largest, bits, least)
    assert p.degree >= least
    assert p.modulus <= SECURITY[p.degree]
    assert p.flood + p.sent == p.modulus == p.limbs * p.width
    # no sum wraps, with all its rounding, and the error holds with one unit to spare
    assert Fraction(largest) * silos * weight / Fraction(p.unit) + 2 * silos < 2 ** (p.sent - 1)
    assert (p.rounding + 1) * Fraction(p.unit) <= Fraction(error) * (1 + Fraction(1, 2**50))
    # all values of all rounds, two worlds
    assert p.noise * size * rounds * 2 * 2**bits <= 2**p.flood
    assert p.margin >= bits - 1e-9
    assert 1 <= p.keys <= max(1, -(-size // p.degree))
    assert sum(p.groups(size)) == size
    assert ring.error_bound(p.degree, p.width, math.sqrt(p.degree)) < 0.5
    assert p.sent <= 2 * p.width


def test_parameters_by_hand() -> None:
    """Three silos, 460,800 values, four rounds: 113 polynomials, 21 of which share one random half."""
    p = choose(3, 3, 460_800, 4, 1e-4, 4.0, 40)
    assert p.unit == 1e-4 / 7
    assert p.most == 840_000  # 12 / unit
    assert p.sent == 21  # 840,007 < 2**20
    assert p.noise == 3 * (2 * 4096 * 21 * 3 + 21) == 1_548_351
    # 2**(1 + 20.56 + 20.81) and 40 bits: 83; with 21 above it 104, four limbs of 26
    assert (p.degree, p.limbs, p.width, p.flood) == (4096, 4, 26, 83)
    assert p.keys == 21  # the square root of 4 * 113 is 21.3
    assert p.bytes_per_value == (42 + 104 / 21) / 8
    assert sum(p.tops(460_800)) == 460_800 * 21 // 8
    assert noise_bound(1, 8192) == 2 * 8192 * 21 + 21


def test_no_modulus_is_above_what_today_s_attacks_leave_at_128_bits() -> None:
    """Five silos took log Q = 108 at N = 4096, which is 126.9 bits (docs/crypto.md): a larger ring in its place."""
    assert SECURITY == {4096: 106, 8192: 214}
    p = choose(5, 5, 460_800, 4, 1e-4, 4.0, 40)
    assert (p.degree, p.modulus) == (8192, 108)


def test_a_limb_of_the_full_width_is_taken_before_more_limbs() -> None:
    p = choose(30, 30, 460_800, 4, 1e-4, 4.0, 40)
    assert (p.degree, p.limbs, p.width) == (8192, 4, 30)
    assert p.element == 8192 * 120 // 8


def test_what_can_not_be_kept_is_refused() -> None:
    with pytest.raises(UsageError, match="allow a larger error or smaller values"):
        choose(3, 3, 1000, 2, 1e-13, 4.0, 40)
    with pytest.raises(UsageError, match="ask for less flooding"):
        choose(60, 60, 10**8, 1000, 1e-4, 4.0, 150)


def rows(marker: str) -> list[list[str]]:
    table = re.search(r"(?:^\|.*\n)+", DOCS.read_text(encoding="utf-8").split(marker, 1)[1], re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group().splitlines()[2:]]


def test_the_documents_table_of_parameters() -> None:
    found = rows("<!-- table: threshold sizes -->")
    assert len(found) >= 7
    for silos, weight, size, error, least, degree, modulus, sent, keys, per_value, margin, security in found:
        values = int(size.replace(",", ""))
        p = choose(int(silos), int(weight), values, 4, float(error), 4.0, 40, int(least))
        assert (int(degree), int(modulus), int(sent), int(keys)) == (p.degree, p.modulus, p.sent, p.keys)
        assert float(per_value) == pytest.approx(p.bytes_per_value, abs=5e-3)
        assert float(margin) == pytest.approx(p.margin, abs=5e-2)
        attack = primal(p.degree, p.modulus, math.sqrt(2 / 3), math.sqrt(ETA / 2))
        assert security == f"{attack.standard:.0f} / {attack.core:.0f}"


def test_the_document_says_what_it_is() -> None:
    text = re.sub(r"\s+", " ", DOCS.read_text().split("# Threshold CKKS")[1])
    assert "neither audited nor constant-time" in text
