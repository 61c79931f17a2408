"""An implementation audit: canaries with orthogonal gradients, put through the real trainer.

The model here is none: the gradient of record k is a vector along coordinate k, far longer than any clip. So every
record is a canary that no other can touch, what a trainer gives out along its coordinate is one independent trial, and
a single step holds thousands (Nasr et al. 2023, "Tight auditing of differentially private machine learning", with
one canary a run; orthogonal ones after Andrew et al. 2024). Half of the coordinates belong to records that the silo
has, the others to none. A threshold is set on a fifth of the trials; the others give counts, and those a
Clopper-Pearson bound that is held against the claim of what the trainer logged.

Four audits, each of another promise and each with the claim that has the power: ``one_step`` (clip and noise: the claim
of one unsampled step), ``two_rounds`` (fresh noise in every round: the composed claim of two), ``sampling`` (records
join by chance: the amplified claim of one sampled step), ``coupling`` (one record changes no other's part in the sum:
the claim of one step again, over as many steps as there are trials). A correct trainer is flagged with a chance of at
most ``SIGNIFICANCE`` by each.

The family is ``gaussian`` for unsampled steps: what is logged is a Gaussian mechanism, so mu-GDP is its claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import privacy, stats
from bench.conformance.canary_model import LENGTH, MOST, CanaryModel, Floats, one_batch, records, train
from bench.core.streams import SecretStreams
from bench.defense.parts import Mechanism, Trainer
from bench.stats import Family

#: chance that one audit flags a trainer that does what it logs
SIGNIFICANCE = 1e-6
DELTA = 1e-5
#: chance with which a mistake of the given size is to be found
POWER = 0.99
#: share of the trials whose outcome only sets the threshold
CALIBRATION = 0.2
#: records of one step of ``coupling``; predicted tokens of the long one; the others' gradients in clips
WITNESSES, LONG, SHORT_OF_CLIP = 7, 64, 0.9
#: what averaging over the batch's tokens changes of the others' sum where the long record joins, in clips
COUPLED = WITNESSES * SHORT_OF_CLIP * (1 - (WITNESSES + 1) / (WITNESSES + LONG))


class Inapplicable(Exception):
    """The trainer can't be audited so; the message says why."""


@dataclass(frozen=True)
class Audit:
    """Counts of one audit: of ``positives`` canaries that were in ``hits`` were said to be, of ``negatives`` that were
    not ``alarms``. ``claim``: epsilon at ``delta`` of what the trainer logged."""

    of: str
    hits: int
    positives: int
    alarms: int
    negatives: int
    claim: float
    delta: float
    family: Family = "gaussian"

    @property
    def bound(self) -> float:
        """What is proven, at ``SIGNIFICANCE``."""
        counts = (self.hits, self.positives, self.alarms, self.negatives)
        return stats.clopper_pearson_epsilon(*counts, self.delta, SIGNIFICANCE, self.family)

    @property
    def limit(self) -> float:
        """The largest bound that it could have shown."""
        return stats.clopper_pearson_epsilon_limit(
            self.positives, self.negatives, self.delta, SIGNIFICANCE, self.family
        )

    @property
    def refuted(self) -> bool:
        return self.bound > self.claim

    def power(self, tpr: float, fpr: float) -> float:
        """The chance of flagging a trainer of which canaries are told with these rates."""
        sizes = (self.positives, self.negatives)
        return stats.clopper_pearson_power(
            tpr, fpr, *sizes, self.claim, self.delta, significance=SIGNIFICANCE, family=self.family
        )

    def __str__(self) -> str:
        return (
            f"{self.of}: epsilon at least {self.bound:.3g} of at most {self.limit:.3g}, {self.claim:.3g} is claimed "
            f"(delta {self.delta:.3g}; {self.hits} of {self.positives} found, {self.alarms} of {self.negatives} false)"
        )


def one_step(trainer: Trainer, canaries: int | None = None) -> Audit:
    """Clip and noise of one step that every record takes part in. ``canaries``: in and as many out; None: as many as
    find noise that is too small by a factor of sqrt 2, or else of 2. Raises Inapplicable."""
    size, of = _sized(trainer, "one step", canaries)
    model = CanaryModel(2 * size)
    training, given = train(trainer, model, records(range(size)), one_batch(size), size)
    return _audit(of, given[:size], given[size : 2 * size], _gaussian_mu(trainer, training.mechanisms))


