"""Sums under CKKS (Cheon et al. 2017) as FedShield-LLM was published: TenSEAL, N = 8192, coefficient moduli of
60, 40, 40 and 60 bits, scale 2**40, one key pair for all silos, the mean taken under encryption.

A tensor is cut into ciphertexts of N/2 = 4096 values, each its own frame: the ciphertexts, and to the byte nearly the
traffic, of the published ``ckks_vector`` per tensor, without TenSEAL's warning about vectors of several ciphertexts.
Zeros are encrypted like any value, so pruning saves no byte.

Decryptions are approximate and carry the encryption noise: who sees sums of ciphertexts *and* their exact decryptions
can solve for the key (Li and Micciancio 2021, IND-CPA-D). A server that relays the sums and then sees the released
adapter is in that position.

SEAL draws keys and noise from the operating system, also under a ``secret_seed``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError, raising
from bench.core.streams import SecretStreams
from bench.core.update import Form, Layout, Update
from bench.defense.public import Public
from defenses.channels.homomorphic import KeyPairSum, Sum
from defenses.channels.seal_ciphertexts import saved

DEGREE = 8192
COEFFICIENT_BITS = (60, 40, 40, 60)
SCALE = 2.0**40
#: values in one ciphertext
SLOTS = DEGREE // 2
#: SEAL's prime that the rescaling after the multiplication by 1/n divides by. TenSEAL keeps the label ``SCALE``
#: although the scale is then SCALE**2 / RESCALE_PRIME, so what it decrypts is too large by that ratio.
RESCALE_PRIME = 2**40 - 147455
#: 2 polynomials x 3 primes x N x 8 bytes is what a ciphertext holds uncompressed
_MAX_CIPHERTEXT = 2 * 3 * DEGREE * 8 + 4096
_MAX_CONTEXT = 4 * 2**20


class CKKS(KeyPairSum):
    """``key_holder="silos"``: every silo holds the secret key, the server the public one, and the silos open the sum.
    ``key_holder="server"``: the reverse, as the published code has it."""

    name = "the CKKS channel"
    #: measured: below 1e-8 per summed silo, whatever the values' size (up to 50): the largest of 4,096 was 2.8e-7 with
    #: 30 silos, and comes near this bound, or just over it, with 100
    error = 1e-6

    def key_pair(self, public: Public) -> tuple[bytes, bytes]:
        import tenseal as ts

        context = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(COEFFICIENT_BITS), n_threads=1)
        context.global_scale = SCALE
        return saved(context, secret=True), saved(context, secret=False)

    def load(self, raw: bytes) -> Any:
        return _load_context(raw)

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        """One frame per ciphertext. Raises SiloBenchError for values that are not real, dense and finite."""
        import tenseal as ts

        if update.grid is not None or update.support is not None:
            raise SiloBenchError("the CKKS channel takes dense real updates only")
        if not np.isfinite(update.values).all():
            raise SiloBenchError("an update holds values that are not finite; the CKKS channel can't encrypt it")
        context = self.context(keys)
        for span in _spans(update.layout):
            yield ts.ckks_vector(context, update.values[span]).serialize()

    def parse(self, context: Any, frame: bytes) -> Any:
        import tenseal as ts

        if len(frame) > _MAX_CIPHERTEXT:
            raise SiloBenchError(f"a frame of {len(frame)} bytes is larger than any ciphertext")
        with raising(SiloBenchError, "a frame is no ciphertext"):
            vector = ts.ckks_vector_from(context, frame)
            size, ciphertexts = vector.size(), len(vector.ciphertext())
        if ciphertexts != 1 or not 1 <= size <= SLOTS:
            raise SiloBenchError(
                f"a frame holds {ciphertexts} ciphertexts for {size} values, not one for up to {SLOTS}"
            )
        return vector

    def pack(self, total: Sum) -> bytes:
        """The mean, as published: the sum times 1/n, rescaled, hence of two primes instead of three."""
        with raising(SiloBenchError, "the encrypted mean can't be taken"):
            mean: bytes = (total.vector * (1.0 / total.count)).serialize()
        return mean

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        with raising(CannotOpen, of=SiloBenchError):
            context = self.context(keys)
        if form.grid is not None or form.support is not None:
            raise CannotOpen("the header names values on a grid or a support, which this channel never sends")
        factor = count * (RESCALE_PRIME / SCALE) if count else 1.0
        values = np.empty(form.count, dtype=np.float64)
        for span in _spans(form.layout):
            frame = next(frames, None)
            if frame is None:
                raise CannotOpen("there are fewer ciphertexts than the adapter needs")
            values[span] = self._decrypt(context, frame, span.stop - span.start)
        if next(frames, None) is not None:
            raise CannotOpen("there are more ciphertexts than the adapter needs")
        values *= factor
        return values

    def _decrypt(self, context: Any, frame: bytes, size: int) -> NDArray[np.float64]:
        """The ``size`` values of a frame. Raises CannotOpen."""
        with raising(CannotOpen, "a ciphertext can't be decrypted"):
            values = np.array(self.parse(context, frame).decrypt(), dtype=np.float64)
        if values.shape != (size,):
            raise CannotOpen(f"a ciphertext holds {len(values)} values instead of {size}")
        if not np.isfinite(values).all():
            raise CannotOpen("a ciphertext does not decrypt to finite values")
        return values


def _spans(layout: Layout) -> Iterator[slice]:
    """The values of each ciphertext: tensors in order, each cut every ``SLOTS`` values."""
    for first, last in zip(layout.offsets, layout.offsets[1:], strict=False):
        for start in range(first, last, SLOTS):
            yield slice(start, min(start + SLOTS, last))


# parsing a context takes 40 ms and every frame needs one; a federation has two (secret and public)
@lru_cache(maxsize=2)
def _load_context(raw: bytes) -> Any:
    import tenseal as ts
    import tenseal.sealapi  # makes SEAL's parameters readable from Python

    if len(raw) > _MAX_CONTEXT:
        raise SiloBenchError(f"a key of {len(raw)} bytes is no key of the CKKS channel")
    with raising(SiloBenchError, "a key of the CKKS channel is malformed"):
        context = ts.context_from(raw, n_threads=1)
        parameters = context.seal_context().data.key_context_data().parms()
        moduli = tuple(int(prime.value()).bit_length() for prime in parameters.coeff_modulus())
        found = (parameters.poly_modulus_degree(), moduli, context.global_scale, context.has_public_key())
    if found != (DEGREE, COEFFICIENT_BITS, SCALE, True):
        raise SiloBenchError("a key of the CKKS channel has other parameters than the published ones")
    return context
