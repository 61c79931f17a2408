"""Membership from who took part: sums with a silo's part against sums without it, over rounds.

Who takes part in a round is known to all, and who dropped out shows in what is summed. A record that its silo trained
on falls in loss in the rounds that sum its silo's part, and less in the others. Where sums leave one silo's part alone,
that is a step like the others. Differences that a broken channel shows are projected on the candidates' gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks import contrast
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import MembershipAttack
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.core.tokens import Tokens
    from bench.core.update import Array
    from bench.spec.run import RunSpec
    from bench.view.view import Reading, View

api = 1
version = 1

Floats = NDArray[np.float64]
_LINEAR = frozenset({"upload", "sum", "difference"})
_NAMED = 3


class Config(BaseConfig):
    """``population``: the most records of the population that scores are adjusted by. Each costs as much as a
    candidate."""

    population: int = Field(60, ge=0, le=100_000)


class Difference(MembershipAttack):
    """``drop``, ``contrast`` and ``adjusted`` (``attacks.contrast``) from known models; ``projection`` from signed
    combinations of updates, and from sums where no model is known."""

    needs = frozenset({"query", "adapter", "sum", "difference"})

    def __init__(self, config: Config) -> None:
        self.population = config.population

    def work(self, spec: RunSpec) -> float:
        """Every candidate under what every round opened."""
        return spec.federation.rounds * (super().work(spec) + self.population)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """Scores for every candidate; none, and why, where differences opened and no adapter."""
        population = tools.population.take(np.arange(min(self.population, len(tools.population))))
        answer = _Answer(candidates)
        if models := _models(view):
            _from_models(answer, view, models, population, tools)
        signed = [r for r in view.readings if r.kind in _LINEAR]
        differences = [r for r in signed if any(c < 0 for _, _, c in r.terms)]
        if differences or (signed and not models):
            _from_updates(answer, view, differences or signed, population, tools)
        return Guesses(answer.scores, tuple(dict.fromkeys(answer.reads)), answer.missing)


class _Answer:
    """Scores in the making."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.scores: dict[str, Floats] = {}
        self.reads: list[str] = []
        self.missing: dict[str, str] = {}

    def rows(self, silo: str) -> NDArray[np.int64]:
        """Rows of a silo's candidates in an order of their tokens, so that all who ask share the forward passes."""
        ids = self.candidates.tokens.ids
        rows = [i for i, holder in enumerate(self.candidates.silos) if holder == silo]
        return np.array(sorted(rows, key=lambda i: ids[i].tolist()), dtype=np.int64)

    def put(self, name: str, rows: NDArray[np.int64], values: Floats) -> None:
        self.scores.setdefault(name, np.zeros(len(self.candidates.ids)))[rows] = values


# -- from global models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """From the model after round ``rounds.start - 1`` to ``reading``: the global model after the last of ``rounds``, or
    one silo's own after training."""

    reading: Reading
    rounds: range

    @property
    def own(self) -> bool:
        return self.reading.kind == "upload"


def _models(view: View) -> list[_Step]:
    """The global models that the view holds, by round; the released model's queries where there is no adapter."""
    found = list(view.adapters()) or [r for r in view.readings if r.kind == "query"]
    by_round = {r.round: r for r in found if r.round >= 0}
    steps, start = [], 0
    for round in sorted(by_round):
        steps.append(_Step(by_round[round], range(start, round + 1)))
        start = round + 1
    return steps


def _alone(view: View, silo: str, models: Sequence[_Step]) -> list[_Step]:
    """What sums give of ``silo`` alone, in rounds that start from a known model."""
    starts = {0} | {model.rounds.stop for model in models}
    return [_Step(r, range(r.round, r.round + 1)) for r in view.uploads(silo) if r.handle and r.round in starts]


