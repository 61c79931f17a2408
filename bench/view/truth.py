"""What was really sent, and whether a candidate agrees with it.

The agreement rule. Let t be the true combination of summands and t0 what the same silos would have contributed had they
learnt nothing (the aggregator's summand of a zero update). The error of a candidate is its L2 distance from t, and its
scale is |t - t0|, the part of t that training put there: a guess that knows only the public adapter has error 1 in
these units, and a wrong key's noise far more.

    a candidate agrees   if error <= TOLERANCE (1e-3) x scale,
    or                   if error <= the stated loss of its form, at most CEILING (0.1) x scale.

Forms that state a loss: what a channel opens (its own ``error`` per value), formats of few digits (half floats,
quantised integers: CEILING itself), sums implied by adapters published at a reduced precision, and whatever is combined
of readings that have an error. Candidates known up to one factor are multiplied by the factor that fits best, where
there are values enough (64) that no factor makes noise fit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.frames import decode_adapter
from bench.core.update import Array, Terms, Update
from bench.defense.aggregator import Aggregator
from bench.transcript.transcript import Transcript
from bench.view.openers.base import MIN_VALUES, Spans, even_spans, plausible

TOLERANCE = 1e-3
CEILING = 0.1
#: relative error of a first look at a few hundred values
_GLANCE = 0.25
#: share of words that must be equal in an XOR of two plaintexts
_EQUAL_WORDS = 0.999
_WINDOW = 64
_WINDOWS = 4
_KEPT = 1024  # first looks remembered, a few KB each

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """``factor``: what to multiply the candidate by. ``error``: its absolute L2 error (0 where unchecked). ``exact``:
    within TOLERANCE, whatever loss its form explains."""

    agrees: bool
    factor: float = 1.0
    error: float = 0.0
    exact: bool = True
    unchecked: bool = False


class Truth:
    """The summands that a transcript holds, read one at a time."""

    def __init__(self, transcript: Transcript, aggregator: Aggregator) -> None:
        self._transcript = transcript
        self._public = transcript.public
        self._aggregator = aggregator
        self._slots = aggregator.plan(self._public.adapter, self._public.silos).slots
        self._spans: dict[Terms, Spans] = {}
        self._rounds: dict[int, bool] = {}
        self._glances: OrderedDict[tuple[Terms, Spans], tuple[Float, Float] | None] = OrderedDict()
        self._nothing: tuple[tuple[int, int, str], NDArray[np.floating]] | None = None

    def known(self, round: int) -> bool:
        """Whether the summands of this round were stored at all (an imported transcript may hold none)."""
        if round not in self._rounds:
            stored = (self._transcript.truth(round, silo) is not None for silo in self._public.silos)
            self._rounds[round] = any(stored)
        return self._rounds[round]

    def checkable(self, terms: Terms) -> bool:
        return all(self.known(round) for round, _, _ in terms)

    def summand(self, round: int, silo: str) -> NDArray[np.floating] | None:
        """What ``silo`` handed to the channel; None where it took no part, or nothing was stored."""
        return self._transcript.truth(round, silo)

    def adapter(self, round: int) -> Array | None:
        """The global adapter after ``round`` (-1: at the start); None where not stored."""
        if round < 0:
            return self._transcript.initial_adapter()
        values = self._transcript.truth(round, "adapter")
        return None if values is None else np.asarray(values, dtype=np.float32)

    def spans(self, terms: Terms) -> Spans:
        """Where to take a first look: a few windows in which the silos learnt something."""
        if terms not in self._spans:
            self._spans[terms] = self._choose(terms)
        return self._spans[terms]

    def _choose(self, terms: Terms) -> Spans:
        size = self._public.layout.size
        pair = self._expected(terms, ((0, size),)) if size > 2 * _WINDOWS * _WINDOW and self.checkable(terms) else None
        if pair is None:
            return even_spans(size, _WINDOWS, _WINDOW)
        blocks = np.add.reduceat(np.abs(pair[0] - pair[1]), np.arange(0, size, _WINDOW))
        live = np.flatnonzero(blocks[: size // _WINDOW] > np.median(blocks))
        if len(live) < _WINDOWS:
            return even_spans(size, _WINDOWS, _WINDOW)
        picked = live[np.linspace(0, len(live) - 1, _WINDOWS).astype(int)] * _WINDOW
        return tuple((int(start), int(start) + _WINDOW) for start in picked)

    def fits(self, terms: Terms, spans: Spans, sample: NDArray[np.floating]) -> bool:
        """A lenient first look at the values at ``spans``."""
        if not self.checkable(terms):
            return plausible(sample)
        pair = self._glance(terms, spans)
        if pair is None or sample.shape != pair[0].shape or not np.isfinite(sample).all():
            return False
        target, idle = pair
        values = sample.astype(np.float64)
        scale = float(np.linalg.norm(target - idle))
        return _error(values * _factor(values, target), target) <= _GLANCE * scale + 1e-6 * float(
            np.linalg.norm(target)
        )

    def _glance(self, terms: Terms, spans: Spans) -> tuple[Float, Float] | None:
        key = (terms, spans)
        if key not in self._glances:
            self._glances[key] = self._expected(terms, spans)
            if len(self._glances) > _KEPT:
                self._glances.popitem(last=False)
        return self._glances[key]

    def judge(
        self,
        terms: Terms,
        values: NDArray[np.floating],
        loss: float = 0.0,
        rough: bool = False,
        factor: bool = False,
        support: NDArray[np.int64] | None = None,
    ) -> Verdict:
        """Whether ``values`` (layout.size,) agree with ``terms`` under the rule above. ``loss``: absolute L2 error
        that the candidate's form explains. ``support``: judged at these coordinates alone."""
        if not np.isfinite(values).all():
            return Verdict(False)
        if support is not None and not self._claimable(support):
            return Verdict(False)
        if not self.checkable(terms):
            return Verdict(plausible(values if support is None else values[support]), unchecked=True)
        size = self._public.layout.size
        pair = self._expected(terms, ((0, size),))
        if pair is None:
            return Verdict(False)
        target, idle = pair
        guess = values.astype(np.float64)
        if support is not None:
            target, idle, guess, size = target[support], idle[support], guess[support], len(support)
        multiplier = _factor(guess, target) if factor else 1.0
        error = _error(guess * multiplier, target)
        scale = float(np.linalg.norm(target - idle))
        ceiling = CEILING * scale if scale else 1e-4 * size**0.5
        limit = max(TOLERANCE * scale, ceiling if rough and scale else min(loss, ceiling))
        return Verdict(error <= limit, multiplier, error, error <= TOLERANCE * scale)

    def _claimable(self, support: NDArray[np.int64]) -> bool:
        """Distinct coordinates in order, enough of them that noise does not fit by chance."""
        inside = len(support) >= MIN_VALUES and support[0] >= 0 and support[-1] < self._public.layout.size
        return bool(inside and (np.diff(support) > 0).all())

    def judge_xor(self, terms: Terms, words: NDArray[np.generic]) -> Verdict:
        """Whether ``words`` are the XOR of the two summands' bits as floats of that width."""
        if not self.checkable(terms):
            return Verdict(True, unchecked=True)
        mixed = np.zeros(len(words), dtype=words.dtype)
        for round, silo, _ in terms:
            summand = self.summand(round, silo)
            if summand is None:
                return Verdict(False)
            with np.errstate(over="ignore"):
                mixed ^= np.asarray(summand, dtype=f"<f{words.dtype.itemsize}").view(words.dtype)
        return Verdict(bool(np.mean(mixed == words) >= _EQUAL_WORDS))

    def judge_adapter(self, round: int, values: Array) -> Verdict:
        """Whether ``values`` are the global adapter after ``round``, measured by the step that this round took."""
        target, before = self.adapter(round), self.adapter(round - 1)
        if target is None or before is None:
            return Verdict(plausible(values), unchecked=True)
        scale = float(np.linalg.norm(target.astype(np.float64) - before))
        error = _error(values.astype(np.float64), target.astype(np.float64))
        return Verdict(error <= max(TOLERANCE * scale, 1e-6 * float(np.linalg.norm(target))), error=error)

    def _expected(self, terms: Terms, spans: Spans) -> tuple[Float, Float] | None:
        """(t, t0) at ``spans``; None where a silo sent nothing in that round."""
        width = sum(stop - start for start, stop in spans)
        target, idle = np.zeros(width), np.zeros(width)
        for round, silo, coefficient in terms:
            summand = self.summand(round, silo)
            if summand is None or summand.shape != (self._public.layout.size,):
                return None
            nothing = self._idle(round, silo)
            target += coefficient * np.concatenate([summand[a:b] for a, b in spans])
            idle += coefficient * np.concatenate([nothing[a:b] for a, b in spans])
        return target, idle

    def _idle(self, round: int, silo: str) -> NDArray[np.floating]:
        """The summand of a silo whose training changed nothing."""
        weight = self._public.weights.get(silo, 1)
        own = silo in self._slots or self._deviating
        key = (round, weight, silo if own else "")
        if self._nothing is None or self._nothing[0] != key:
            self._nothing = key, self._summand_of_nothing(round, weight, silo)
        return self._nothing[1]

    @property
    def _deviating(self) -> bool:
        variant = self._transcript.manifest.get("spec", {}).get("variant")
        return isinstance(variant, dict) and variant.get("name") == "active"

    def _start(self, round: int, silo: str) -> Array | None:
        """The adapter that ``silo`` trained from: what it was sent, where a server may have sent it another one."""
        if self._deviating:
            for message in self._transcript.messages([round]):
                if message.stage == "broadcast" and silo in message.receivers and not message.thinned:
                    return decode_adapter(message.frames(), self._public.state.size, self._public.adapter.size)
        return self.adapter(round - 1)

    def _summand_of_nothing(self, round: int, weight: int, silo: str) -> NDArray[np.floating]:
        before = self._start(round, silo)
        nothing = np.zeros(self._public.layout.size, dtype=np.float32)
        if before is None:
            return nothing
        still = Update(np.zeros(self._public.adapter.size, np.float32), self._public.adapter, weight, silo=silo)
        summand = self._aggregator.summand(still, before, self._public).values
        return np.asarray(summand, dtype=np.float32) if summand.shape == nothing.shape else nothing


def _error(values: Float, target: Float) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.linalg.norm(values - target))


def _factor(values: Float, target: Float) -> float:
    """The least-squares factor; 1 where there are too few values to tell a fit from chance, or nothing to fit."""
    with np.errstate(over="ignore", invalid="ignore"):
        energy, common = float(values @ values), float(values @ target)
    if len(values) < MIN_VALUES or 0.0 in (energy, common) or not math.isfinite(energy):
        return 1.0
    factor = common / energy
    return factor if math.isfinite(factor) else 1.0
