"""The shares of the labels among a silo's records, from what its training did to the labels that the model expects.

``simulated``: where a change in one round is known (the silo's own first opened upload, else the first known step of
the global adapter), the adversary trains as the silo would, from the same start, on records of the population: once for
every label j, on records of which that label has a share of ``lean`` beside the population's shares. Let d be the
change of the probability of every label among all labels, at the places of the answers of other records of the
population; d_j the same of simulation j, and q_j the shares of labels that it was trained on. Then

    shares  =  sum over labels j of w_j q_j  /  sum of w_j,      w  =  argmin |d - sum over j of w_j d_j|,  w >= 0.

No answer is more one-sided than the simulations are, and nothing is fitted to answers of targets.

``expected``: what the last model expects of the labels over the population's records. Where a classifier fits a free
bias for every label, the shares that it expects over its training records are those that it was trained on (the score
equation of logistic regression); over other records it leans towards theirs. So it errs little where silos differ by
chance alone, which the public settings tell (``iid``), and it is all that there is where only the last model is known,
or is asked.

Ours; models that the adversary trains to learn what a property of the data does to them are those of Ganju et al. 2018,
updates as what shows it those of Melis et al. 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rounds.tracks import Step, global_steps, own_steps
from attacks.shadowing import describe
from attacks.sparse import nominal_size
from bench.attack.attack import Attack, Shares, Tools
from bench.attack.by_game import PropertyAttack
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.spec.config import Config as BaseConfig
from bench.spec.run import LocalSpec
from bench.view.view import adapter_handle

if TYPE_CHECKING:
    from bench.core.update import Layout
    from bench.model.lora import LoraModel
    from bench.spec.run import RunSpec
    from bench.view.view import Reading, View

api = 1
version = 1

Floats = NDArray[np.float64]

#: records of the population that are asked about: a share is then known to .06 at worst, where the victim's own records
#: are fewer still
POPULATION = 64
#: of simulations: their number follows from the task's labels, which a plan doesn't know
_SUPPOSED = 4


class Config(BaseConfig):
    """``method``: ``auto`` is ``expected`` where silos are alike by the public settings (``iid``), else ``simulated``
    where a change is known. ``simulations``: of every label. ``lean``: how far their shares go from the population's
    to a single label's. ``steps``: no more local steps than these in each."""

    method: Literal["auto", "simulated", "expected"] = "auto"
    simulations: int = Field(1, ge=1, le=1000)
    lean: float = Field(0.75, gt=0, le=1)
    steps: int = Field(16, ge=1, le=100_000)


