"""SEAL's contexts and ciphertexts as bytes of fixed form, through TenSEAL.

A ciphertext travels as the coefficients of its two polynomials and nothing else, packed, ``data_bits`` bits each.
SEAL's own serialisation stores 64-bit words under zstd, which random words of 36 bits do not take well (5.7 bytes
instead of 4.5), and metadata that a receiver would have to believe: which level, which scale, how many values. Here
they follow from the parameters, and a frame of another length or with a coefficient not below q is refused.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError, raising
from defenses.channels.seal_parameters import SPECIAL_BITS, Parameters
from defenses.channels.secagg.packing import Words, unpack
from defenses.channels.secagg.packing import pack as pack_words

_MAX_CONTEXT = 4 * 2**20
_SEAL_MAGIC = b"\x5e\xa1\x10"
_SEAL_HEADER = 16


def new_context(parameters: Parameters) -> Any:
    """A TenSEAL context with fresh keys, drawn by SEAL from the operating system; sums need no evaluation keys."""
    import tenseal as ts
    from tenseal.sealapi import PlainModulus

    kind = ts.ENCRYPTION_TYPE.SYMMETRIC if parameters.symmetric else ts.ENCRYPTION_TYPE.ASYMMETRIC
    bits = [parameters.data_bits, SPECIAL_BITS]
    common = {"coeff_mod_bit_sizes": bits, "encryption_type": kind, "n_threads": 1}
    if parameters.scheme == "bfv":
        plain = int(PlainModulus.Batching(parameters.degree, parameters.plain_bits).value())
        return ts.context(ts.SCHEME_TYPE.BFV, parameters.degree, plain, **common)
    context = ts.context(ts.SCHEME_TYPE.CKKS, parameters.degree, **common)
    context.global_scale = 2.0**parameters.scale_bits
    return context


def save_context(context: Any, parameters: Parameters, secret: bool) -> bytes:
    """With the secret key, or with the public one where there is one (a symmetric context has parameters only)."""
    return saved(context, secret, public=not parameters.symmetric)


def saved(context: Any, secret: bool, public: bool = True) -> bytes:
    """No Galois and no relinearisation keys: sums and a plaintext factor use neither."""
    evaluation = {"save_galois_keys": False, "save_relin_keys": False}
    raw: bytes = context.serialize(save_secret_key=secret, save_public_key=public, **evaluation)
    return raw


def _shape(context: Any) -> tuple[int, int, int, int]:
    """(q, special prime, plain modulus or 0, degree)."""
    import tenseal.sealapi  # noqa: F401 - makes SEAL's parameters readable from Python

    found = context.seal_context().data.key_context_data().parms()
    data, special = (int(prime.value()) for prime in found.coeff_modulus())
    return data, special, int(found.plain_modulus().value()), int(found.poly_modulus_degree())


class Codec:
    """Keys and ciphertexts of one parameter set as bytes. ``plain_modulus``: BFV's t, a prime (0 for CKKS).

    What surrounds the coefficients is learnt from a ciphertext of its own, made under a key that is thrown away, so
    that it is what the SEAL at hand writes."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        context = new_context(parameters)
        self._shape = _shape(context)
        self._q, _, self.plain_modulus, _ = self._shape
        words = 16 * parameters.degree
        self._head, blob, self._tail = _split(encrypt(context, parameters, np.zeros(parameters.slots)).serialize())
        plain = _inflate(blob, words + 4096)
        self._around = plain[: len(plain) - words]
        # no compression, and the length of what follows
        size = _SEAL_HEADER + len(plain)
        self._before = self._head + _varint(size) + blob[:5] + bytes(3) + struct.pack("<Q", size) + self._around

    def load_context(self, raw: bytes) -> Any:
        """The inverse of ``save_context``. Raises SiloBenchError on bad bytes and on other parameters than these."""
        import tenseal as ts

        if len(raw) > _MAX_CONTEXT:
            raise SiloBenchError(f"a key of {len(raw)} bytes is no key of this channel")
        bfv = self.parameters.scheme == "bfv"
        with raising(SiloBenchError, "a key is malformed"):
            context = ts.context_from(raw, n_threads=1)
            fits = _shape(context) == self._shape
            fits = fits and (bfv or context.global_scale == 2.0**self.parameters.scale_bits)
        if not fits:
            raise SiloBenchError("a key has other parameters than this channel's for so many silos")
        return context

    def pack(self, vector: Any) -> bytes:
        """A vector of one ciphertext as a frame. Raises SiloBenchError where it is of another form."""
        head, blob, tail = _split(vector.serialize())
        plain = _inflate(blob, len(self._around) + 16 * self.parameters.degree)
        around = plain[: len(self._around)]
        if (head, tail, around) != (self._head, self._tail, self._around):
            raise SiloBenchError("a ciphertext has another form than this channel's")
        words = np.frombuffer(plain, dtype="<u8", offset=len(around))
        if len(words) != 2 * self.parameters.degree:
            raise SiloBenchError("a ciphertext has another number of coefficients than this channel's")
        return pack_words(words, self.parameters.data_bits)

    def unpack(self, context: Any, frame: bytes) -> Any:
        """A frame as a TenSEAL vector under ``context``. Raises SiloBenchError on anything that is no ciphertext."""
        import tenseal as ts

        if len(frame) != self.parameters.frame:
            raise SiloBenchError(f"a frame of {len(frame)} bytes is no ciphertext, which has {self.parameters.frame}")
        words = unpack_words(frame, self.parameters.data_bits)
        if int(words.max()) >= self._q:
            raise SiloBenchError("a frame holds a coefficient that is not below the modulus")
        load = ts.bfv_vector_from if self.parameters.scheme == "bfv" else ts.ckks_vector_from
        with raising(SiloBenchError, "a frame is no ciphertext"):
            vector = load(context, self._before + words.tobytes() + self._tail)
            vector.size()  # TenSEAL loads when first asked
        return vector