def summed(view: View) -> list[frozenset[str]]:
    """For every round, whose parts are in its sum, as far as the coalition can tell.

    By the public schedule; but in a round between two known adapters, by what the coalition reads of it, since a silo
    may have dropped out: what such rounds summed follows from the adapters, and is read, unless nothing of them is.
    """
    schedule = [frozenset(silos) for silos in view.public.participants]
    terms: dict[int, set[str]] = {}
    for reading in view.readings:
        if reading.kind in _LINEAR:
            for round, name, _ in reading.terms:
                terms.setdefault(round, set()).add(name)
    known = {r.round for r in view.adapters()} | ({-1} if view.initial_path is not None else set())
    between = {r for r in range(view.public.rounds) if {r - 1, r} <= known}
    # a sum of the coalition's own parts alone leaves no reading: its round is known by the others that leave some
    read = between if between & set(terms) else set()
    return [frozenset(terms.get(r, ())) | (s & view.coalition) if r in read else s for r, s in enumerate(schedule)]


def _may_contrast(view: View, alone: bool) -> bool:
    """Whether ``contrast`` is given, by what all coalitions of an adversary have in common: they must give the same
    scores."""
    settings = view.spec.get("federation", {})
    return alone or len(set(view.public.participants)) > 1 or bool(settings.get("dropouts"))


def _from_models(answer: _Answer, view: View, models: Sequence[_Step], population: Tokens, tools: Tools) -> None:
    silos = sorted(set(answer.candidates.silos))
    alone = {silo: _alone(view, silo, models) for silo in silos}
    may_contrast, may_adjust = _may_contrast(view, any(alone.values())), len(population) >= contrast.LEAST
    if not may_adjust:
        answer.missing["adjusted"] = f"{len(population)} records of the population are fewer than {contrast.LEAST}"
    parts = summed(view)
    patterns: dict[str, list[str]] = {}
    for silo in silos:
        rows = answer.rows(silo)
        steps = [*models, *alone[silo]]
        design = _design(steps, parts, silo, view)
        base, drops = _drops(steps, answer.candidates.tokens.take(rows), tools)
        patterns.setdefault(_describe(steps, parts, silo), []).append(silo)
        answer.put("drop", rows, design.drop(drops))
        if may_contrast:
            answer.put("contrast", rows, (design.contrast if design.contrasting else design.drop)(drops))
        if not design.contrasting:
            answer.missing[f"contrast of {silo}"] = _why_not(design) + "; its drop stands in" * may_contrast
        if may_adjust:
            others_base, others = _drops(steps, population, tools)
            answer.put("adjusted", rows, contrast.adjusted(drops, base, others, others_base, design))
    answer.reads += [f"{_names(silos)}: {pattern}" for pattern, silos in patterns.items()]


def _drops(steps: Sequence[_Step], tokens: Tokens, tools: Tools) -> tuple[Floats, Floats]:
    """(n,) losses under the base model, which the initial adapter leaves as it is, and (steps, n) drops."""
    base = tools.token_stats(None, tokens).losses()
    after = [tools.token_stats(step.reading, tokens).losses() for step in steps]
    known = {0: base} | {step.rounds.stop: losses for step, losses in zip(steps, after, strict=True) if not step.own}
    drops = [known[step.rounds.start] - losses for step, losses in zip(steps, after, strict=True)]
    return base, np.array(drops)


def _design(steps: Sequence[_Step], parts: Sequence[frozenset[str]], silo: str, view: View) -> contrast.Design:
    weights = view.public.weights
    shares = [weights[silo] / sum(weights[s] for s in there) if silo in there else 0.0 for there in parts]
    victim = np.array([1.0 if step.own else sum(shares[r] for r in step.rounds) for step in steps])
    lengths = np.array([sum(bool(parts[r]) for r in step.rounds) for step in steps], dtype=np.float64)
    return contrast.Design(victim, lengths - victim)


def _why_not(design: contrast.Design) -> str:
    if not design.victim.any():
        return "no round that is read sums its part"
    return "its share is the same in all that is read" if (design.victim > 0).all() else "the steps do not part it"


