"""Did an organisation take part? From texts of its kind that nobody trained on, in a run of its own.

Two organisations of different kinds may fill each silo's place, and a coin decides
(``bench.training.variants.participation``). The adversary trains on every organisation's fresh texts by itself, as a
silo would, and takes what happened for a weighted sum of what these trainings do:

    u  =  sum over organisations o of w_o s_o  +  rest

by least squares; w_o is the organisation's score. Where an adapter is known, u is its change in training: what the silo
that fills the place added in its opened uploads, else the last global adapter less itself with B = 0; and s_o is the
mean change of ``simulations`` trainings on o's texts from the same start. Where the released model only answers
queries, or the last adapter was folded into frozen weights, u is what the log-probability of each token of all fresh
texts gained over the base model, and s_o what it gains by training on one half of o's texts, for the texts of the other
halves. A coalition with silos adds its own kind of texts as one more organisation. That kinds differ in how easily they
are learnt, which a plain fall of the loss mistakes for having been trained on, is in s_o.

Ours; simulated training on the adversary's own data is that of shadow models (Shokri et al. 2017), the question that of
Hu et al. 2021 ("Source inference attacks in federated learning") for a silo as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rounds.tracks import own_steps, whole
from attacks.shadowing import describe
from bench.attack.attack import Answers, Attack, Organisation, Tools
from bench.attack.by_game import ParticipationAttack
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.spec.config import Config as BaseConfig
from bench.spec.run import LocalSpec, PluginSpec
from bench.view.view import adapter_handle

if TYPE_CHECKING:
    from bench.spec.run import RunSpec
    from bench.view.view import View

api = 1
version = 1

Floats = NDArray[np.float64]


class Config(BaseConfig):
    """``simulations``: trainings per organisation, over which its change is averaged. ``steps``: no more local steps
    than these in each."""

    simulations: int = Field(4, ge=1, le=1000)
    steps: int = Field(16, ge=1, le=100_000)


class Participation(ParticipationAttack):
    """Explains what training did by what training on each organisation's kind of text does."""

    needs = frozenset({"query", "adapter", "upload"})
    knows = "population"

    def __init__(self, config: Config) -> None:
        self.config = config

    def variant(self, adversary: str) -> PluginSpec | None:
        return PluginSpec(name="participation")

    def work(self, spec: RunSpec) -> float:
        """Simulations of two organisations a place, each on as many texts as are left out of training."""
        texts = spec.pool.candidates - math.ceil(spec.pool.candidates * spec.pool.share)
        taken = min(self.config.steps, _steps(spec.federation.local, texts)) * min(spec.federation.local.batch, texts)
        return 2 * spec.federation.silos * self.config.simulations * 3 * taken

    def took_part(self, view: View, organisations: Sequence[Organisation], tools: Tools) -> Answers:
        """(organisations,) weights w; 0 for both of a place of which nothing opened, or which did not change."""
        local = LocalSpec.model_validate(view.spec.get("federation", {}).get("local", {}))
        texts = [_sorted(one.tokens) for one in organisations]
        if tools.own is not None and tools.own.member.any():
            texts.append(_sorted(tools.own.tokens.take(np.flatnonzero(tools.own.member))))
        scores = np.zeros(len(organisations))
        reads: dict[str, None] = {}
        for place in dict.fromkeys(one.place for one in organisations):
            found = self._of_place(view, place, texts, local, tools)
            if found is None:
                continue
            weights, read = found
            reads[read] = None
            for number, one in enumerate(organisations):
                if one.place == place:
                    scores[number] = weights[number]
        return Answers(scores, tuple(reads))

    def _of_place(
        self, view: View, place: str, texts: Sequence[Tokens], local: LocalSpec, tools: Tools
    ) -> tuple[Floats, str] | None:
        """(texts,) weights, and what was read; None where nothing opened."""
        layout = tools.model.layout
        known = own_steps(view, place) or whole(view, layout)
        change = np.sum([step.update(layout) for step in known], axis=0)
        if np.any(change):
            at = known[0].before()
            return _weights(change, [self._change(tools, at, one, local) for one in texts]), known[-1].reads
        last = view.last_adapter(place)
        if last is None:
            return None
        gained = _joined(texts, [tools.token_stats(last, one).logp for one in texts], tools)
        taught = [self._gain(tools, number, texts, local) for number in range(len(texts))]
        return _weights(gained, taught), describe(last)

    def _change(self, tools: Tools, at: NDArray[np.float32], texts: Tokens, local: LocalSpec) -> Floats:
        """(layout.size,) mean change of the trained values over the simulations on ``texts``, from ``at``; zeros
        without texts."""

        def make() -> Floats:
            from attacks.rowspace.learned import simulate

            count = min(self.config.steps, _steps(local, len(texts)))
            orders = (np.random.default_rng(k) for k in range(self.config.simulations))
            changes = [simulate(tools.model, at, texts, local, count, order) for order in orders]
            return np.asarray(np.mean(changes, axis=0), np.float64)

        if not len(texts):
            return np.zeros(tools.model.layout.size)
        asked = self.config.model_dump_json(), local.model_dump_json()
        made: Floats = tools.once((__name__, *asked, adapter_handle(at), texts.digest), make)
        return made

    def _gain(self, tools: Tools, number: int, texts: Sequence[Tokens], local: LocalSpec) -> Floats:
        """(tokens,) what training on each half of ``texts[number]`` teaches about the other halves of all texts."""
        at = tools.model.initial_adapter(np.random.default_rng(0))
        later = [np.zeros(one.ids.shape) for one in texts]
        for half in (0, 1):
            change = self._change(tools, at, texts[number].take(_halves(texts[number])[half]), local)
            adapter = (at + change).astype(np.float32)
            for logp, one in zip(later, texts, strict=True):
                if len(rows := _halves(one)[1 - half]):
                    part = one.take(rows)
                    logp[rows, : part.ids.shape[1]] = tools.stats_under(adapter, part).logp
        return _joined(texts, later, tools)


def _steps(local: LocalSpec, records: int) -> int:
    """Local steps that a silo takes in a round."""
    return local.steps or local.epochs * math.ceil(records / local.batch)


def _sorted(tokens: Tokens) -> Tokens:
    """In an order that depends on the texts alone."""
    return tokens.take(sorted(range(len(tokens)), key=lambda i: tokens.ids[i].tolist()))


def _halves(tokens: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of both halves, in random order."""
    order = np.random.default_rng(len(tokens)).permutation(len(tokens))
    return order[::2], order[1::2]


def _joined(texts: Sequence[Tokens], later: Sequence[NDArray[Any]], tools: Tools) -> Floats:
    """(tokens,) of every predicted token of all texts, ``later`` less the base model's log-probability."""
    before = [tools.token_stats(None, one) for one in texts]
    gains = [(logp - base.logp)[base.predicted] for logp, base in zip(later, before, strict=True)]
    return np.concatenate(gains).astype(np.float64)


def _weights(observed: Floats, simulated: Sequence[Floats]) -> Floats:
    """(k,) of the least-squares sum, each of ``simulated`` at length 1; of several that fit alike, the shortest. Raises
    SiloBenchError where one of them, or what was observed, is no number."""
    columns = np.stack(simulated, axis=1)
    if not (np.isfinite(columns).all() and np.isfinite(observed).all()):
        raise SiloBenchError("training did not converge: a simulated or an observed change of the adapter is no number")
    lengths = np.linalg.norm(columns, axis=0)
    found = np.linalg.lstsq(columns / np.where(lengths > 0, lengths, 1.0), observed, rcond=None)[0]
    return np.asarray(found, np.float64)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Participation(config)
