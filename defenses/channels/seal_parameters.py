"""Parameters of CKKS and BFV sums in SEAL: the smallest that keep a promise, within the table of 128-bit security.

A ciphertext has one data prime q. SEAL wants a second, special prime beside it; fresh public-key ciphertexts are
divided by it once, so that only a rounding error of theirs is left, and nothing else uses it. It is kept small (20
bits): the security estimate counts the product of both.

The noise of one fresh ciphertext, in coefficients, N the degree and s the ternary secret:

    symmetric    e, centred binomial of 42 coins (SEAL's default): |e| <= 21, sub-Gaussian with variance 21/2
    public key   r0 + r1 s, r0 and r1 uniform in [-1/2, 1/2] (the rounding after the division): at most (N + 1) / 2;
                 what is left of the encryption noise itself is at most 21 (2 N + 1) / 2**19 < 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.core.errors import UsageError

#: bits of the whole modulus (data and special prime) that a degree allows at 128-bit security with a ternary secret:
#: the table of the homomorphic encryption standard (Albrecht et al. 2018, table 1), which SEAL enforces
SECURITY = {1024: 27, 2048: 54, 4096: 109, 8192: 218}
SPECIAL_BITS = 20
#: sizes of a data prime: two coefficients fill whole bytes; SEAL's primes have at most 60 bits
DATA_BITS = (32, 36, 40, 44, 48, 52, 56, 60)
#: largest magnitude of a centred binomial noise coefficient, and its variance
NOISE = 21
NOISE_VARIANCE = 21 / 2
#: A value of a CKKS sum is off by more than so many deviations with probability at most 2 exp(-10.3**2 / 2) < 2**-75.
DEVIATIONS = 10.3
#: A public-key sum also depends on how large the secret is where it is evaluated, |s(zeta)|**2, in units of its mean
#: 2 N / 3: above 30 at some slot with probability about N / 2 exp(-30) < 4e-10 for a key.
KEY_SPREAD = 30
#: bits of the smallest plain modulus
LEAST_PLAIN = 20


@dataclass(frozen=True)
class Parameters:
    """Everything that decides what a ciphertext is. ``data_bits``: of q. ``scale_bits`` (CKKS): log2 of the scale.
    ``plain_bits`` (BFV): of the plain modulus, a prime that is 1 modulo 2 N. ``symmetric``: who encrypts holds the
    secret key. Raises UsageError where the security table does not allow it."""

    scheme: Literal["ckks", "bfv"]
    degree: int
    data_bits: int
    symmetric: bool
    scale_bits: int = 0
    plain_bits: int = 0

    def __post_init__(self) -> None:
        check_security(self.degree, self.data_bits)

    @property
    def slots(self) -> int:
        """Numbers that one ciphertext holds."""
        return self.degree // 2 if self.scheme == "ckks" else self.degree

    @property
    def frame(self) -> int:
        """Bytes of one ciphertext: two polynomials of ``degree`` coefficients below q."""
        return 2 * self.degree * self.data_bits // 8


def check_security(degree: int, data_bits: int) -> None:
    """Raises UsageError where a prime of ``data_bits`` and the special prime exceed what the degree allows."""
    cap, wanted = SECURITY[degree], data_bits + SPECIAL_BITS
    if wanted > cap:
        table = ", ".join(f"{n}: {bits}" for n, bits in SECURITY.items())
        raise UsageError(
            f"a modulus of {wanted} bits ({data_bits} and the special prime's {SPECIAL_BITS}) at degree {degree} is "
            f"below 128-bit security, which caps it at {cap} bits (degree: cap; {table}): "
            "allow a larger error, smaller values or a larger degree."
        )


def ckks_error(parameters: Parameters, silos: int, largest: float) -> float:
    """What a value of a sum of ``silos`` uploads is off by at most (see ``DEVIATIONS``), for sums up to ``largest``.

    Noise e in coefficients is in a slot, as its real part, the sum of e_j cos(...): for independent coefficients of
    variance v that is N v / 2. For a public key r1 s adds N |s(zeta)|**2 / 24. Coding adds 1/12 per coefficient, and
    rounding of float64 in SEAL's transforms, of the values' size, 2**-42 of it.
    """
    n = parameters.degree
    rounding = (1 + KEY_SPREAD * 2 * n / 3) / 12
    variance = (NOISE_VARIANCE if parameters.symmetric else rounding) + 1 / 12
    deviation = math.sqrt(silos * n * variance / 2)
    return DEVIATIONS * deviation / 2.0**parameters.scale_bits + largest * 2.0**-42


def choose_ckks(error: float, largest: float, silos: int, symmetric: bool, degree: int) -> Parameters:
    """The smallest prime at which sums of ``silos`` uploads, of magnitude up to ``largest``, are within ``error``.

    Coefficients of an encoded vector are at most scale times the largest slot; the sum's must stay below q/2, with one
    bit to spare for the noise and for q being a little less than a power of two. Raises UsageError where none will do.
    """
    headroom = 2 + max(0, math.ceil(math.log2(largest)))
    best = math.inf
    for bits in DATA_BITS:
        if bits <= headroom:
            continue
        found = Parameters("ckks", degree, bits, symmetric, scale_bits=bits - headroom)
        best = ckks_error(found, silos, largest)
        if best <= error:
            return found
    raise UsageError(
        f"an error of {error:g} is out of reach for sums of {silos} silos up to {largest:g}: a prime of "
        f"{DATA_BITS[-1]} bits gives {best:.2g}; allow a larger error or smaller values."
    )


def choose_bfv(silos: int, symmetric: bool, degree: int = 4096) -> Parameters:
    """The largest plain modulus t at which the sum of ``silos`` uploads always decrypts right: silos * noise * 2 t < q.

    Decryption rounds t/q times (q/t) m + e, so it is right while |e| t / q < 1/2 (Brakerski 2012; Fan and Vercauteren
    2012); wrapping modulo t adds nothing to e. Raises UsageError where t would have fewer than 20 bits.
    """
    # a bound on the noise of one upload in units of 1/q, rounding of the message included; it always holds
    upload = NOISE + 1 if symmetric else (degree + 1) // 2 + 2
    noise = 2 * silos * upload
    q = 2**60 - 2**44  # SEAL takes the largest prime of 60 bits that is 1 modulo 2 N
    plain_bits = next((bits for bits in range(59, LEAST_PLAIN - 1, -1) if noise << bits < q), 0)
    if not plain_bits:
        raise UsageError(f"BFV sums of {silos} silos would drown in noise: no plain modulus is left.")
    return Parameters("bfv", degree, DATA_BITS[-1], symmetric, plain_bits=plain_bits)
