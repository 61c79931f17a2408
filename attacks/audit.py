"""An audit: planted canaries, and how far what was released tells which of them were trained on.

The run is one of its own, in which every canary is trained on by the toss of its own fair coin
(``bench.training.variants.audit``). This attack gives each canary a score; the game turns scores into guesses, and
guesses into lower bounds on epsilon (``bench.games.audit``). One score counts, fixed here for each kind of view:

* how far training lowered the canary's loss, from the base model to the last adapter that opened;
* where steps of training are known, that plus twice the canary's weight in them, each in units of its own spread.

A step u = -(after - before) is taken as a sum of the unit gradients g_j that canaries and population records had at its
start, and the weights w are those of ridge regression, w = (G G^T + lambda I)^-1 G u; added up over steps. With lambda
large it is the inner product <g, u> of Andrew et al. 2024; but texts have gradients that share directions, which
regression takes off. The weight is what is left where noise hides the rest; the loss tells more where a round
takes many steps, of whose sum the gradient at its start knows little. The spread is that of the densest part of the
canaries' scores, for which no coin is needed: a score that falls into two heaps outweighs one that does not.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attacks.rounds import tracks
from attacks.shadowing import by_silo, describe
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.attack.by_game import AuditAttack
from bench.spec.config import Config as BaseConfig
from bench.spec.run import PluginSpec
from bench.training.variants.canaries import Kind

if TYPE_CHECKING:
    from attacks.rounds.tracks import Step
    from bench.core.tokens import Tokens
    from bench.core.update import Array
    from bench.view.view import View

api = 1
version = 1

Floats = NDArray[np.float64]

#: the score that the game counts
COUNTED = "audit"
#: lambda of the regression, of gradients whose squared length is 1: little is believed of any one weight
RIDGE = 1.0
#: what the weight counts for beside the loss: claims are audited where there is noise, and there it tells more
SHARE = 2.0
#: the share of scores whose spread is taken, and how wide it is where they are standard normal
DENSEST, NORMAL_WIDTH = 0.4, 1.0488
#: values of one block of gradients that is held in memory at once
BLOCK = 8_000_000
NO_STEP = "no step of training is known whose start is known"


class Config(BaseConfig):
    """``canaries``: in all silos together. ``kind``: what they are. ``repeat``: how often one that is in stands among
    its silo's records; more than once it is evidence about groups of that size, and about single records none.
    ``population``: records of the population in the regression, beside the canaries."""

    canaries: int = Field(60, ge=2, le=1_000_000)
    kind: Kind = "random-tokens"
    repeat: int = Field(1, ge=1, le=100)
    population: int = Field(48, ge=0, le=10_000)


class Audit(AuditAttack):
    """Each victim's canaries meet the victim's own steps where its uploads opened, else the global ones."""

    needs = frozenset({"query", "adapter", "upload"})

    def __init__(self, config: Config) -> None:
        self.config = config

    def variant(self, adversary: str) -> PluginSpec:
        """A run with canaries, the same one for every adversary."""
        return PluginSpec(name="audit", config=self.config.model_dump(mode="json", exclude={"population"}))

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """``audit``, the score that counts; for information ``weight`` and ``inner`` (the regression's weight, and the
        inner product with the unit gradient) where a view has steps, and ``drop`` of the loss. A silo of which nothing
        opened scores 0."""
        n = len(candidates.ids)
        found = {name: np.zeros(n) for name in (COUNTED, "drop")}
        reads: list[str] = []
        followed: dict[str, tuple[Sequence[Step], list[NDArray[np.int64]]]] = {}
        for silo, rows in by_silo(candidates).items():
            model = view.last_adapter(silo)
            if model is None:
                reads.append(f"nothing of {silo}")
                continue
            tokens = candidates.tokens.take(rows)
            found["drop"][rows] = tools.token_stats(None, tokens).losses() - tools.token_stats(model, tokens).losses()
            found[COUNTED][rows] = found["drop"][rows]
            name, steps = _steps(view, silo, tools)
            followed.setdefault(name, (steps, []))[1].append(rows)
            reads.append(_followed(name, steps) if steps else describe(model))
        if not any(steps for steps, _ in followed.values()):
            return Guesses(found, tracks.listed(reads), dict.fromkeys(("weight", "inner"), NO_STEP))
        found |= {name: np.zeros(n) for name in ("weight", "inner")}
        population = tools.population.take(range(min(self.config.population, len(tools.population))))
        for steps, parts in followed.values():
            if steps:
                rows = np.concatenate(parts)
                made = weights(tools, steps, candidates.tokens.take(rows), population)
                found["weight"][rows], found["inner"][rows] = made
                found[COUNTED][rows] = together(found["weight"][rows], found["drop"][rows])
        return Guesses(found, tracks.listed(reads))


def _steps(view: View, silo: str, tools: Tools) -> tuple[str, Sequence[Step]]:
    """The silo's own steps, and its name; or those of the global adapter where their start is known, not supposed, in
    which the canaries of all silos meet."""
    own = tracks.own_steps(view, silo)
    if own:
        return silo, own
    known = len(view.adapters()) + (view.initial_path is not None)
    return "", tracks.global_steps(view, tools.model.layout) if known > 1 else ()


def _followed(silo: str, steps: Sequence[Step]) -> str:
    rounds = ", ".join(str(step.round) for step in steps)
    return f"{f'uploads of {silo}' if silo else 'adapters'}, round{'s' * (len(steps) > 1)} {rounds}"


def weights(tools: Tools, steps: Sequence[Step], tokens: Tokens, population: Tokens) -> tuple[Floats, Floats]:
    """((n,) weights of the records of ``tokens`` in at least one step, (n,) inner products of step and unit gradient),
    both added up over steps. One gradient pass over both kinds of records for each step."""
    layout = tools.model.layout
    weight: Floats = np.zeros(len(tokens))
    inner: Floats = np.zeros(len(tokens))
    for step in steps:
        start, update = step.before(), np.negative(step.update(layout))
        passes = [tools.record_gradients(start, part) for part in (tokens, population)]
        rows = (row for made in passes for row in made)
        gram, onto = products(rows, len(tokens) + len(population), update)
        weight = weight + ridge(gram, onto)[: len(tokens)]
        inner = inner + onto[: len(tokens)]
    return weight, inner


def together(weight: Floats, drop: Floats) -> Floats:
    """(n,) ``SHARE`` times ``weight`` (n,) over its spread, and ``drop`` (n,) over its own."""
    found: Floats = SHARE * weight / spread(weight) + drop / spread(drop)
    return found


def spread(values: Floats) -> float:
    """The width of the shortest interval that holds 40% of ``values``, over what it is for a standard normal (1.049);
    where that is 0 their standard deviation, and 1 for constants."""
    ordered = np.sort(values)
    count = max(2, math.ceil(DENSEST * len(ordered)))
    if len(ordered) < count:
        return 1.0
    width = float((ordered[count - 1 :] - ordered[: len(ordered) - count + 1]).min()) / NORMAL_WIDTH
    return width or float(ordered.std()) or 1.0


def products(gradients: Iterable[Array], count: int, direction: Floats) -> tuple[Floats, Floats]:
    """((count, count) inner products of unit gradients, (count,) those with ``direction``); zero gradients stay zero.

    The gradients lie in an unnamed file of 4 bytes a value, and a block of columns at a time is in memory.
    """
    size = len(direction)
    gram: Floats = np.zeros((count, count))
    onto: Floats = np.zeros(count)
    with tempfile.TemporaryFile() as file:
        held = np.memmap(file, dtype=np.float32, mode="w+", shape=(count, size))
        for number, gradient in enumerate(gradients):
            length = np.linalg.norm(gradient.astype(np.float64))
            held[number] = gradient / length if length > 0 else 0.0
        width = max(1, BLOCK // max(count, 1))
        for start in range(0, size, width):
            block = held[:, start : start + width].astype(np.float64)
            gram = gram + block @ block.T
            onto = onto + block @ direction[start : start + width]
        del held
    return gram, onto


def ridge(gram: Floats, onto: Floats, penalty: float = RIDGE) -> Floats:
    """(n,) the w that solves (gram + penalty I) w = onto, gram (n, n) positive semidefinite."""
    return np.asarray(np.linalg.solve(gram + penalty * np.eye(len(gram)), onto), dtype=np.float64)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Audit(config)
