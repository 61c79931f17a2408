"""How hard the lattice sum is to break: the primal attack's cost by published formulas, for ``docs/crypto.md``.

An estimate, not a proof: it says what one known family of attacks costs under a model of lattice reduction. It takes
no advantage of the ring's structure (none is known for these rings), and counts no memory.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from defenses.channels.rlwe.parameters import ETA


@dataclass(frozen=True)
class Attack:
    """The cheapest primal attack. ``block``: the block size b of BKZ; ``dimension``: d of the lattice;
    ``samples``: how many equations it uses."""

    block: int
    dimension: int
    samples: int

    @property
    def core(self) -> float:
        """log2 of the cost of one shortest-vector call, 2**(0.292 b): Alkim et al. 2016 ("core-SVP"), by the sieve of
        Becker, Ducas, Gama and Laarhoven 2016. The most pessimistic count in use."""
        return 0.292 * self.block

    @property
    def standard(self) -> float:
        """log2 of 8 d calls of 2**(0.292 b + 16.4): the model under which the Homomorphic Encryption Standard
        (Albrecht et al. 2018) says 128 bits."""
        return 0.292 * self.block + 16.4 + math.log2(8 * self.dimension)


def primal(degree: int, modulus: float, secret: float, error: float) -> Attack:
    """The cheapest choice of block size and samples against secrets and errors of those standard deviations.

    Success condition of Alkim et al. 2016 (Section 6.3; confirmed by Albrecht et al. 2017) on the lattice of Bai and
    Galbraith 2014, of dimension d = m + degree + 1, secrets scaled to the errors' size:
        error sqrt(b) <= delta**(2b - d - 1) * (q**m (error / secret)**degree) ** (1/d),
        delta = ((pi b)**(1/b) b / (2 pi e)) ** (1 / (2 (b - 1))).
    ``modulus`` is log2 q. ``degree`` is also the dimension of the secret.
    """
    return min(
        (_with_samples(degree, modulus, secret, error, m) for m in range(degree // 4, 2 * degree, 16)),
        key=lambda attack: attack.standard,
    )


def _with_samples(degree: int, modulus: float, secret: float, error: float, samples: int) -> Attack:
    dimension = samples + degree + 1
    volume = (samples * modulus * math.log(2) + degree * math.log(error / secret)) / dimension

    def reached(block: int) -> bool:
        most = (2 * block - dimension - 1) * _log_root_factor(block) + volume
        return math.log(error) + math.log(block) / 2 <= most

    return Attack(51 + bisect_left(range(51, dimension), True, key=reached), dimension, samples)


def _log_root_factor(block: int) -> float:
    return math.log((math.pi * block) ** (1 / block) * block / (2 * math.pi * math.e)) / (2 * (block - 1))


def left_over(published: int = 0, eta: int = ETA) -> float:
    """The standard deviation of one silo's key (or error) coefficient, given that of two honest silos the sum is
    ``published``, in [-2 eta, 2 eta].

    Each coefficient is the number of ones among 2 eta fair bits, minus eta. Given that the two silos' 4 eta bits hold
    K = published + 2 eta ones, one silo's half of them holds a hypergeometric number: of variance
    2 eta * K/(4 eta) * (1 - K/(4 eta)) * 2 eta/(4 eta - 1). Exactly, with no reduction and no loss.
    """
    bits = 4 * eta
    share = (published + 2 * eta) / bits
    return math.sqrt(2 * eta * share * (1 - share) * 2 * eta / (bits - 1))


def widest_sum(coefficients: float, failure: float, eta: int = ETA) -> int:
    """The least t for which none of ``coefficients`` sums of two silos' coefficients exceeds t in absolute value,
    except with a probability of at most ``failure`` (a union bound over exact binomial tails)."""
    bits = 4 * eta
    places = range(bits // 2, 0, -1)
    tails = accumulate(2 * math.comb(bits, bits // 2 + t) for t in places)
    return next((t for t, tail in zip(places, tails, strict=True) if coefficients * tail > failure * 2**bits), 0)
