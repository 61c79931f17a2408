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
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Form, Layout, Update
from bench.defense.public import Public
from bench.defense.sum_channel import SumChannel

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
_CACHED_CONTEXTS = 2


@dataclass
class _Sum:
    """A running sum: the ciphertext, changed in place, and how many were added."""

    vector: Any
    count: int


class CKKS(SumChannel):
    """``key_holder="silos"``: every silo holds the secret key, the server the public one, and the silos open the sum.
    ``key_holder="server"``: the reverse, as the published code has it."""

    dealt = True
    #: measured: below 1e-8 per summed silo, whatever the values' size (up to 50): the largest of 4,096 was 2.8e-7 with
    #: 30 silos, and comes near this bound, or just over it, with 100
    error = 1e-6

    def __init__(self, key_holder: Literal["silos", "server"] = "silos") -> None:
        self.opener = key_holder
        # parsing a context takes 40 ms and every frame needs one; a federation has two (secret and public)
        self._contexts: list[tuple[bytes, Any]] = []

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        """One key pair. No Galois and no relinearisation keys: sums and a plaintext factor use neither."""
        import tenseal as ts

        context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            poly_modulus_degree=DEGREE,
            coeff_mod_bit_sizes=list(COEFFICIENT_BITS),
            n_threads=1,
        )
        context.global_scale = SCALE
        parts = {"save_galois_keys": False, "save_relin_keys": False}
        private = {"secret": context.serialize(save_secret_key=True, **parts)}
        open_to_all = {"public": context.serialize(save_secret_key=False, **parts)}
        holders = {SERVER} if self.opener == "server" else set(public.silos)
        return {party: private if party in holders else open_to_all for party in (*public.silos, SERVER)}

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        """One frame per ciphertext. Raises SiloBenchError for values that are not real, dense and finite."""
        import tenseal as ts

        if update.grid is not None or update.support is not None:
            raise SiloBenchError("the CKKS channel takes dense real updates only")
        if not np.isfinite(update.values).all():
            raise SiloBenchError("an update holds values that are not finite; the CKKS channel can't encrypt it")
        context = self._context(keys)
        for span in _spans(update.layout):
            yield ts.ckks_vector(context, update.values[span]).serialize()

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        vector = _parse(self._context(keys), frame)
        if total is None:
            return _Sum(vector, 1)
        if not isinstance(total, _Sum):
            raise SiloBenchError("this sum was not started by the CKKS channel")
        # TenSEAL spreads a vector of one value over a longer one: lengths are ours to compare
        if vector.size() != total.vector.size():
            raise SiloBenchError(f"a ciphertext of {vector.size()} values can't be added to {total.vector.size()}")
        try:
            total.vector += vector
        except Exception as error:
            raise SiloBenchError(f"a ciphertext can't be added: {error}") from None
        total.count += 1
        return total

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        """The mean, as published: the sum times 1/n, rescaled, hence of two primes instead of three."""
        if not isinstance(total, _Sum):
            raise SiloBenchError("there is nothing to finish: no ciphertext was added")
        try:
            mean: bytes = (total.vector * (1.0 / total.count)).serialize()
        except Exception as error:
            raise SiloBenchError(f"the encrypted mean can't be taken: {error}") from None
        return mean

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        try:
            context = self._context(keys)
        except SiloBenchError as error:
            raise CannotOpen(str(error)) from None
        if form.grid is not None or form.support is not None:
            raise CannotOpen("the header names values on a grid or a support, which this channel never sends")
        factor = count * (RESCALE_PRIME / SCALE) if count else 1.0
        values = np.empty(form.count, dtype=np.float64)
        for span in _spans(form.layout):
            frame = next(frames, None)
            if frame is None:
                raise CannotOpen("there are fewer ciphertexts than the adapter needs")
            values[span] = _decrypt(context, frame, span.stop - span.start)
        if next(frames, None) is not None:
            raise CannotOpen("there are more ciphertexts than the adapter needs")
        values *= factor
        return values

    def _context(self, keys: Mapping[str, bytes]) -> Any:
        raw = keys.get("secret") or keys.get("public")
        if raw is None:
            raise SiloBenchError("no key of the CKKS channel has arrived")
        for known, context in self._contexts:
            if known == raw:
                return context
        context = _load_context(raw)
        self._contexts = [*self._contexts, (raw, context)][-_CACHED_CONTEXTS:]
        return context


def _spans(layout: Layout) -> Iterator[slice]:
    """The values of each ciphertext: tensors in order, each cut every ``SLOTS`` values."""
    for first, last in zip(layout.offsets, layout.offsets[1:], strict=False):
        for start in range(first, last, SLOTS):
            yield slice(start, min(start + SLOTS, last))


def _load_context(raw: bytes) -> Any:
    import tenseal as ts
    import tenseal.sealapi  # makes SEAL's parameters readable from Python

    if len(raw) > _MAX_CONTEXT:
        raise SiloBenchError(f"a key of {len(raw)} bytes is no key of the CKKS channel")
    try:
        context = ts.context_from(raw, n_threads=1)
        parameters = context.seal_context().data.key_context_data().parms()
        moduli = tuple(int(prime.value()).bit_length() for prime in parameters.coeff_modulus())
        found = (parameters.poly_modulus_degree(), moduli, context.global_scale, context.has_public_key())
    except Exception as error:
        raise SiloBenchError(f"a key of the CKKS channel is malformed: {error}") from None
    if found != (DEGREE, COEFFICIENT_BITS, SCALE, True):
        raise SiloBenchError("a key of the CKKS channel has other parameters than the published ones")
    return context


def _parse(context: Any, frame: bytes) -> Any:
    """A frame as a vector of one ciphertext. Raises SiloBenchError on anything else."""
    import tenseal as ts

    if len(frame) > _MAX_CIPHERTEXT:
        raise SiloBenchError(f"a frame of {len(frame)} bytes is larger than any ciphertext")
    try:
        vector = ts.ckks_vector_from(context, frame)
        size, ciphertexts = vector.size(), len(vector.ciphertext())
    except Exception as error:
        raise SiloBenchError(f"a frame is no ciphertext: {error}") from None
    if ciphertexts != 1 or not 1 <= size <= SLOTS:
        raise SiloBenchError(f"a frame holds {ciphertexts} ciphertexts for {size} values, not one for up to {SLOTS}")
    return vector


def _decrypt(context: Any, frame: bytes, size: int) -> NDArray[np.float64]:
    """The ``size`` values of a frame. Raises CannotOpen."""
    try:
        vector = _parse(context, frame)
        if vector.size() != size:
            raise CannotOpen(f"a ciphertext holds {vector.size()} values instead of {size}")
        values = np.array(vector.decrypt(), dtype=np.float64)
    except CannotOpen:
        raise
    except Exception as error:
        raise CannotOpen(f"a ciphertext can't be decrypted: {error}") from None
    if values.shape != (size,) or not np.isfinite(values).all():
        raise CannotOpen("a ciphertext does not decrypt to finite values")
    return values
