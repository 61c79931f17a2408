"""Parameters, keys and ciphertexts of SEAL: the security table, the noise they promise, the bytes they travel as."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import tenseal as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError, UsageError
from defenses.channels import seal_parameters as table
from defenses.channels.seal_ciphertexts import Codec, encrypt, new_context, pack_words, save_context, unpack_words
from defenses.channels.seal_parameters import Parameters, choose_bfv, choose_ckks, ckks_error

CKKS = Parameters("ckks", 4096, 36, symmetric=True, scale_bits=26)
PUBLIC_CKKS = Parameters("ckks", 4096, 36, symmetric=False, scale_bits=26)
BFV = Parameters("bfv", 4096, 60, symmetric=True, plain_bits=52)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(CKKS)


@pytest.mark.parametrize(("degree", "bits", "cap"), [(1024, 32, 27), (2048, 36, 54), (2048, 60, 54)])
def test_what_breaks_the_security_table_is_refused_and_the_cap_named(degree, bits, cap) -> None:
    with pytest.raises(UsageError, match=f"at degree {degree} is below 128-bit security, which caps it at {cap} bits"):
        Parameters("ckks", degree, bits, symmetric=True, scale_bits=20)


@pytest.mark.parametrize("degree", [1024, 2048, 4096, 8192])
def test_the_table_is_seals(degree) -> None:
    from tenseal.sealapi import SEC_LEVEL_TYPE, CoeffModulus

    assert CoeffModulus.MaxBitCount(degree, SEC_LEVEL_TYPE.TC128) == table.SECURITY[degree]


@pytest.mark.parametrize(
    ("error", "silos", "symmetric", "bits"),
    [(1e-4, 3, True, 36), (1e-4, 30, True, 40), (1e-4, 3, False, 40), (1e-6, 3, True, 44), (1e-3, 3, True, 32)],
)
def test_the_smallest_prime_that_keeps_the_error(error, silos, symmetric, bits) -> None:
    chosen = choose_ckks(error, 256.0, silos, symmetric, 4096)
    assert chosen.data_bits == bits
    assert ckks_error(chosen, silos, 256.0) <= error
    if bits > 32:
        smaller = Parameters("ckks", 4096, bits - 4, symmetric, scale_bits=chosen.scale_bits - 4)
        assert ckks_error(smaller, silos, 256.0) > error


def test_the_error_by_hand() -> None:
    """10.3 deviations of sqrt(n N (21/2 + 1/12) / 2), over the scale; a public key's is larger."""
    noise = 10.3 * math.sqrt(3 * 4096 * (10.5 + 1 / 12) / 2) / 2**26
    assert ckks_error(CKKS, 3, 256.0) == pytest.approx(noise + 256 * 2**-42, rel=1e-12)
    assert ckks_error(PUBLIC_CKKS, 3, 256.0) > 10 * ckks_error(CKKS, 3, 256.0)


def test_what_is_out_of_reach_is_refused() -> None:
    with pytest.raises(UsageError, match="an error of 1e-13 is out of reach"):
        choose_ckks(1e-13, 256.0, 3, True, 4096)
    with pytest.raises(UsageError, match="caps it at 54 bits"):
        choose_ckks(1e-6, 256.0, 3, True, 2048)
    with pytest.raises(UsageError, match="drown in noise"):
        choose_bfv(10**13, True)


@pytest.mark.parametrize(("symmetric", "deviation"), [(True, 10.5), (False, (1 + 2 * 4096 / 3) / 12)])
def test_measured_noise_is_the_models(symmetric, deviation) -> None:
    """The mean square of 40,960 errors. Symmetric noise is normal: the margin is 6 deviations, sqrt(2 / 40960) each. A
    public key's is larger where s(zeta) is, in all ciphertexts alike: |s(zeta)|**2 is exponential, so that its mean
    over 2,048 slots has a deviation of 1 / sqrt(2048), and the margin is over 6 of those."""
    parameters = CKKS if symmetric else PUBLIC_CKKS
    context = new_context(parameters)
    values = np.random.default_rng(0).standard_normal((20, 2048))
    errors = np.array([encrypt(context, parameters, v).decrypt() for v in values]) - values
    expected = 4096 * (deviation + 1 / 12) / 2 / 2.0**52
    margin = 6 * math.sqrt(2 / errors.size) if symmetric else 5 * math.sqrt(2 / 2048 + 2 / errors.size)
    assert np.mean(errors**2) / expected == pytest.approx(1, abs=margin)
    assert np.abs(errors).max() < ckks_error(parameters, 1, 8.0)


