"""Row-space reconstruction from a LoRA update: which tokens a batch held, and in which order.

The first layer reads tokens one by one, and the rows of an update's lora_B lie in the span of what it read. While a
batch has fewer distinct tokens than the rank, the test is exact, and deeper layers give the order; beyond, tokens are
ranked. It adapts to what the view shows was done to the update: entries that were dropped, a grid, several steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.attack import Attack, Reconstruction, Target, Tools
from bench.config import Config as BaseConfig
from bench.games.baselines import expected_distinct, inclusion, most_likely, typical

if TYPE_CHECKING:
    from attacks.rowspace.constraints import Change
    from attacks.rowspace.identify import Identified, Vocabulary
    from attacks.rowspace.observe import Observed
    from attacks.rowspace.order import Deeper
    from attacks.rowspace.probe import Probe
    from bench.model import LoraModel
    from bench.view import View

api = 1

Sequences = tuple[tuple[int, ...], ...]

#: cosine between a whole record's gradient and the update from which its last token counts as found (measured: the true
#: one gives 1 - 1e-10)
CONFIRMED = 0.999


class Config(BaseConfig):
    """``groups``: how many groups of LoRA projections are read, the first for tokens and the others for their order.
    ``rounds``: the rounds that are attacked; in the first, B starts at zero and nothing is lost to rounding. ``pool``:
    tokens are ranked by a silo's uploads of all rounds where those are about the same records."""

    pool: bool = True
    groups: int = Field(3, ge=2, le=64)
    rounds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)


class RowSpace(Attack):
    """One reconstruction per target whose silo's upload, and the adapter that it started from, were read."""

    game = "reconstruction"
    needs = frozenset({"upload", "partial"})
    knows = "population"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rounds = config.rounds

    def reconstruct(self, view: View, targets: Sequence[Target], tools: Tools) -> Sequence[Reconstruction]:
        """Raises SiloBenchError for a model whose first LoRA projection reads more than the token."""
        from attacks.rowspace.observe import observe, others

        found: list[Reconstruction] = []
        session: _Session | None = None
        for target in targets:
            seen = observe(view, target.silo, target.round)
            if seen is None:
                continue
            session = session or _Session(tools, self.config)
            found.append(session.solve(target, seen, others(view, target) if self.config.pool else ()))
        return found


class _Session:
    """What is shared by all targets of one call: the model's probe, the vocabulary's inputs, priors."""

    def __init__(self, tools: Tools, config: Config) -> None:
        from attacks.rowspace.identify import Vocabulary
        from attacks.rowspace.probe import Probe

        self.tools = tools
        self.config = config
        self.model: LoraModel = tools.model
        self.probe: Probe = Probe(self.model)
        with _adapter(self.model, None):
            self.vocabulary: Vocabulary = Vocabulary(self.probe)

    def solve(self, target: Target, seen: Observed, more: Sequence[Observed] = ()) -> Reconstruction:
        """One target's answer. ``more``: what was seen of the same records in other rounds."""
        change = self._changes(seen)
        with _adapter(self.model, seen.before):
            deeper = self._deeper(change)
            others = [self._changes(o) for o in more]
            tokens = self.vocabulary.identify(change, self._log_odds(target), deeper.confirm_first, others)
            sequences = self._sequences(target, tokens, deeper, seen) if len(tokens.tokens) else ()
        held, scores = self._claim(target, tokens)
        if not sequences:
            sequences = self._without_order(target, tokens, scores)
        return Reconstruction(target, scores, held, sequences, tokens.exact, seen.reads)

    def _changes(self, seen: Observed) -> Mapping[str, Change]:
        from attacks.rowspace.constraints import changes

        known = None if seen.known.all() else seen.known
        before = seen.before[: len(seen.change)]
        return changes(self.model.layout, before, before.astype(np.float64) + seen.change, known, seen.deviation)

    def _deeper(self, change: Mapping[str, Change]) -> Deeper:
        from attacks.rowspace.order import Deeper, input_moments

        groups = min(self.config.groups, len(self.probe.groups))
        return Deeper(self.probe, change, groups, input_moments(self.probe, self.tools.population, groups))

    def _log_odds(self, target: Target) -> NDArray[np.float64]:
        p = inclusion(self.tools.population, self.model.vocab_size, target.records)
        return np.asarray(np.log(p) - np.log1p(-p))

    def _claim(self, target: Target, tokens: Identified) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The token set and scores that rank it first. Where none was identified: as many of the best-ranked tokens as
        a batch of that many population records is expected to hold."""
        scores = tokens.evidence.copy()
        if not len(tokens.tokens):
            count = expected_distinct(self.tools.population, self.model.vocab_size, target.records)
            return most_likely(scores, count), scores
        scores[tokens.tokens] += scores.max() - scores.min() + 1
        return tokens.tokens, scores

    def _sequences(self, target: Target, tokens: Identified, deeper: Deeper, seen: Observed) -> Sequences:
        """Records where the row spaces give their order: all but the last token, and that too where one record's one
        step shows it."""
        from attacks.rowspace.finish import finish
        from attacks.rowspace.language import by_likelihood

        prefixes = deeper.prefixes(tokens.tokens, tokens.tolerance, target.records)
        if len(prefixes) > target.records:
            prefixes = sorted(by_likelihood(self.model, prefixes), key=len, reverse=True)[: target.records]
        if len(prefixes) == 1 and target.records == 1 and target.steps == 1 and seen.whole:
            whole = finish(self.model, seen.before, seen.change, prefixes[0], self._starts())
            return (whole.ids if whole.cosine >= CONFIRMED else prefixes[0],)
        return tuple(prefixes)

    def _without_order(self, target: Target, tokens: Identified, scores: NDArray[np.float64]) -> Sequences:
        """One record's known tokens as the base model would put them; else the population's nearest records."""
        from attacks.rowspace.language import arrange

        population = self.tools.population
        if len(tokens.tokens) and target.records == 1:
            with _adapter(self.model, None):
                return (arrange(self.model, tokens.tokens, population, 2 * len(tokens.tokens)),)
        p = np.exp(-np.logaddexp(0, -scores)) if not len(tokens.tokens) else np.zeros(len(scores))
        p[tokens.tokens] = 1.0
        return typical(population, p, target.records)

    def _starts(self) -> list[int]:
        """Positions at which records of this kind begin to carry loss, the most common first; a few at most."""
        starts = [int(row.argmax()) for row in self.tools.population.predicted if row.any()]
        return sorted(set(starts), key=lambda s: (-starts.count(s), s))[:4] or [1]


@contextmanager
def _adapter(model: LoraModel, values: NDArray[np.float32] | None) -> Iterator[None]:
    """The model with another adapter, given back as it was."""
    kept = model.get_adapter()
    model.set_adapter(values)
    try:
        yield
    finally:
        model.set_adapter(kept)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return RowSpace(config)