def _describe(steps: Sequence[_Step], parts: Sequence[frozenset[str]], silo: str) -> str:
    """E.g. "models after rounds 0, 1, 2, its part in the sums of rounds 0, 2; alone in round 1"."""
    models = [step for step in steps if not step.own]
    there = [r for r in range(models[-1].rounds.stop) if silo in parts[r]]
    text = f"{'queries' if models[0].reading.kind == 'query' else 'models'} after {_rounds(models)}, "
    text += f"its part in the sum{'s' * (len(there) > 1)} of {_numbered(there)}" if there else "its part in no sum"
    own = [step for step in steps if step.own]
    return text + (f"; alone in {_rounds(own)}" if own else "")


def _rounds(steps: Sequence[_Step]) -> str:
    return _numbered([step.rounds.stop - 1 for step in steps])


def _numbered(numbers: Sequence[int]) -> str:
    return f"round{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _names(silos: Sequence[str]) -> str:
    return ", ".join(silos[:_NAMED]) + (f" and {len(silos) - _NAMED} more" if len(silos) > _NAMED else "")


# -- from combinations of updates --------------------------------------------------------------------------------------


def _from_updates(answer: _Answer, view: View, readings: Sequence[Reading], population: Tokens, tools: Tools) -> None:
    """``projection``: minus the cosine of the record's gradient and the combination, signed as the victim's part is in
    it and standardised by the population's; the mean over combinations with the victim's part, less that over sums
    without it."""
    usable = [(reading, at) for reading in readings if (at := _start(reading, view)) is not None]
    if not usable:
        answer.missing["projection"] = "no adapter is known at which gradients could be taken"
        return
    scales = [_scale(reading, at, population, tools) for reading, at in usable]
    for silo in sorted(set(answer.candidates.silos)):
        rows = answer.rows(silo)
        tokens = answer.candidates.tokens.take(rows)
        with_it: list[Floats] = []
        without: list[Floats] = []
        for (reading, at), (mean, spread) in zip(usable, scales, strict=True):
            coefficient = sum(c for _, name, c in reading.terms if name == silo)
            if coefficient or all(c > 0 for _, _, c in reading.terms):
                made = (_cosines(reading, at, tokens, tools) - mean) / spread
                (with_it if coefficient else without).append(-made if coefficient < 0 else made)
        found = np.mean(with_it, axis=0) if with_it else np.zeros(len(rows))
        if with_it and without:
            found -= np.mean(without, axis=0)
        answer.put("projection", rows, found)
        if not with_it:
            answer.missing[f"projection of {silo}"] = "no combination that is read holds its part"
    answer.reads += [f"{reading.kind} {_terms(reading)}" for reading, _ in usable]


def _start(reading: Reading, view: View) -> Array | None:
    """The adapter that the reading's round started from; else the initial one."""
    before = reading.before
    return view.initial if before is None else before


def _scale(reading: Reading, at: Array, population: Tokens, tools: Tools) -> tuple[float, float]:
    """Mean and deviation of the population's cosines; (0, 1) for fewer than two records."""
    if len(population) < 2:
        return 0.0, 1.0
    others = _cosines(reading, at, population, tools)
    return float(others.mean()), max(float(others.std(ddof=1)), 1e-9)


def _cosines(reading: Reading, at: Array, tokens: Tokens, tools: Tools) -> Floats:
    """(n,) minus the cosine of each record's gradient and the reading's values: training moves against the gradient."""
    values = np.asarray(reading.values, dtype=np.float64)
    size = float(np.linalg.norm(values)) or 1.0
    gradients = tools.record_gradients(at, tokens)
    return np.array([-float(g @ values) / ((float(np.linalg.norm(g)) or 1.0) * size) for g in gradients])


def _terms(reading: Reading) -> str:
    return " ".join(f"{'+' if c > 0 else '-'}{silo} of round {r}" for r, silo, c in reading.terms)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Difference(config)
