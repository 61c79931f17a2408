"""The parts of the key recovery against independent formulas, and against bytes that somebody tampered with."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.ckks import blobs, exact, recovery, report
from attacks.ckks.field import Field
from attacks.ckks.frames import cuts
from attacks.ckks.published import Precision, Published, Round, rounds, spacing
from attacks.ckks.secret import opened, read, solve
from attacks.ckks.slots import Slots
from bench.core.errors import CannotOpen
from bench.core.frames import encode_adapter
from bench.core.update import Layout
from bench.defense.channel import Knowledge
from bench.defense.public import Public, alike
from tests.view.synthetic import _Held as Held

N = 8192


@pytest.fixture(scope="module")
def sealed() -> dict[str, Any]:
    """Two ciphertexts of a sum of two, as published, what they decrypt to, and one upload."""
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, N, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1)
    context.global_scale = 2.0**40
    rng = np.random.default_rng(3)
    values = rng.normal(0, 0.02, (2, 2, N // 2))
    uploads = [[ts.ckks_vector(context, v) for v in one] for one in values]
    means = [(a + b) * 0.5 for a, b in zip(*uploads, strict=True)]
    return {
        "context": context.serialize(save_secret_key=False, save_galois_keys=False, save_relin_keys=False),
        "means": [m.serialize() for m in means],
        "decrypted": [np.array(m.decrypt()) for m in means],
        "upload": uploads[0][0].serialize(),
        "values": values[0, 0],
    }


@pytest.fixture(scope="module")
def scheme(sealed: dict[str, Any]) -> blobs.Scheme:
    return blobs.scheme_of(sealed["context"])


@pytest.fixture(scope="module")
def field(scheme: blobs.Scheme) -> Field:
    return Field(scheme.primes[0], N)


def test_parameters_are_read_from_a_public_context(scheme: blobs.Scheme) -> None:
    assert scheme.degree == N
    assert [q.bit_length() for q in scheme.primes] == [60, 40, 40, 60]
    assert scheme.scale == 2.0**40
    assert (scheme.slots, scheme.fresh) == (4096, 3)


def known(sealed: dict[str, Any], scheme: blobs.Scheme) -> list[tuple[blobs.Ciphertext, Any]]:
    """(ciphertext, x): a decryption is what its plaintext's slots are worth in units of the label."""
    slots = Slots(N)
    return [
        (blobs.vector(m, scheme), exact.integers(slots, d * scheme.scale, np.full(N // 2, 0.01)))
        for m, d in zip(sealed["means"], sealed["decrypted"], strict=True)
    ]


def test_two_sums_give_the_key_and_the_key_every_ciphertext(
    sealed: dict[str, Any], scheme: blobs.Scheme, field: Field
) -> None:
    slots, pair = Slots(N), known(sealed, scheme)
    key = solve(field, slots, (pair[0], pair[1]))
    assert set(np.unique(field.centred(field.back(key)))) == {-1, 0, 1}
    # the key decrypts to the integers that it was got from, and opens what it was not got from
    for ciphertext, x in pair:
        np.testing.assert_array_equal(slots.folded(opened(field, ciphertext, key)), x)
    upload = blobs.vector(sealed["upload"], scheme)
    np.testing.assert_allclose(read(field, slots, upload, key) / upload.scale, sealed["values"], atol=1e-7)


@pytest.mark.parametrize("place", [0, 1, 2047, 4095])
def test_one_wrong_integer_gives_no_key(sealed: dict[str, Any], scheme: blobs.Scheme, field: Field, place: int) -> None:
    (a, x), (b, y) = known(sealed, scheme)
    x = x.copy()
    x[place] += 1
    with pytest.raises(CannotOpen, match="no ternary key"):
        solve(field, Slots(N), ((a, x), (b, y)))
    with pytest.raises(CannotOpen, match="dependent"):
        solve(field, Slots(N), ((b, y), (b, y)))


# -- bytes from somebody else ------------------------------------------------------------------------------------------


def damaged(frame: bytes) -> Iterator[bytes]:
    """Cut short, lengthened, and altered at many places."""
    rng = np.random.default_rng(0)
    for cut in (0, 1, 5, 20, 37, 100, len(frame) // 2, len(frame) - 1):
        yield frame[:cut]
    yield frame + b"x"
    for at in [*range(0, 60), *rng.integers(60, len(frame), 60).tolist()]:
        yield frame[:at] + bytes([frame[at] ^ int(rng.integers(1, 256))]) + frame[at + 1 :]
    yield rng.bytes(len(frame))


@pytest.mark.parametrize("which", ["context", "upload"])
def test_damaged_bytes_open_nothing_and_break_nothing(sealed: dict[str, Any], scheme: blobs.Scheme, which: str) -> None:
    refused = 0
    for frame in damaged(sealed[which]):
        try:
            if which == "context":
                assert blobs.scheme_of(frame).degree <= 32768
            else:
                ciphertext = blobs.vector(frame, scheme)
                assert ciphertext.words.shape == (2, N)
                assert int(ciphertext.words.max()) < scheme.primes[0]
        except CannotOpen:
            refused += 1
    assert refused > 20


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused(data: bytes) -> None:
    scheme = blobs.Scheme(N, (2**60 - 2**14 * 25 + 1, 2**40 - 147455), 2.0**40)
    for parse in (
        lambda: blobs.scheme_of(data),
        lambda: blobs.vector(data, scheme),
        lambda: blobs.packed(data, scheme),
    ):
        with pytest.raises(CannotOpen):
            parse()


def test_a_blob_that_unpacks_to_gigabytes_is_not_unpacked(scheme: blobs.Scheme) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**26))
    blob = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 1, 2, 0, 16 + len(bomb)) + bomb
    frame = b"\x0a\x02\x80\x20" + b"\x12" + varint(len(blob)) + blob
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(CannotOpen, match="unpacks to more"):
        blobs.vector(frame, scheme)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_hostile_messages_end_in_a_reason(sealed: dict[str, Any], scheme: blobs.Scheme) -> None:
    layout = Layout(("a", "b"), ((4096,), (4096,)))
    public = Public(alike(layout), ("silo-0", "silo-1"), {"silo-0": 1, "silo-1": 1}, 1, (("silo-0", "silo-1"),))
    rng = np.random.default_rng(1)
    release = Held(0, "release", "server", ("public",), tuple(encode_adapter(rng.normal(size=8192), "float64")))
    header = b'["silo-0","silo-1"]'

    def reason(*frames: bytes, release: Held = release) -> str:
        total = Held(0, "sum", "server", ("silo-0",), frames)
        keys = {"server": {"public": np.frombuffer(sealed["context"], np.uint8)}}
        knowledge: Any = Knowledge(frozenset({"server"}), public, (total, release), keys, {})
        with pytest.raises(recovery.NotFound) as caught:
            recovery.recover(knowledge)
        return str(caught.value)

    mean = sealed["means"][0]
    assert "no CKKS" not in reason(header, b"{}", mean, mean)
    assert "averaged as published" in reason(header, b"{}", *sealed["means"])
    for bad in ((), (b"[",), (header,), (header, b"{}"), (header, b"{}", b"", b""), (header, b"{}", mean[:-30], mean)):
        assert "no sum is made of CKKS" in reason(*bad)
    assert reason(header, b"{}", mean, mean[:-30])
    short = Held(0, "release", "server", ("public",), tuple(encode_adapter(rng.normal(size=5), "float64")))
    nan = Held(0, "release", "server", ("public",), tuple(encode_adapter(np.full(8192, np.nan), "float64")))
    for unfit in (short, nan, Held(0, "release", "server", ("public",), (b"SBV1",))):
        assert "no average" in reason(header, b"{}", *sealed["means"], release=unfit)


# -- arithmetic --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**61), min_size=8, max_size=8), st.sampled_from([(2**60 - 2**14 * 25 + 1, 8), (97, 8)]))
@settings(max_examples=60, deadline=None)
def test_arithmetic_is_that_of_integers(numbers: list[int], where: tuple[int, int]) -> None:
    q, degree = where
    q = q if q == 97 else 1152921504606748673
    field = Field(q, degree)
    a = np.array([n % q for n in numbers], dtype=np.uint64)
    b = a[::-1].copy()
    left, right = a.tolist(), b.tolist()
    assert field.product(a, b).tolist() == [x * y % q for x, y in zip(left, right, strict=True)]
    assert field.plus(a, b).tolist() == [(x + y) % q for x, y in zip(left, right, strict=True)]
    assert field.minus(a, b).tolist() == [(x - y) % q for x, y in zip(left, right, strict=True)]
    assert field.product(a, field.inverse(a)).tolist() == [int(x > 0) for x in left]
    assert field.back(field.transform(a)).tolist() == left
    # products of values are products of polynomials modulo X^N + 1
    by_hand = [0] * degree
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            sign = 1 if i + j < degree else -1
            by_hand[(i + j) % degree] = (by_hand[(i + j) % degree] + sign * x * y) % q
    assert field.back(field.product(field.transform(a), field.transform(b))).tolist() == by_hand
    # reversing the values turns M(X) into M(1/X), and 1/X = -X^(N-1)
    mirrored = [left[0], *(-x % q for x in left[:0:-1])]
    assert field.back(field.transform(a)[::-1].copy()).tolist() == mirrored


def test_a_modulus_that_is_no_such_prime_is_refused() -> None:
    for q in (2**61 - 1, 4, 2**64 + 1, 3 * 2**20 * 8192 + 1):
        with pytest.raises(CannotOpen):
            Field(q, N)


def test_slots_are_the_values_at_powers_of_the_root() -> None:
    slots = Slots(16)
    rng = np.random.default_rng(0)
    m = rng.integers(-50, 50, 16)
    root = np.exp(1j * np.pi / 16)
    by_hand = [np.polyval(m[::-1], root ** pow(3, j, 32)).real for j in range(8)]
    np.testing.assert_allclose(slots.read(m), by_hand, atol=1e-10)
    x = slots.folded(m)
    mirrored = np.concatenate([[m[0]], -m[:0:-1]])
    np.testing.assert_array_equal(slots.unfolded(x), m + mirrored)
    np.testing.assert_allclose(slots.solve(slots.values(x)), x, atol=1e-10)
    np.testing.assert_allclose(slots.solve(slots.by_angle(np.array(by_hand))), x, atol=1e-10)


# -- integers behind rounded values ------------------------------------------------------------------------------------


def blurred(deviation: float, seed: int, degree: int = 2048, spread: bool = True) -> tuple[Slots, Any, Any, Any]:
    """(slots, x, values, errors) whose coefficients are known to ``deviation``, unevenly by slot."""
    slots, rng = Slots(degree), np.random.default_rng(seed)
    x = np.rint(rng.normal(0, 1e6, degree // 2)).astype(np.int64)
    errors = np.abs(rng.normal(size=degree // 2)) if spread else np.ones(degree // 2)
    errors *= deviation / exact.deviation(errors)
    exact_values = slots.values(x)[slots._angles]
    return slots, x, exact_values + errors * rng.uniform(-(3**0.5), 3**0.5, degree // 2), errors


@pytest.mark.parametrize("deviation", [0.01, 0.1, 0.17])
def test_integers_are_found_beyond_what_rounding_gives(deviation: float) -> None:
    wrong = 0
    for seed in range(4):
        slots, x, values, errors = blurred(deviation, seed)
        np.testing.assert_array_equal(exact.integers(slots, values, errors), x)
        wrong += int((np.rint(slots.solve(slots.by_angle(values))) != x).sum())
        assert exact.looks_whole(slots, values)
    assert (wrong > 0) == (deviation > 0.15)


def test_what_is_not_known_is_not_guessed() -> None:
    for deviation, spread in ((0.3, True), (5.0, True), (0.22, False)):
        slots, _, values, errors = blurred(deviation, 0, spread=spread)
        with pytest.raises(CannotOpen):
            exact.integers(slots, values, errors)
    # errors larger than stated are noticed
    slots, _, values, errors = blurred(0.1, 0)
    with pytest.raises(CannotOpen, match="do not explain"):
        exact.integers(slots, values, errors / 3)
    assert not exact.looks_whole(slots, np.random.default_rng(0).normal(0, 1e6, 1024))


# -- what is published -------------------------------------------------------------------------------------------------


def test_spacing_and_errors_by_precision() -> None:
    values = np.array([1.0, -0.75, 0.0])
    np.testing.assert_array_equal(spacing(values, "float64")[:2], [2.0**-52, 2.0**-53])
    np.testing.assert_array_equal(spacing(values, "float32")[:2], [2.0**-23, 2.0**-24])
    np.testing.assert_array_equal(spacing(values, "bfloat16")[:2], [2.0**-7, 2.0**-8])
    np.testing.assert_array_equal(spacing(values, "float16"), [2.0**-10, 2.0**-11, 2.0**-24])
    here = Round(Published(values, "bfloat16"), Published(values, "bfloat16"))
    np.testing.assert_allclose(here.errors("weights")[0], 2.0**-7 / 12**0.5)
    np.testing.assert_allclose(here.errors("updates")[0], 2.0**-7 / 6**0.5)
    # a start that trained on in float32 was published whole
    fine = Round(Published(values, "float32"), Published(values, "float32"))
    np.testing.assert_allclose(fine.errors("updates")[0], 2.0**-23 / 12**0.5)
    assert Round(fine.after, None).mean("updates") is None


def test_the_start_of_a_round_is_what_was_broadcast_or_released_before() -> None:
    layout = Layout(("a",), ((3,),))
    public = Public(alike(layout), ("silo-0",), {"silo-0": 1}, 3, (("silo-0",),) * 3)
    values = [np.array([1 / 3, 2.0, -3.0]) * k for k in (1, 2, 3)]
    messages = [Held(0, "broadcast", "server", ("silo-0",), tuple(encode_adapter(values[0], "float32")))]
    messages += [Held(r, "release", "server", ("public",), tuple(encode_adapter(values[r], "float64"))) for r in (0, 1)]
    knowledge: Any = Knowledge(frozenset({"server"}), public, messages, {}, {})
    found = rounds(knowledge)
    assert list(found) == [0, 1]
    for number, start in ((0, values[0]), (1, values[0])):
        before = found[number].before
        assert before is not None
        np.testing.assert_array_equal(before.values, start.astype(np.float32))
    np.testing.assert_array_equal(found[1].after.values, values[1])
    assert found[1].after.precision == "float64"


def test_cuts_by_tensor_and_in_a_row() -> None:
    layout = Layout(("a", "b"), ((5,), (3,)))
    by_tensor, in_a_row = cuts(layout, 4)
    assert [(s.start, s.stop) for s in by_tensor] == [(0, 4), (4, 5), (5, 8)]
    assert [(s.start, s.stop) for s in in_a_row] == [(0, 4), (4, 8)]
    assert len(cuts(Layout(("a",), ((8,),)), 4)) == 1


def test_packed_words_are_read_bit_by_bit() -> None:
    degree, q = 1024, 68719403009  # the prime of 36 bits that SEAL takes at N = 4096; 1 modulo 2048 as well
    scheme = blobs.Scheme(degree, (q, 1032193), 2.0**25)
    words = np.random.default_rng(0).integers(0, q, (2, degree), dtype=np.uint64)
    number = sum(int(word) << (36 * i) for i, word in enumerate(words.ravel().tolist()))
    frame = number.to_bytes(2 * degree * 36 // 8, "little")
    np.testing.assert_array_equal(blobs.packed(frame, scheme).words, words)
    for bad in (frame[:-1], b"\xff" * len(frame)):
        with pytest.raises(CannotOpen):
            blobs.packed(bad, scheme)
    with pytest.raises(CannotOpen):
        blobs.packed(frame, replace(scheme, primes=(q, q, 1032193)))


def test_the_verdict_in_words() -> None:
    left: dict[Precision, float] = {"float64": 1e-9, "float32": 0.5, "bfloat16": 900.0, "float16": 40.0}
    said = report.sentence(left)
    assert "1e-09 at float64, 0.5 at float32, 9e+02 at bfloat16, 40 at float16" in said
    assert "releases at float32, bfloat16 and float16 are out of its reach, which is no proof" in said
    assert "no precision on offer is out" in report.sentence(dict.fromkeys(left, 0.1))


def test_parameters_are_read_of_a_context_with_all_its_keys() -> None:
    """Rotation keys make a context of tens of megabytes, which a coalition may hold or be sent like a small one."""
    import tenseal as ts

    made = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60])
    made.global_scale = 2**40
    made.generate_galois_keys()
    raw = made.serialize(save_public_key=True, save_secret_key=False, save_galois_keys=True)
    assert len(raw) > 4 * 2**20
    sent: Any = Held(-1, "keys", "dealer", ("silo-0",), (raw,))
    public: Any = None
    knowledge: Any = Knowledge(frozenset({"silo-0"}), public, (sent,), {}, {})
    assert [scheme.degree for scheme in recovery.schemes(knowledge)] == [8192]
