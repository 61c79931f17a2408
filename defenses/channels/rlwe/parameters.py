"""Parameters of the lattice sum, and how integers on a grid are laid out in ring elements.

The ring is Z_q[X] / (X^N + 1) with N = 2048 and q = 2**modulus, modulus <= 54: the largest total modulus that the
tables of the Homomorphic Encryption Standard (Albrecht et al. 2018) allow at N = 2048 for 128 bits of classical
security. A coefficient of a ring element is a *slot*; a slot holds several values, its *digits*:

    slot of b = (a * s) + e + 2**scale * (digit_0 + 2**width digit_1 + ...)     mod 2**modulus

and what is sent is that, rounded to its upper ``sent = modulus - dropped`` bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from bench.core.errors import SiloBenchError
from defenses.channels.secagg.packing import packed_size

#: N, coefficients of a ring element
DEGREE = 2048
#: largest log2 q at this degree
MAX_MODULUS = 54
#: keys and errors are centred binomial: the difference of two sums of ETA fair bits, so in [-ETA, ETA], variance ETA/2
ETA = 48
#: ring elements per frame, at most 0.2 MiB: so few that the transforms of a frame stay in a processor's cache
ELEMENTS = 16
#: slots per frame
FRAME_SLOTS = ELEMENTS * DEGREE


@dataclass(frozen=True)
class Parameters:
    """The layout for sums of at most ``silos`` updates of integers in [-levels, levels].

    ``digits`` values of ``width`` bits stand in a slot, above ``scale`` bits of room for the noise; the ``dropped``
    lowest bits of what is uploaded are not sent.
    """

    silos: int
    levels: int
    width: int
    digits: int
    scale: int
    dropped: int

    @property
    def modulus(self) -> int:
        """log2 q."""
        return self.digits * self.width + self.scale

    @property
    def sent(self) -> int:
        """Bits sent of each slot."""
        return self.modulus - self.dropped

    @property
    def noise(self) -> int:
        """The largest absolute noise of a slot in a sum; it can be attained.

        Each upload brings its error e, at most ETA, and its rounding to a multiple of 2**dropped, at most half of it.
        """
        return self.silos * (ETA + (1 << self.dropped >> 1))

    @property
    def key_bits(self) -> int:
        """Bits that hold the signed sum of the keys' coefficients."""
        return (self.silos * ETA).bit_length() + 1

    @property
    def bytes_per_value(self) -> float:
        """Of the ring elements alone, without the key."""
        return self.sent / self.digits / 8

    def frames(self, values: int) -> tuple[int, ...]:
        """Slots in each frame of an upload of ``values`` values."""
        slots = -(-values // self.digits)
        return tuple(min(FRAME_SLOTS, slots - start) for start in range(0, slots, FRAME_SLOTS))

    def lengths(self, values: int) -> tuple[int, ...]:
        """Bytes of each frame of an upload of ``values`` values."""
        return tuple(packed_size(slots, self.sent) for slots in self.frames(values))


@cache
def choose(silos: int, levels: int) -> Parameters:
    """The parameters with fewest bytes per value; among those the ones with the smallest modulus, the safest.

    A sum of n values in [-levels, levels] needs ``width`` bits with 2 n levels < 2**width; noise never spoils a digit
    if n * (ETA + 2**(dropped-1)) < 2**(scale-1). Both hold for n = ``silos``, hence for any fewer.
    Raises SiloBenchError where not even one value fits into a slot.
    """
    if silos < 1 or levels < 1:
        raise SiloBenchError(f"the lattice sum needs silos and levels, not {silos} and {levels}")
    width = (2 * silos * levels).bit_length()
    found = [p for digits in range(1, MAX_MODULUS // width + 1) for p in _fitting(silos, levels, width, digits)]
    if not found:
        raise SiloBenchError(
            f"a sum of {silos} values of up to {levels} levels needs {width} bits, which leaves a modulus of "
            f"{MAX_MODULUS} bits no room for noise: take fewer bits per value"
        )
    return min(found, key=lambda p: (p.bytes_per_value, p.modulus))


def _fitting(silos: int, levels: int, width: int, digits: int) -> list[Parameters]:
    """For each scale that leaves the noise room, the parameters that drop as many bits as it allows."""
    found = []
    for scale in range(1, MAX_MODULUS - digits * width + 1):
        tried = [Parameters(silos, levels, width, digits, scale, dropped) for dropped in range(scale)]
        found += [p for p in tried if p.noise < 1 << (scale - 1)][-1:]
    return found
