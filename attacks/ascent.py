"""A server that climbs: it raises the loss of the candidates, and sees whose silo brings it down again.

In every round the adapter that is sent out is moved by gradient ascent on the candidates' loss, of all or of one half
in turns. A silo that trains on a record pulls its loss back down; a record that nobody trains on stays up (Nasr, Shokri
and Houmansadr 2019, "Comprehensive privacy analysis of deep learning", the active attack with gradient ascent).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.deviating import Likelihoods, as_outgoing, global_adapter
from attacks.mia import Config as Scores
from attacks.shadowing import by_silo
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.behaviour import Behaviour, Honest, Scene
from bench.core.parties import SERVER
from bench.core.tokens import Tokens
from bench.core.update import Array
from bench.defense.channel import Message, Outgoing

if TYPE_CHECKING:
    from bench.model.lora import LoraModel
    from bench.view.view import Reading, View

api = 1
version = 2


class Config(Scores):
    """``rise``: how far the climb raises the mean loss, in nats per token. ``steps``: at most so many steps of it, each
    of root mean square ``size`` per value. ``rounds``: it climbs in the first so many rounds. ``halves``: of one half
    of the candidates at a time. ``controls``: so many of the population's gradients are kept out of the climb. The
    others: options of the likelihood scores."""

    rise: float = Field(0.3, gt=0, le=50)
    steps: int = Field(40, ge=1, le=10_000)
    halves: bool = False
    controls: int = Field(16, ge=0, le=1000)
    size: float = Field(1e-3, gt=0, le=10)
    rounds: int = Field(1_000_000, ge=1)


class Ascent(Behaviour):
    """Sends what an honest server would send, after the climb."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def act(
        self, party: str, stage: str, round: int, inbox: Sequence[Message], honest: Honest, scene: Scene
    ) -> Iterable[Outgoing]:
        climbs = (party, stage) == (SERVER, "broadcast") and round < self.config.rounds
        return self._broadcast(round, honest(inbox), scene) if climbs else honest(inbox)

    def _broadcast(self, round: int, honest: Iterable[Outgoing], scene: Scene) -> Iterator[Outgoing]:
        for message in honest:
            start = global_adapter(message, scene.public)
            asked = scene.candidates.take(np.flatnonzero(chosen(scene.candidates, round, self.config.halves)))
            yield as_outgoing(message.receivers, climb(scene.model, start, asked, scene.population, self.config))


def chosen(tokens: Tokens, round: int, halves: bool) -> NDArray[np.bool_]:
    """(n,) whose loss is raised in ``round``: all, or of ``halves`` those whose tokens' digest is odd in even rounds,
    the others in odd ones. Of a record alone, so that no order or number of candidates matters."""
    if not halves:
        return np.ones(len(tokens), dtype=np.bool_)
    parts = zip(tokens.ids, tokens.lengths, strict=True)
    parity = [hashlib.sha256(np.ascontiguousarray(ids[:n], "<i4").tobytes()).digest()[0] % 2 for ids, n in parts]
    return np.array([bit != round % 2 for bit in parity], dtype=np.bool_)


def climb(model: LoraModel, start: Array, tokens: Tokens, population: Tokens, config: Config) -> Array:
    """``start`` after steps of ``config.size`` along the gradient of the mean loss of ``tokens``, until it is up by
    ``config.rise`` nats or the steps are used up. What the gradient has in common with those of the population, at the
    start, is left out: a model that got worse at everything would be mended by every silo."""
    from bench.model.gradients import record_gradients

    at = np.array(start, dtype=np.float32)
    if not len(tokens):
        return at
    tokens = tokens.take(_in_order(tokens))
    common = _common(model, start, population, config.controls)
    first: float | None = None
    for _ in range(config.steps):
        model.set_adapter(at)
        loss = float(np.mean(model.stats(tokens).losses()))
        first = loss if first is None else first
        if loss >= first + config.rise:
            break
        slope = np.sum([g.astype(np.float64) for g in record_gradients(model, at, tokens)], axis=0)
        slope -= common @ (common.T @ slope)
        norm = float(np.linalg.norm(slope))
        if norm == 0:
            break
        at[: len(slope)] += (config.size * len(slope) ** 0.5 / norm * slope).astype(np.float32)
    return at


def _in_order(tokens: Tokens) -> list[int]:
    """Rows by their tokens alone, so that sums of floats are the same in whatever order records are asked about."""
    return sorted(range(len(tokens)), key=lambda row: tokens.ids[row].tolist())


def _common(model: LoraModel, at: Array, population: Tokens, most: int) -> NDArray[np.float64]:
    """(size, at most ``most``) an orthonormal basis of the gradients of so many of the population's records."""
    from bench.model.gradients import record_gradients

    few = population.take(np.arange(min(most, len(population))))
    slopes = [g.astype(np.float64) for g in record_gradients(model, at, few)]
    if not slopes:
        return np.zeros((model.layout.size, 0))
    return np.linalg.qr(np.stack(slopes, axis=1))[0]


class Fall(Likelihoods):
    """How far a record's loss falls from what was sent to what came back, beside the likelihood family."""

    name = "ascent"

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.behaviour = Ascent(config)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """``fall``: mean over the rounds in which the record's loss was raised of the loss under the adapter that was
        sent less that after the silo's update, or after the round where only that is known. Where silos open the sums,
        the first broadcast is all that a server sends, and the fall is from there to the last known adapter."""
        found = super().infer(view, candidates, tools)
        fall, reads = np.zeros(len(candidates.ids)), found.reads
        first = self._first(view, candidates, tools)
        for silo, rows in by_silo(candidates).items():
            tokens = candidates.tokens.take(rows)
            total, count = np.zeros(len(rows)), np.zeros(len(rows))
            pairs = list(_pairs(view, silo))
            last = self.reading(view, silo)
            if not pairs and first is not None and last is not None:
                pairs = [(0, first, last)]
                reads = tuple(dict.fromkeys((*reads, "the adapter that it sent in round 0, the only one")))
            for round, sent, after in pairs:
                raised = chosen(tokens, round, self.config.halves)
                before = tools.stats_under(sent, tokens).losses()
                total += np.where(raised, before - tools.token_stats(after, tokens).losses(), 0.0)
                count += raised
            fall[rows] = total / np.maximum(count, 1)
        return Guesses({**found.scores, "fall": fall}, reads, found.missing)

    def _first(self, view: View, candidates: Candidates, tools: Tools) -> Array | None:
        """What was sent in round 0, climbed again, where no reading is known to have started from it."""
        if view.initial is None or any(r.before is not None and r.silos for r in view.readings):
            return None
        asked = candidates.tokens.take(np.flatnonzero(chosen(candidates.tokens, 0, self.config.halves)))
        return climb(tools.model, view.initial, asked, tools.population, self.config)


def _pairs(view: View, silo: str) -> Iterator[tuple[int, Array, Reading]]:
    """(round, the adapter that ``silo`` was sent, what is read of it after the round)."""
    for round in range(view.public.rounds):
        started = [r.before for r in view.readings if r.round == round and silo in r.silos and r.before is not None]
        own = view.uploads(silo, round)
        after = own[0] if own and own[0].handle else next((a for a in view.adapters() if a.round == round), None)
        if started and after is not None:
            yield round, started[0], after


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Fall(config)
