"""Secret sharing (Shamir 1979, "How to share a secret"): any ``threshold`` shares give the secret, fewer give nothing.

Arithmetic is in the field of integers modulo the prime 2**256 - 189, the largest below 2**256, so that a secret of 32
bytes and each of its shares travel in 32 bytes. Python's integers take time that depends on their values: not constant
time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.core.errors import SiloBenchError

PRIME = 2**256 - 189
#: bytes of a secret, and of a share
SIZE = 32
#: random bytes per coefficient: the bias of reducing 384 bits modulo the prime is below 2**-128
COEFFICIENT = 48


def split(secret: bytes, threshold: int, points: Sequence[int], randomness: bytes) -> dict[int, bytes]:
    """One share of 32 bytes for each of ``points``: f(point), where f(0) is ``secret`` and f has degree threshold - 1.

    ``points``: distinct integers in [1, PRIME). ``randomness``: at least ``COEFFICIENT * (threshold - 1)`` secret
    bytes, used for nothing else. Raises SiloBenchError where the secret is no element of the field, or where the points
    or the threshold don't fit.
    """
    distinct = set(points)
    if len(distinct) != len(points) or not all(0 < point < PRIME for point in points):
        raise SiloBenchError("the points of secret shares must be distinct and not zero")
    if not 1 <= threshold <= len(points) or len(randomness) < COEFFICIENT * (threshold - 1):
        raise SiloBenchError(f"a secret can't be shared among {len(points)} so that {threshold} are needed")
    starts = range(0, COEFFICIENT * (threshold - 1), COEFFICIENT)
    higher = [int.from_bytes(randomness[at : at + COEFFICIENT], "little") % PRIME for at in starts]
    coefficients = [element(secret), *higher]
    return {point: _evaluate(coefficients, point).to_bytes(SIZE, "little") for point in points}


def recover(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, by Lagrange's formula at 0 over ``threshold`` of ``shares`` (those of the smallest points).

    Raises SiloBenchError where there are fewer, or where one is no element of the field. Wrong shares give a wrong
    secret: nothing here can tell.
    """
    if len(shares) < threshold:
        raise SiloBenchError(f"{len(shares)} shares do not give a secret that {threshold} are needed for")
    used = sorted(shares)[:threshold]
    terms = (element(shares[at]) * _weight(at, used) for at in used)
    return (sum(terms) % PRIME).to_bytes(SIZE, "little")


def element(value: bytes) -> int:
    """32 bytes, little-endian, as an element of the field. Raises SiloBenchError where they are none."""
    number = int.from_bytes(value, "little")
    if len(value) != SIZE or number >= PRIME:
        raise SiloBenchError("a secret or a share of one is no element of the field")
    return number


def _evaluate(coefficients: Sequence[int], point: int) -> int:
    """Horner's rule; constant coefficient first."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


def _weight(point: int, points: Sequence[int]) -> int:
    """The Lagrange coefficient of ``point`` at 0: the product of other / (other - point)."""
    over, under = 1, 1
    for other in points:
        if other != point:
            over = over * other % PRIME
            under = under * (other - point) % PRIME
    return over * pow(under, -1, PRIME) % PRIME
