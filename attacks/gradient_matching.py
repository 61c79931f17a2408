"""Gradient matching with a language prior: records are guessed whose simulated LoRA update is the observed one.

Guesses grow token by token from the tokens that the row space ranks first, each kept if its gradient agrees with the
update and the base model finds it natural; then tokens are swapped while that agrees better (LAMP's alternation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rowspace.uploads import OnUploads, Rounds, Solver
from bench.attack.attack import Attack, Reconstruction, Target
from bench.games.baselines import carriers, expected_distinct, most_likely
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from attacks.rowspace.observe import Observed
    from attacks.rowspace.search import Grown
    from attacks.rowspace.session import Session
    from attacks.rowspace.simulate import Matcher
    from bench.spec.run import RunSpec
    from bench.view.view import View

api = 1
version = 1

Ids = tuple[int, ...]

#: records of the population from which it is learned how far unrelated gradients agree, and what is taken without one
EXAMPLES, USUAL = 12, 200.0
#: a cosine from which a guess is better than the ranking of tokens, so that its tokens are claimed
TRUSTED = 0.9


class Config(BaseConfig):
    """``budget``: forward and backward passes of one record each, per target; its cost is bounded by that. ``width``:
    guesses that are grown side by side. ``choices``: tokens tried after each. ``records``: no more are grown per
    target. ``rounds``: those that are attacked."""

    budget: int = Field(2000, ge=10, le=10_000_000)
    width: int = Field(4, ge=1, le=1024)
    choices: int = Field(16, ge=2, le=4096)
    records: int = Field(4, ge=1, le=1024)
    rounds: Rounds = (0,)


class GradientMatching(OnUploads):
    """Guesses records whose simulated update is the observed one."""

    config: Config

    def work(self, spec: RunSpec) -> float:
        """The whole budget of every target."""
        return 3 * self.config.budget * spec.federation.silos * len(self.rounds)

    def budget(self, spec: RunSpec) -> str:
        targets = spec.federation.silos * len(self.rounds)
        return (
            f"at most {self.config.budget:,} forward and backward passes of one record for each of at most {targets} "
            "targets (gradient-matching.budget)"
        )

    def solver(self, session: Session, view: View) -> Solver:
        def solve(target: Target, seen: Observed, beside: Sequence[Observed]) -> Reconstruction:
            rng = np.random.default_rng([target.round, *target.silo.encode()])
            return _Solver(self.config, session, target, seen, rng).solve()

        return solve


@dataclass
class _Solver:
    """One target."""

    config: Config
    session: Session
    target: Target
    seen: Observed
    rng: np.random.Generator

    def solve(self) -> Reconstruction:
        from attacks.rowspace.simulate import Matcher

        first = self.session.solve(self.target, self.seen)
        certain = first.exact or len(self.session.found.tokens) > 0
        known = self.session.found.tokens
        matcher = Matcher(self.session.model, self.seen, self.seen.signs, self.config.budget)
        prior = _prior(self.session.found.evidence - self.session.log_odds(self.target), known)
        records = self._records(matcher, prior, known, first.sequences)
        sequences = (*(r.ids for r in records), *first.sequences)[: self.target.records]
        held, scores = first.token_set, first.token_scores.copy()
        if not certain and any(r.cosine >= TRUSTED for r in records):
            held = self._filled(np.unique([t for r in records for t in r.ids[:-1]]).astype(np.int64), scores)
            scores[held] += scores.max() - scores.min() + 1
        reads = f"{self.seen.reads}, at most {self.config.budget} passes"
        return Reconstruction(self.target, scores, held, sequences, first.exact, reads)

    def _filled(self, held: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """The tokens of the records that were grown, and as many of the best-ranked others as the rest should hold."""
        session = self.session
        rest = self.target.records - min(self.target.records, self.config.records)
        if not rest:
            return held
        count = expected_distinct(session.tools.population, session.model.vocab_size, self.target.records)
        return np.union1d(held, most_likely(scores, max(count - len(held), 0)))

    def _records(
        self, matcher: Matcher, prior: NDArray[np.float64], tokens: NDArray[np.int64], guesses: Sequence[Ids]
    ) -> list[Grown]:
        """Records one after the other, each for what those before it leave unexplained: the row space's own guess or
        one grown from nothing, whichever scores better, then improved by swaps."""
        from attacks.rowspace.search import Plan, begin, directions, grow, swap
        from attacks.rowspace.simulate import Spent, log_records

        population = self.session.tools.population
        longest = int(population.lengths.max()) if len(population) else 64
        config, start = self.config, self.session.starts()[0]
        found: list[Grown] = []
        try:
            examples = self._examples()
            usual = directions(matcher, examples, start) if len(population) > 1 else USUAL
            cost = -log_records(matcher.model, matcher.before, examples, start).sum()
            each = float(cost) / max(sum(len(e) - start for e in examples), 1)
            plan = Plan(config.width, config.choices, longest, start, usual, each)
            for _ in range(min(self.target.records, config.records)):
                left = _left(matcher.wanted, found)
                open_to = [ids for ids in guesses if len(ids) > start and ids not in {f.ids for f in found}]
                best = begin(matcher, plan, open_to, left) if open_to else None
                if best is None or best.cosine < TRUSTED:
                    grown = grow(matcher, plan, self._openings(start, prior), prior, left)
                    best = max([grown, *([best] if best else [])], key=lambda g: g.score + plan.length(g.ids))
                likely = tokens if len(tokens) else np.argsort(-prior, kind="stable")[: 4 * config.choices]
                found.append(swap(matcher, plan, best, likely.tolist(), left, self.rng))
        except Spent:
            pass
        return found

    def _examples(self) -> list[Ids]:
        """Some records of the population, spread over it."""
        population = self.session.tools.population
        rows = np.unique(np.linspace(0, len(population) - 1, EXAMPLES).astype(int))
        return [tuple(int(t) for t in population.ids[i, : population.lengths[i]]) for i in rows]

    def _openings(self, start: int, prior: NDArray[np.float64]) -> list[Ids]:
        """What records may begin with before they carry loss: the likeliest tokens, or the population's prompts."""
        population = self.session.tools.population
        if start == 1 and not population.lead:
            ranked = prior + self._first()
            return [(int(t),) for t in np.argsort(-ranked, kind="stable")[: self.config.choices]]
        seen: dict[Ids, int] = {}
        for row in population.ids[:, :start]:
            ids = tuple(int(t) for t in row)
            seen[ids] = seen.get(ids, 0) + 1
        return sorted(seen, key=lambda ids: (-seen[ids], ids))[: self.config.choices]

    def _first(self) -> NDArray[np.float64]:
        """(vocabulary,) log-odds of each token as a record's first against anywhere, from the population."""
        size = self.session.model.vocab_size
        rows = carriers(self.session.tools.population)
        first = np.bincount([int(r[0]) for r in rows if len(r)], minlength=size) + 1e-2
        anywhere = np.bincount(np.concatenate([*rows, np.zeros(0, np.int64)]).astype(int), minlength=size) + 1.0
        return np.asarray(np.log(first / first.sum()) - np.log(anywhere / anywhere.sum()))


def _prior(evidence: NDArray[np.float64], tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Nats for each token being there: those of the ranking beyond what the population says, or, where the tokens are
    known, for all of them and nothing else."""
    if not len(tokens):
        return np.asarray(np.clip(evidence - evidence.max(), -12, 0))
    prior = np.full(len(evidence), -25.0)
    prior[tokens] = 0.0
    return prior


def _left(wanted: NDArray[np.float32], found: Sequence[Grown]) -> NDArray[np.float32]:
    """What the records found so far, each weighted to fit best, leave of the update."""
    if not found:
        return wanted
    totals = np.stack([g.total for g in found]).astype(np.float64)
    weights = np.linalg.lstsq(totals.T, wanted.astype(np.float64), rcond=None)[0]
    return np.asarray(wanted - np.maximum(weights, 0) @ totals, np.float32)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return GradientMatching(config)
