"""The parts of secure aggregation by themselves: shares, packing, masks, sets, keys and limits."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError, UsageError
from defenses.channels.secagg import masks, packing, primitives, shamir, wire
from defenses.channels.secagg.masks import Mask
from defenses.channels.secagg.policy import Policy
from defenses.channels.secagg.updates import modulus_bits

FEW = settings(max_examples=30, deadline=None)


def field(number: int) -> bytes:
    return number.to_bytes(shamir.SIZE, "little")


def coefficients(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(shamir.COEFFICIENT, "little") for number in numbers)


def test_shares_by_hand() -> None:
    # f(x) = 7 + 3x + 2x^2: 12, 21, 34, 51 at 1 to 4
    shares = shamir.split(field(7), 3, [1, 2, 3, 4], coefficients(3, 2))
    assert shares == {1: field(12), 2: field(21), 3: field(34), 4: field(51)}
    for chosen in combinations(shares, 3):
        assert shamir.recover({point: shares[point] for point in chosen}, 3) == field(7)
    # f(x) = -1 + x modulo the prime: 0 at 1, 1 at 2
    shares = shamir.split(field(shamir.PRIME - 1), 2, [1, 2], coefficients(1))
    assert shares == {1: field(0), 2: field(1)}
    assert shamir.recover(shares, 2) == field(shamir.PRIME - 1)


def test_the_field_is_the_largest_below_its_size() -> None:
    def probably_prime(n: int) -> bool:
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        return all(
            pow(base, odd, n) == 1 or any(pow(base, odd << k, n) == n - 1 for k in range(twos))
            for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
        )

    assert [k for k in range(1, 190, 2) if probably_prime(2**256 - k)] == [189]
    assert shamir.PRIME == 2**256 - 189


@FEW
@given(st.data(), st.integers(1, 9))
def test_any_threshold_of_shares_gives_the_secret_and_fewer_fit_every_secret(data, count) -> None:
    threshold = data.draw(st.integers(1, count))
    secret = data.draw(st.integers(0, shamir.PRIME - 1))
    points = data.draw(st.lists(st.integers(1, 10_000), min_size=count, max_size=count, unique=True))
    randomness = data.draw(st.binary(min_size=48 * (threshold - 1), max_size=48 * (threshold - 1)))
    shares = shamir.split(field(secret), threshold, points, randomness)
    chosen = data.draw(st.permutations(points))
    assert shamir.recover({p: shares[p] for p in chosen[:threshold]}, threshold) == field(secret)
    if threshold > 1:
        fewer = {p: shares[p] for p in chosen[: threshold - 1]}
        with pytest.raises(SiloBenchError, match="shares do not give"):
            shamir.recover(fewer, threshold)
        # with one share more, freely chosen, the same shares give any other secret: they say nothing of it
        other = data.draw(st.integers(0, shamir.PRIME - 1))
        free = chosen[threshold - 1]
        at_zero = shamir.recover({**fewer, free: field(0)}, threshold)
        step = int.from_bytes(shamir.recover({**fewer, free: field(1)}, threshold), "little")
        slope = (step - int.from_bytes(at_zero, "little")) % shamir.PRIME
        needed = (other - int.from_bytes(at_zero, "little")) * pow(slope, -1, shamir.PRIME) % shamir.PRIME
        assert shamir.recover({**fewer, free: field(needed)}, threshold) == field(other)


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [
        (field(1)[:-1], 1, [1]),
        (shamir.PRIME.to_bytes(32, "little"), 1, [1]),
        (b"\xff" * 32, 1, [1]),
        (field(1), 3, [1, 2]),
        (field(1), 0, [1, 2]),
        (field(1), 2, [1, 1]),
        (field(1), 2, [0, 1]),
    ],
)
def test_what_cannot_be_shared_is_refused(secret, threshold, points) -> None:
    with pytest.raises(SiloBenchError):
        shamir.split(secret, threshold, points, bytes(48 * 3))


def test_shares_need_their_randomness_and_their_field() -> None:
    with pytest.raises(SiloBenchError):
        shamir.split(field(1), 3, [1, 2, 3], bytes(95))
    with pytest.raises(SiloBenchError, match="field"):
        shamir.recover({1: b"\xff" * 32, 2: field(0)}, 2)


def test_packing_by_hand() -> None:
    # 1 + 2 * 2**10 + 3 * 2**20 + 1023 * 2**30 = 0xFFC0300801
    assert packing.pack(np.array([1, 2, 3, 1023], np.uint16), 10) == bytes.fromhex("010830c0ff")


@FEW
@given(st.integers(1, 62), st.integers(0, 300), st.integers(0, 2**32))
def test_packing_is_the_binary_expansion_and_is_undone(bits, count, seed) -> None:
    words = np.random.default_rng(seed).integers(0, 2**bits, count, dtype=np.uint64).astype(packing.dtype_of(bits))
    packed = packing.pack(words, bits)
    number = sum(int(word) << bits * place for place, word in enumerate(words))
    assert packed == number.to_bytes(-(-count * bits // 8), "little")
    np.testing.assert_array_equal(packing.unpack(packed, count, bits), words)


def test_high_bits_are_cut_off() -> None:
    assert packing.pack(np.array([0xFFFF, 0x0401], np.uint16), 10) == packing.pack(np.array([0x3FF, 1], np.uint16), 10)


@pytest.mark.parametrize("bad", [b"", bytes(3), bytes(5), b"\0\0\0\x40", b"\0\0\0\x80"])
def test_what_is_no_packing_is_refused(bad) -> None:
    assert packing.unpack(b"\0\0\0\x3f", 3, 10)[2] == 0x3F0
    with pytest.raises(SiloBenchError):
        packing.unpack(bad, 3, 10)


@FEW
@given(st.integers(1, 62), st.integers(0, 2**32))
def test_centred_values_are_the_nearest_representatives(bits, seed) -> None:
    words = np.random.default_rng(seed).integers(0, 2**bits, 20, dtype=np.uint64).astype(packing.dtype_of(bits))
    for word, value in zip(words, packing.centred(words, bits), strict=True):
        assert (int(value) - int(word)) % 2**bits == 0
        assert -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


@pytest.mark.parametrize(
    ("silos", "levels", "bits"),
    [(3, 127, 10), (2, 127, 9), (4, 127, 10), (5, 127, 11), (20, 127, 13), (3, 1, 3), (2, 1, 3)],
)
def test_modulus_by_hand(silos, levels, bits) -> None:
    assert modulus_bits(silos, levels) == bits


@FEW
@given(st.integers(2, 10_000), st.integers(2, 24))
def test_the_modulus_is_the_least_that_holds_every_sum(silos, bits) -> None:
    sums = 2 * silos * (2 ** (bits - 1) - 1) + 1
    width = modulus_bits(silos, 2 ** (bits - 1) - 1)
    assert 2 ** (width - 1) < sums <= 2**width


def test_frames_hold_at_most_a_mebibyte_and_begin_at_a_block() -> None:
    for bits in range(1, 63):
        full = packing.per_frame(bits)
        assert full % 1024 == 0
        assert packing.packed_size(full, bits) <= 2**20 < packing.packed_size(full + 1024, bits)
        assert sum(packing.frame_sizes(3 * full + 7, bits)) == 3 * full + 7


@FEW
@given(
    st.sampled_from([3, 8, 10, 16, 17, 33, 62]),
    st.integers(0, 9),
    st.integers(1, 100),
    st.binary(min_size=32, max_size=32),
)
def test_a_mask_is_a_key_stream_from_any_block_on(bits, block, count, key) -> None:
    whole = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * (16 * block + count)))
    words = np.frombuffer(whole[: len(whole) // 8 * 8], packing.dtype_of(bits))
    start = 16 * block
    np.testing.assert_array_equal(masks.stream(key, start, count, bits), words[start : start + count])
    values = np.arange(count).astype(packing.dtype_of(bits))
    mixed = values.copy()
    masks.apply(mixed, [Mask(key), Mask(key[::-1], minus=True)], start, bits)
    assert count < 20 or not np.array_equal(mixed, values)
    masks.apply(mixed, [Mask(key).opposite, Mask(key[::-1])], start, bits)
    np.testing.assert_array_equal(mixed, values)


def test_masks_start_at_blocks_only() -> None:
    with pytest.raises(ValueError, match="block"):
        masks.stream(bytes(32), 3, 5, 10)


def test_agreed_keys_are_hkdf_of_x25519_and_differ_by_use() -> None:
    one, other = b"\x01" * 32, b"\x02" * 32
    theirs = primitives.agreement_public(other)
    shared = X25519PrivateKey.from_private_bytes(one).exchange(X25519PublicKey.from_public_bytes(theirs))
    pseudorandom = hmac.digest(b"salt" * 8, shared, hashlib.sha256)
    expected = hmac.digest(pseudorandom, b"info" + b"\x01", hashlib.sha256)
    assert primitives.agree(one, theirs, b"salt" * 8, b"info") == expected
    assert primitives.agree(other, primitives.agreement_public(one), b"salt" * 8, b"info") == expected
    assert primitives.agree(one, theirs, b"salt" * 8, b"more") != expected
    assert primitives.agree(one, theirs, b"pepper" * 5, b"info") != expected


@pytest.mark.parametrize("bad", [bytes(32), b"\x01" + bytes(31), bytes(31), b""])
def test_keys_of_small_order_and_no_keys_are_refused(bad) -> None:
    with pytest.raises(SiloBenchError, match="key agreement"):
        primitives.agree(b"\x01" * 32, bad, bytes(32), b"")


def test_contexts_can_not_be_confused() -> None:
    assert primitives.context("ab", "c") != primitives.context("a", "bc")
    assert primitives.context("a", 1) != primitives.context("a", 2)
    assert primitives.context("a") != primitives.context("a", "")


@FEW
@given(st.integers(0, 8 * 80 - 1))
def test_sealed_shares_open_only_unchanged_and_about_the_same(bit) -> None:
    key = bytes(range(32))
    sealed = primitives.seal(key, b"s" * 64, b"about")
    assert len(sealed) == 80
    assert primitives.unseal(key, sealed, b"about") == b"s" * 64
    assert primitives.unseal(key, sealed, b"other") is None
    bad = (int.from_bytes(sealed, "big") ^ 1 << bit).to_bytes(80, "big")
    assert primitives.unseal(key, bad, b"about") is None
    assert primitives.unseal(key, sealed[: bit // 8], b"about") is None


def test_signatures_hold_for_one_key_and_statement() -> None:
    key = bytes(range(32))
    signature = primitives.sign(key, b"yes")
    public = primitives.signing_public(key)
    assert primitives.verify(public, b"yes", signature)
    assert not primitives.verify(public, b"no", signature)
    assert not primitives.verify(primitives.signing_public(bytes(32)), b"yes", signature)
    assert not primitives.verify(b"short", b"yes", signature)
    assert not primitives.verify(public, b"yes", b"")


@FEW
@given(st.sets(st.integers(0, 40)), st.integers(1, 41))
def test_sets_are_bit_maps(chosen, count) -> None:
    silos = tuple(f"silo-{i}" for i in range(count))
    members = tuple(f"silo-{i}" for i in sorted(chosen) if i < count)
    encoded = wire.encode_set(members, silos)
    assert encoded == sum(2**i for i in chosen if i < count).to_bytes(-(-count // 8), "little")
    assert wire.decode_set(encoded, silos) == members


@pytest.mark.parametrize("bad", [b"", b"\x07\x00", b"\x08", b"\xff"])
def test_sets_of_others_are_refused(bad) -> None:
    with pytest.raises(SiloBenchError):
        wire.decode_set(bad, ("silo-0", "silo-1", "silo-2"))


@pytest.mark.parametrize(
    ("policy", "silos", "threshold", "minimum"),
    [
        (Policy(), 2, 2, 2),
        (Policy(), 3, 2, 2),
        (Policy(), 4, 3, 3),
        (Policy(), 10, 6, 6),
        (Policy(colluders=1), 3, 2, 3),
        (Policy(colluders=3), 5, 4, 5),
        (Policy(threshold=2), 10, 2, 2),
        (Policy("active"), 2, 2, 2),
        (Policy("active"), 3, 2, 2),
        (Policy("active", colluders=1), 3, 3, 3),
        (Policy("active", colluders=3), 10, 7, 7),
        (Policy("active", threshold=4), 6, 4, 4),
    ],
)
def test_limits(policy, silos, threshold, minimum) -> None:
    limits = policy.limits(silos)
    assert (limits.threshold, limits.minimum) == (threshold, minimum)
    assert threshold > policy.colluders
    assert policy.setting == "curious" or 2 * threshold > silos + policy.colluders


@pytest.mark.parametrize(
    ("policy", "silos"),
    [
        (Policy(), 1),
        (Policy(colluders=1), 2),
        (Policy(threshold=4), 3),
        (Policy(threshold=1), 3),
        (Policy(threshold=2, colluders=2), 6),
        (Policy("active", threshold=3), 6),
        (Policy("active", threshold=4, colluders=2), 6),
    ],
)
def test_settings_that_protect_nothing_are_refused(policy, silos) -> None:
    with pytest.raises(UsageError):
        policy.limits(silos)