def two_rounds(trainer: Trainer, canaries: int | None = None) -> Audit:
    """Noise of two rounds. A server that sends crafted models turns every gradient round in the second: their
    difference holds a canary twice, and noise that comes again not at all. Raises Inapplicable."""
    size, of = _sized(trainer, "two rounds", canaries)
    model, state = CanaryModel(2 * size), dict[str, Any]()
    secret = SecretStreams("silo-0")
    found: list[Floats] = []
    logged: list[Mechanism] = []
    for round, sign in enumerate((1.0, -1.0)):
        model.sign = sign
        training, given = train(
            trainer,
            model,
            records(range(size)),
            one_batch(size),
            size,
            round=round,
            rounds=2,
            state=state,
            secret=secret,
        )
        found.append(sign * given)
        logged += training.mechanisms
    both = found[0] + found[1]
    return _audit(of, both[:size], both[size : 2 * size], _gaussian_mu(trainer, logged))


def sampling(trainer: Trainer, canaries: int | None = None, rate: float = 0.1) -> Audit:
    """The sampling of one step: canaries stand first among the records, where walking over them in order begins. A
    record that joins with chance ``rate`` changes anything with at most that chance, so (0, delta) holds from delta =
    rate on, whatever the mechanism; it is tested half as large again. ``canaries``: None for as many as show that they
    always join. Raises Inapplicable."""
    size = canaries or _needed_always(trainer, rate)
    batch, number, others = 2 * size, round(2 * size / rate), 10 * size
    model = CanaryModel(number + others)
    training, given = train(trainer, model, records(range(number)), one_batch(batch), number)
    steps = _composition(trainer, training.mechanisms)
    if [(known, count) for known, _, count in steps] != [(batch / number, 1)]:
        raise Inapplicable(f"it logs {steps} (rate, sigma, steps) for one step of {batch} of {number} records")
    counts = _split(given[:size], given[number : number + others])
    return Audit("sampling", *counts, claim=0.0, delta=1.5 * rate, family="approximate")


def coupling(trainer: Trainer, trials: int | None = None) -> Audit:
    """Whether a long record changes what the others give: seven short ones whose gradients don't reach the clip stand
    on one coordinate, the long one on another, which is not looked at. ``trials``: steps with it and as many without;
    None: as many as find a loss that is averaged over the batch's tokens. Raises Inapplicable."""
    clip, size = _clip(trainer), trials or _needed_coupled(trainer)
    found: dict[bool, list[float]] = {True: [], False: []}
    mechanisms: Sequence[Mechanism] = ()
    for trial in range(2 * size):
        inside = trial % 2 == 0
        model = CanaryModel(2, (LENGTH, SHORT_OF_CLIP * clip))
        tokens = records([0] * WITNESSES + [1] * inside, [1] * WITNESSES + [0] * inside, [1] * WITNESSES + [LONG])
        training, given = train(trainer, model, tokens, one_batch(WITNESSES + 1), WITNESSES + 1)
        found[inside].append(float(given[0]))
        mechanisms = training.mechanisms
    return _audit("coupling", np.array(found[True]), np.array(found[False]), _gaussian_mu(trainer, mechanisms))


AUDITS = (one_step, two_rounds, sampling, coupling)


def needed(trainer: Trainer, factor: float) -> int:
    """How many canaries in, and as many out, find noise that is ``factor`` times too small with a chance of ``POWER``.
    Raises Inapplicable where ``MOST`` don't."""
    mu = _gaussian_mu(trainer, trainer.plan(1, one_batch(MOST), MOST))
    size = _enough((256, 512, 1024, 2048, 3072, MOST), factor * mu, stats.gdp_epsilon(mu, DELTA))
    if size is None:
        raise Inapplicable(f"{MOST} canaries can't tell noise {factor:.3g} times too small from a claim of mu {mu:.3g}")
    return size


def _sized(trainer: Trainer, of: str, canaries: int | None) -> tuple[int, str]:
    """How many canaries, and the audit's name with the smallest mistake that so many find. Raises Inapplicable."""
    if canaries is not None:
        return canaries, of
    try:
        return needed(trainer, math.sqrt(2)), f"{of} (finds noise 1.41 times too small)"
    except Inapplicable:
        return needed(trainer, 2.0), f"{of} (finds noise 2 times too small)"