@given(st.integers(1, 10**6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_bfv_decryption_cannot_fail(silos, symmetric) -> None:
    """The noise bound times 2 t stays below q, and with twice the t it would not."""
    chosen = choose_bfv(silos, symmetric)
    noise = silos * (22 if symmetric else 2050)
    assert 2 * noise * 2**chosen.plain_bits < 2**60 - 2**44
    assert 2 * noise * 2 ** (chosen.plain_bits + 1) >= 2**60 - 2**44


def test_bfv_noise_is_below_its_bound() -> None:
    """SEAL's remaining budget: with |noise| <= 22, q / (2 t |noise|) is at least 2**7 / 22, that is 2.5 bits."""
    from tenseal.sealapi import Decryptor

    context = new_context(BFV)
    decryptor = Decryptor(context.seal_context().data, context.secret_key().data)
    rng = np.random.default_rng(1)
    for _ in range(10):
        values = rng.integers(-(2**50), 2**50, 4096)
        vector = encrypt(context, BFV, values)
        assert decryptor.invariant_noise_budget(vector.ciphertext()[0]) >= 2
        np.testing.assert_array_equal(vector.decrypt(), values)


@given(st.sampled_from(table.DATA_BITS), st.integers(1, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_packed_words_come_back_and_take_their_bits(bits, pairs, seed) -> None:
    words = np.random.default_rng(seed).integers(0, 2**bits, 2 * pairs, dtype=np.uint64)
    words[0], words[-1] = 2**bits - 1, 0
    packed = pack_words(words, bits)
    assert len(packed) == pairs * bits // 4
    np.testing.assert_array_equal(unpack_words(packed, bits), words)


def test_packed_words_by_hand() -> None:
    """Two words of 36 bits, little-endian: the second begins in the upper half of byte 4."""
    words = np.array([0x123456789, 0xABCDEF012], dtype=np.uint64)
    assert pack_words(words, 36).hex() == (0x123456789 | 0xABCDEF012 << 36).to_bytes(9, "little").hex()


@pytest.mark.parametrize("parameters", [CKKS, PUBLIC_CKKS, BFV, Parameters("ckks", 8192, 40, True, scale_bits=30)])
def test_a_ciphertext_comes_back_from_its_frame(parameters) -> None:
    codec, context = Codec(parameters), new_context(parameters)
    values = np.random.default_rng(2).integers(-5, 5, parameters.slots)
    vector = encrypt(context, parameters, values)
    frame = codec.pack(vector)
    assert len(frame) == parameters.frame == 2 * parameters.degree * parameters.data_bits // 8
    back = codec.unpack(context, frame)
    np.testing.assert_array_equal(back.decrypt(), vector.decrypt())
    assert codec.pack(back) == frame


def test_frames_of_the_wrong_length_and_coefficients_not_below_q_are_refused(codec) -> None:
    context = new_context(CKKS)
    frame = codec.pack(encrypt(context, CKKS, np.ones(2048)))
    for wrong in (b"", frame[:-1], frame + b"\0", frame[: len(frame) // 2]):
        with pytest.raises(SiloBenchError, match="is no ciphertext"):
            codec.unpack(context, wrong)
    with pytest.raises(SiloBenchError, match="not below the modulus"):
        codec.unpack(context, b"\xff" * len(frame))


def test_any_bytes_of_the_right_length_are_a_ciphertext_or_refused(codec) -> None:
    """A ciphertext is pseudorandom: all that can be checked is the range."""
    context = new_context(CKKS)
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**35, 8192, dtype=np.uint64)
    assert np.isfinite(codec.unpack(context, pack_words(words, 36)).decrypt()).all()
    with contextlib.suppress(SiloBenchError):
        codec.unpack(context, bytes(CKKS.frame)).decrypt()


@pytest.mark.parametrize("parameters", [CKKS, PUBLIC_CKKS, BFV])
def test_what_is_dealt_holds_the_secret_key_or_does_not(parameters) -> None:
    codec, context = Codec(parameters), new_context(parameters)
    frame = codec.pack(encrypt(context, parameters, np.ones(parameters.slots)))
    private = codec.load_context(save_context(context, parameters, secret=True))
    public = codec.load_context(save_context(context, parameters, secret=False))
    assert private.has_secret_key()
    assert not public.has_secret_key()
    assert np.allclose(codec.unpack(private, frame).decrypt(), 1, atol=1e-3)
    with pytest.raises(ValueError, match="secret_key"):
        codec.unpack(public, frame).decrypt()
    if parameters.symmetric:
        assert len(save_context(context, parameters, secret=False)) < 200
        with pytest.raises(SiloBenchError, match="can't be encrypted"):
            encrypt(public, parameters, np.ones(4))


def test_keys_with_other_parameters_are_refused(codec) -> None:
    others = [
        Parameters("ckks", 4096, 40, True, scale_bits=26),
        Parameters("ckks", 4096, 36, True, scale_bits=25),
        Parameters("ckks", 8192, 36, True, scale_bits=26),
        BFV,
    ]
    for other in others:
        raw = save_context(new_context(other), other, secret=True)
        with pytest.raises(SiloBenchError):
            codec.load_context(raw)
    weak = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[36, 36, 20])
    weak.global_scale = 2.0**26
    with pytest.raises(SiloBenchError):
        codec.load_context(weak.serialize(save_galois_keys=False, save_relin_keys=False))


def test_damaged_keys_raise_nothing_but_our_errors(codec) -> None:
    rng = np.random.default_rng(4)
    raw = save_context(new_context(CKKS), CKKS, secret=True)
    refused = 0
    for _ in range(60):
        bad = bytearray(raw[: int(rng.integers(0, len(raw)))] if rng.random() < 0.5 else raw)
        for spot in rng.integers(0, max(len(bad), 1), 3):
            if bad:
                bad[spot] ^= int(rng.integers(1, 256))
        try:
            codec.load_context(bytes(bad))
        except SiloBenchError:
            refused += 1
    assert refused > 30
    with pytest.raises(SiloBenchError, match="is no key"):
        codec.load_context(bytes(5 * 2**20))