@dataclass(frozen=True)
class Known:
    """The population's records with an answer and a label: one half to train on, one to ask about.

    ``words``: (labels,) the token that names each label; -1 for one that no record has. ``shares``: (labels,).
    """

    words: NDArray[np.int64]
    shares: Floats
    taught: Tokens
    taught_labels: NDArray[np.int64]
    asked: Tokens

    @classmethod
    def of(cls, tools: Tools) -> Known | None:
        """None where fewer than two labels have two records."""
        count = len(tools.labels)
        labels = np.where(tools.population.answer >= 0, tools.population_labels, -1)
        rows = [np.flatnonzero(labels == one) for one in range(count)]
        if sum(len(one) > 1 for one in rows) < 2:
            return None
        shares = np.array([len(one) for one in rows]) / sum(map(len, rows))
        first = np.sort(np.concatenate([one[::2] for one in rows]))
        second = np.concatenate([one[1::2] for one in rows])
        # of every label alike, as far as they go
        depth = np.concatenate([np.arange(len(one[1::2])) for one in rows])
        second = np.sort(second[np.argsort(depth, kind="stable")[: POPULATION // 2]])
        words, shared = label_tokens(tools.population, labels, count)
        taught, asked = tools.population.take(first), _beyond(tools.population.take(second), shared)
        return cls(words, shares, taught, labels[first], asked)

    def mixture(self, label: int, lean: float, records: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(records,) rows of ``taught``, drawn at random; some of them repeatedly where it has too few of a label."""
        wanted = (1 - lean) * self.shares + lean * (np.arange(len(self.shares)) == label)
        bounds = np.round(np.cumsum(wanted) * records).astype(int)
        rows = [rng.permutation(np.flatnonzero(self.taught_labels == one)) for one in range(len(wanted))]
        return np.concatenate([np.resize(r, n) for r, n in zip(rows, np.diff(bounds, prepend=0), strict=True)])


class LabelDistribution(PropertyAttack):
    """Compares what a silo's training did to the expected labels with what training on known shares does."""

    needs = frozenset({"adapter", "upload", "query"})
    knows = "population"
    turn = 0

    def __init__(self, config: Config) -> None:
        self.config = config

    def work(self, spec: RunSpec) -> float:
        """Records of the population under every silo's upload and the global adapter; or before it and under every
        simulation, of which a plan supposes four; a step of a simulation as three passes."""
        if not self._simulates(spec.federation.partition):
            return (spec.federation.silos + 1) * min(spec.pool.population, POPULATION)
        asked = min(spec.pool.population, POPULATION) / 2
        local, records = spec.federation.local, round(spec.pool.candidates * spec.pool.share)
        trained = self._steps(local, records) * min(local.batch, records)
        return (spec.federation.silos + 1 + _SUPPOSED) * asked + _SUPPOSED * 3 * trained

    def _simulates(self, partition: str | None) -> bool:
        return self.config.method == "simulated" or (self.config.method == "auto" and partition != "iid")

    def _steps(self, local: LocalSpec, records: int) -> int:
        taken = local.steps or local.epochs * math.ceil(records / local.batch)
        return max(1, min(self.config.steps, taken))

    def label_shares(self, view: View, victims: Sequence[str], tools: Tools) -> Shares:
        """None for a victim of which nothing opened. Raises SiloBenchError where training did not converge."""
        known = Known.of(tools) if self._simulates(view.spec.get("federation", {}).get("partition")) else None
        found: list[Floats | None] = []
        reads: dict[str, None] = {}
        for victim in victims:
            step = _first(view, victim, tools.model.layout) if known else None
            reading = step.end if step else view.last_adapter(victim)
            if reading is None:
                found.append(None)
                continue
            shares = self._explained(view, victim, step, known, tools) if step and known else None
            found.append(expected(tools, reading) if shares is None else shares)
            reads[describe(reading)] = None
        return Shares(tuple(found), tuple(reads))

    def _explained(self, view: View, victim: str, step: Step, known: Known, tools: Tools) -> Floats | None:
        """(labels,) shares; None where what the model expects went nowhere that simulations went."""
        at, words = step.before(), known.words[known.words >= 0].tolist()
        before = tools.once(
            (__name__, "before", adapter_handle(at), known.asked.digest, *words),
            lambda: _chances(tools.model, at, known.asked, words),
        )
        after = _among(tools.word_logp(step.end, known.asked, known.asked.answer, words))
        changes, trained = self._simulated(view, victim, at, before, known, tools)
        weights = convex(changes, (after - before).ravel())
        return None if weights is None else weights @ trained

    def _simulated(
        self, view: View, victim: str, at: NDArray[np.float32], before: Floats, known: Known, tools: Tools
    ) -> tuple[Floats, Floats]:
        """Of a simulation for every label: (simulations, records x words) changes, (simulations, labels) shares."""
        local = LocalSpec.model_validate(view.spec.get("federation", {}).get("local", {}))
        records, words = nominal_size(view, victim), known.words[known.words >= 0].tolist()
        labels, steps = np.unique(known.taught_labels), self._steps(local, records)
        drawn = min(records, steps * local.batch)

        def make() -> tuple[Floats, Floats]:
            from attacks.rowspace.learned import simulate

            changes, shares = [], []
            for label, number in product(labels.tolist(), range(self.config.simulations)):
                rng = np.random.default_rng([number, label])
                rows = known.mixture(label, self.config.lean, drawn, rng)
                change = simulate(tools.model, at, known.taught.take(rng.permutation(rows)), local, steps, rng)
                adapter = at.copy()
                adapter[: len(change)] += change.astype(np.float32)
                changes.append((_chances(tools.model, adapter, known.asked, words) - before).ravel())
                shares.append(np.bincount(known.taught_labels[rows], minlength=len(known.shares)) / len(rows))
            return np.array(changes), np.array(shares)

        asked = self.config.model_dump_json(), local.model_dump_json(), steps, drawn, adapter_handle(at)
        made: tuple[Floats, Floats] = tools.once(
            (__name__, *asked, known.taught.digest, known.taught_labels.tobytes(), known.asked.digest, *words), make
        )
        return made


def _first(view: View, victim: str, layout: Layout) -> Step | None:
    """The silo's first known change in one round, else that of the global adapter; None where there is none."""
    own = own_steps(view, victim)
    if own:
        return own[0]
    if view.initial_path is None and len(view.adapters()) < 2:
        return None
    steps = global_steps(view, layout)
    return next((s for s in steps if s.round == (s.start.round + 1 if s.start else 0)), None)


def _chances(model: LoraModel, adapter: NDArray[np.float32], asked: Tokens, words: Sequence[int]) -> Floats:
    """(n, k) probability of each of ``words`` among all of them at the answers under ``adapter``; the model is
    given back as it was."""
    kept = model.get_adapter()
    model.set_adapter(adapter)
    try:
        choices = model.stats(asked, words).choices
    finally:
        model.set_adapter(kept)
    assert choices is not None
    return _among(choices.astype(np.float64))


def _among(logp: Floats) -> Floats:
    """Probabilities among the columns alone."""
    chance = np.exp(logp - logp.max(axis=1, keepdims=True))
    return np.asarray(chance / chance.sum(axis=1, keepdims=True), np.float64)


def convex(changes: Floats, observed: Floats) -> Floats | None:
    """(k,) weights that sum to 1, in proportion to the non-negative least-squares weights of ``changes`` (k, m) for
    ``observed`` (m,); None where these are all zero. Raises SiloBenchError where one of them is no number."""
    from scipy.optimize import nnls

    if not (np.isfinite(changes).all() and np.isfinite(observed).all()):
        raise SiloBenchError("training did not converge: an expected label's probability is no number")
    weights = np.asarray(nnls(changes.T, observed)[0], np.float64)
    total = float(weights.sum())
    return weights / total if total > 0 else None


def label_tokens(population: Tokens, labels: NDArray[np.integer], count: int) -> tuple[NDArray[np.int64], int]:
    """(count,) the token that tells each label from the others, from the population's answers (-1 where no record has
    it), and how many tokens all labels begin with. Raises SiloBenchError where two go on alike."""
    rows: dict[int, tuple[int, ...]] = {}
    for one in range(count):
        having = np.flatnonzero((labels == one) & (population.answer >= 0))
        if len(having):
            row = having[0]
            rows[one] = tuple(population.ids[row, population.answer[row] : population.lengths[row]].tolist())
    shared = _shared(list(rows.values()))
    found = np.full(count, -1)
    for one, ids in rows.items():
        found[one] = ids[shared] if shared < len(ids) else -1
    named = found[list(rows)]
    if len(set(named.tolist())) < len(rows) or (len(rows) > 1 and (named < 0).any()):
        raise SiloBenchError("two labels begin with the same tokens of this model: one token does not tell them apart")
    return found, shared


def _shared(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all of several rows begin with."""
    if len(rows) < 2:
        return 0
    return next((k for k, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), min(map(len, rows)))


def _beyond(tokens: Tokens, shared: int) -> Tokens:
    """The records with their answers ``shared`` tokens on, where labels part."""
    return replace(tokens, answer=np.where(tokens.answer >= 0, tokens.answer + shared, -1).astype(np.int32))


def expected(tools: Tools, reading: Reading) -> Floats:
    """(labels,) how often the model behind ``reading`` expects each label over the first ``POPULATION`` records that
    have an answer; all alike where none has. A label that no record has is expected nowhere."""
    words, shared = label_tokens(tools.population, tools.population_labels, len(tools.labels))
    known = np.flatnonzero(words >= 0)
    asked = _beyond(tools.population.take(np.flatnonzero(tools.population.answer >= 0)[:POPULATION]), shared)
    if not len(asked) or not len(known):
        return np.full(len(words), 1 / len(words))
    logp = tools.word_logp(reading, asked, asked.answer, words[known].tolist())
    shares = np.zeros(len(words))
    shares[known] = _among(logp).mean(axis=0)
    total: float = float(shares.sum())
    return np.asarray(shares / total, dtype=np.float64)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return LabelDistribution(config)