def encrypt(context: Any, parameters: Parameters, values: NDArray[Any]) -> Any:
    """A vector of one ciphertext, from as many numbers as it has slots. Raises SiloBenchError."""
    import tenseal as ts

    with raising(SiloBenchError, "an update can't be encrypted with the key at hand"):
        if parameters.scheme == "bfv":
            return ts.bfv_vector(context, values.astype(np.int64).tolist())
        return ts.ckks_vector(context, values.astype(np.float64))


def unpack_words(packed: bytes, bits: int) -> Words:
    """All words of ``bits`` that were packed: as 64-bit ones, which SEAL has."""
    return unpack(packed, 8 * len(packed) // bits, bits).astype("<u8")


def _split(serialised: bytes) -> tuple[bytes, bytes, bytes]:
    """TenSEAL's message of a vector of one ciphertext: what precedes the ciphertext's length, the ciphertext as SEAL
    wrote it, what follows. Only for bytes that TenSEAL has just made here."""
    start = serialised.find(_SEAL_MAGIC, 0, 64)
    size = int.from_bytes(serialised[start + 8 : start + _SEAL_HEADER], "little")
    length = _varint(size)
    if start < 0 or serialised[start - len(length) : start] != length:
        raise SiloBenchError("this TenSEAL writes ciphertexts in an unknown form")
    return serialised[: start - len(length)], serialised[start : start + size], serialised[start + size :]


def _inflate(blob: bytes, limit: int) -> bytes:
    """The body of what SEAL wrote, compressed or not."""
    import zstandard

    if blob[5] == 0:
        return blob[_SEAL_HEADER:]
    with raising(SiloBenchError, "this SEAL compresses ciphertexts in an unknown form", zstandard.ZstdError):
        plain: bytes = zstandard.ZstdDecompressor().decompress(blob[_SEAL_HEADER:], max_output_size=limit)
    return plain


def _varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
