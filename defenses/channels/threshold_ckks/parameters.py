"""Parameters of threshold CKKS: ring, modulus, scale and flooding, from what is asked of the sum and its secrecy.

The ring is Z_Q[X] / (X^N + 1) with Q = 2**modulus, as in the first CKKS (Cheon et al. 2017, whose library HEAAN has
powers of two as moduli too). Uploads and decryption shares are rescaled by P = 2**flood before they are sent, to
``sent`` bits a value: Q = P 2**sent. An integer of the sum, after rescaling, is worth ``unit``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from bench.core.errors import UsageError
from defenses.channels.secagg.packing import packed_size

#: bits of the modulus that a degree allows at 128-bit security with ternary secrets and errors of deviation 3.2, by the
#: lattice estimator of November 2026 (docs/crypto.md). Table 1 of the Homomorphic Encryption Standard (Albrecht et al.
#: 2018) allows 109 and 218, which today's attacks bring to 126 bits
SECURITY = {4096: 106, 8192: 214}
#: limbs in which a coefficient is held, per degree; more than a degree's largest modulus needs are never tried
LIMBS = {4096: (4,), 8192: (4, 6, 8)}
#: bits of a limb, at most: products of such limbs with ternary polynomials are exact (``ring.error_bound``)
MAX_WIDTH = 30
#: errors are centred binomial: the difference of two sums of ETA fair bits, of variance ETA / 2 (deviation 3.24)
ETA = 21
#: bits of a sent value, at most: float64 must hold every sum in units far below rounding
MAX_SENT = 48
#: keys that share the random half of a ciphertext, at most
MAX_KEYS = 64


@dataclass(frozen=True)
class Parameters:
    """``silos``: how many hold a share of the key. ``degree``: N. ``limbs`` of ``width`` bits hold a coefficient
    modulo Q. ``sent``: bits of what travels of a value. ``keys``: how many polynomials of values share one random half.
    ``unit``: what one unit of a sent value is worth. ``most``: the largest sum of values, in units, without noise.
    ``sealed``: how many values are sealed by one silo in all rounds together, at most."""

    silos: int
    degree: int
    limbs: int
    width: int
    sent: int
    keys: int
    unit: float
    most: int
    sealed: int

    @property
    def modulus(self) -> int:
        """log2 Q."""
        return self.limbs * self.width

    @property
    def flood(self) -> int:
        """log2 P: flooding is uniform over 2**flood values."""
        return self.modulus - self.sent

    @property
    def noise(self) -> int:
        """The largest absolute noise of a coefficient in a sum of ciphertexts, before flooding; see ``noise_bound``."""
        return noise_bound(self.silos, self.degree)

    @property
    def rounding(self) -> int:
        """How many units a sum may be off by: half of one per encoding, half per rescaled upload, one per share."""
        return 2 * self.silos

    @property
    def margin(self) -> float:
        """-log2 of how far all flooded shares of one silo, over all rounds, are from shares that show the sum only.

        A share's coefficient is P-uniform noise plus something that is simulated up to the ciphertext noise, so at
        statistical distance ``noise`` / P at most; distances add up; two worlds are compared.
        """
        return self.flood - math.log2(2 * self.noise * self.sealed)

    @property
    def element(self) -> int:
        """Bytes of one ring element modulo Q."""
        return self.degree * self.modulus // 8

    @property
    def bytes_per_value(self) -> float:
        """Sent by a silo in a round, upload and share, per value of a long update."""
        return (2 * self.sent + self.modulus / self.keys) / 8

    def groups(self, values: int) -> tuple[int, ...]:
        """How many values stand under each random half."""
        full = self.keys * self.degree
        return tuple(min(full, values - start) for start in range(0, values, full))

    def tops(self, values: int) -> tuple[int, ...]:
        """Bytes of the sent values of each group, in an upload or in a share."""
        return tuple(packed_size(count, self.sent) for count in self.groups(values))


def noise_bound(silos: int, degree: int) -> int:
    """Of a sum of ``silos`` uploads: every upload brings u e + e0 + e1 s, with u in {-1, 0, 1}, e and s the sums of all
    silos' errors and key shares. A coefficient of a product of polynomials is at most N times the largest ones'."""
    return silos * (2 * degree * ETA * silos + ETA)


@cache
def choose(
    silos: int, weight: int, size: int, rounds: int, error: float, largest: float, flooding: int, least: int = 4096
) -> Parameters:
    """The smallest ring (of degree ``least`` or more) and modulus for sums within ``error`` of ``silos`` updates of
    ``size`` values, of magnitude up to ``largest`` times their public weights (``weight`` in all), that in ``rounds``
    rounds show more than the sums with probability at most 2**-flooding. Raises UsageError where none will do."""
    unit = error / (2 * silos + 1)  # one unit spare, for rounding in float64
    most = math.ceil(largest * weight / unit)
    sent = (most + 2 * silos + 1).bit_length() + 1
    if sent > MAX_SENT:
        raise UsageError(
            f"threshold-ckks: an error of {error:g} for sums up to {largest * weight:g} takes {sent} bits a value, and "
            f"{MAX_SENT} is the most: allow a larger error or smaller values."
        )
    sealed = max(1, size * rounds)
    for degree, limbs in ((n, limbs) for n, choices in LIMBS.items() if n >= least for limbs in choices):
        flood = math.ceil(math.log2(2 * noise_bound(silos, degree) * sealed)) + flooding
        width = max(-(-(flood + sent) // limbs), -(-sent // 2))  # what is sent lies in two limbs
        if width <= MAX_WIDTH and limbs * width <= SECURITY[degree]:
            keys = _keys(max(1, -(-size // degree)), max(1, rounds))
            return Parameters(silos, degree, limbs, width, sent, keys, unit, most, sealed)
    raise UsageError(
        f"threshold-ckks: {flooding} bits of flooding and {sent} bits a value need a modulus above {SECURITY[8192]} "
        f"bits, the most at 128-bit security: allow a larger error or ask for less flooding."
    )


def _keys(polynomials: int, rounds: int) -> int:
    """How many keys make the bytes of a run fewest: K elements of set-up, and in every round one for each K polynomials
    of values; the square root of rounds x polynomials."""
    return min(polynomials, MAX_KEYS, round(math.sqrt(rounds * polynomials)))