def _needed_always(trainer: Trainer, rate: float) -> int:
    """How many canaries show that they join every step. Raises Inapplicable."""
    steps = _composition(trainer, trainer.plan(1, one_batch(MOST), round(MOST / rate)))
    mu = min((1 / sigma for _, sigma, _ in steps), default=0.0)
    size = _enough((250, 500, 1000, MOST // 2), mu, 0.0, 1.5 * rate, "approximate", others=10)
    if size is None:
        raise Inapplicable(f"canaries in batches of {MOST} can't tell that they always join through that much noise")
    return size


def _needed_coupled(trainer: Trainer) -> int:
    """How many steps with and without the long record show that the others are scaled by it. Raises Inapplicable."""
    mu = _gaussian_mu(trainer, trainer.plan(1, one_batch(WITNESSES + 1), WITNESSES + 1))
    size = _enough((100, 200, 400, 800), COUPLED * mu, stats.gdp_epsilon(mu, DELTA))
    if size is None:
        raise Inapplicable(f"800 steps can't tell a loss over the batch from a claim of mu {mu:.3g}")
    return size


def _enough(
    sizes: Sequence[int],
    leak: float,
    claim: float,
    delta: float = DELTA,
    family: Family = "gaussian",
    others: int = 1,
) -> int | None:
    """The first of ``sizes`` with which a leak of mu ``leak`` is flagged with a chance of ``POWER``. ``others``: trials
    out for each trial in."""
    tpr = _normal_cdf(leak / 2)
    for size in sizes:
        inside, out = (n - round(CALIBRATION * n) for n in (size, others * size))
        power = stats.clopper_pearson_power(tpr, 1 - tpr, inside, out, claim, delta, SIGNIFICANCE, family)
        if power >= POWER:
            return size
    return None


def _clip(trainer: Trainer) -> float:
    """What is left of a gradient far beyond the clip, from one step."""
    size = 2048
    model = CanaryModel(size)
    _, given = train(trainer, model, records(range(size)), one_batch(size), size)
    return float(np.median(given)) * size


def _composition(trainer: Trainer, mechanisms: Sequence[Mechanism]) -> privacy.Composition:
    promise = trainer.promise
    if promise is None or promise.unit != "record" or promise.adjacency != "add-remove":
        raise Inapplicable("canaries are records that are added or removed, and it promises nothing of the kind")
    try:
        return privacy.composition(mechanisms, promise.adjacency)
    except privacy.Refused as refusal:
        raise Inapplicable(str(refusal)) from None


def _gaussian_mu(trainer: Trainer, mechanisms: Sequence[Mechanism]) -> float:
    """The mu of unsampled Gaussian releases together. Raises Inapplicable for others, and for none."""
    steps = _composition(trainer, mechanisms)
    if not steps or any(rate != 1 for rate, _, _ in steps):
        raise Inapplicable(f"it logs {steps} (rate, sigma, steps) for a step that all records take part in")
    return math.sqrt(sum(count / sigma**2 for _, sigma, count in steps))


def _audit(of: str, inside: Floats, outside: Floats, mu: float) -> Audit:
    return Audit(of, *_split(inside, outside), stats.gdp_epsilon(mu, DELTA), DELTA)


def _split(inside: Floats, outside: Floats) -> tuple[int, int, int, int]:
    """(hits, positives, alarms, negatives) at a threshold half way between the medians of a fifth of the trials, which
    is not counted. Canaries may lie below as well as above."""
    first = [max(1, round(CALIBRATION * len(side))) for side in (inside, outside)]
    middles = [float(np.median(side[:n])) for side, n in zip((inside, outside), first, strict=True)]
    sign, threshold = (1.0 if middles[0] >= middles[1] else -1.0), sum(middles) / 2
    counted = [side[n:] for side, n in zip((inside, outside), first, strict=True)]
    hits, alarms = (int((sign * (side - threshold) > 0).sum()) for side in counted)
    return hits, len(counted[0]), alarms, len(counted[1])


def _normal_cdf(x: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(x))
