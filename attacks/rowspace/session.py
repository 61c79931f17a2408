"""One call of the row-space attack: what all targets share, and one target's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.constraints import Change, changes
from attacks.rowspace.finish import finish
from attacks.rowspace.identify import Identified, Vocabulary
from attacks.rowspace.language import arrange, by_likelihood
from attacks.rowspace.observe import Observed
from attacks.rowspace.order import Deeper, input_moments
from attacks.rowspace.probe import Probe
from bench.attack.attack import Reconstruction, Target, Tools
from bench.games.baselines import expected_distinct, inclusion, most_likely, typical
from bench.model.gradients import under
from bench.view.view import adapter_handle

if TYPE_CHECKING:
    from bench.model.lora import LoraModel

Sequences = tuple[tuple[int, ...], ...]

#: cosine between a whole record's gradient and the update from which its last token counts as found (measured: the true
#: one gives 1 - 1e-10)
CONFIRMED = 0.999


class Session:
    """What is shared by all targets of one call: the model's probe, the vocabulary's inputs, priors."""

    def __init__(self, tools: Tools, groups: int) -> None:
        self.tools = tools
        self.found: Identified  # of the last target
        self._moments: tuple[str, list[NDArray[np.float64]]] = ("", [])
        self.model: LoraModel = tools.model
        self.probe = Probe(self.model)
        self.groups = min(groups, len(self.probe.groups))
        with under(self.model, None):
            self.vocabulary = Vocabulary(self.probe)

    def solve(self, target: Target, seen: Observed, more: Sequence[Observed] = ()) -> Reconstruction:
        """One target's answer. ``more``: what was seen of the same records in other rounds."""
        with under(self.model, seen.before):
            tokens, deeper = self.identify(target, seen, more)
            self.found = tokens
            sequences = self._sequences(target, tokens, deeper, seen) if len(tokens.tokens) else ()
        held, scores = self.claim(target, tokens)
        if not sequences:
            sequences = self._without_order(target, tokens, scores)
        return Reconstruction(target, scores, held, sequences, tokens.exact, seen.reads)

    def identify(self, target: Target, seen: Observed, more: Sequence[Observed] = ()) -> tuple[Identified, Deeper]:
        """Which tokens were there, and what the deeper layers say of their order. The model holds ``seen.before``."""
        change = self.changes(seen)
        deeper = self._deeper(change, seen)
        others = [self.changes(o) for o in more]
        prior = self.log_odds(target)
        return self.vocabulary.identify(change, prior, deeper.confirm_first, others, seen.signs), deeper

    def changes(self, seen: Observed, change: NDArray[np.float64] | None = None) -> Mapping[str, Change]:
        """By projection, what was observed, or ``change`` in its place, as much of which is known."""
        known = None if seen.known.all() else seen.known
        before = seen.before[: len(seen.change)]
        moved = seen.change if change is None else change
        return changes(self.model.layout, before, before.astype(np.float64) + moved, known, seen.deviation)

    def _deeper(self, change: Mapping[str, Change], seen: Observed) -> Deeper:
        """The deeper groups; what they usually read is measured once for targets that start from the same adapter."""
        handle = adapter_handle(seen.before)
        if self._moments[0] != handle:
            self._moments = handle, input_moments(self.probe, self.tools.population, self.groups)
        return Deeper(self.probe, change, self.groups, self._moments[1])

    def log_odds(self, target: Target) -> NDArray[np.float64]:
        """(vocabulary,) of each token being in the target's batch, known from the population alone."""
        p = inclusion(self.tools.population, self.model.vocab_size, target.records)
        return np.asarray(np.log(p) - np.log1p(-p))

    def claim(self, target: Target, tokens: Identified) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
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
        prefixes = deeper.prefixes(tokens.tokens, tokens.tolerance, target.records)
        if len(prefixes) > target.records:
            prefixes = sorted(by_likelihood(self.model, prefixes), key=len, reverse=True)[: target.records]
        if len(prefixes) == 1 and target.records == 1 and target.steps == 1 and seen.whole:
            whole = finish(self.model, seen.before, seen.change, prefixes[0], self.starts())
            return (whole.ids if whole.cosine >= CONFIRMED else prefixes[0],)
        return tuple(prefixes)

    def _without_order(self, target: Target, tokens: Identified, scores: NDArray[np.float64]) -> Sequences:
        """One record's known tokens as the base model would put them; else the population's nearest records."""
        population = self.tools.population
        if len(tokens.tokens) and target.records == 1:
            with under(self.model, None):
                return (arrange(self.model, tokens.tokens, population, 2 * len(tokens.tokens)),)
        p = np.exp(-np.logaddexp(0, -scores)) if not len(tokens.tokens) else np.zeros(len(scores))
        p[tokens.tokens] = 1.0
        return typical(population, p, target.records)

    def starts(self) -> list[int]:
        """Positions at which records of this kind begin to carry loss, the most common first; a few at most."""
        starts = [int(row.argmax()) for row in self.tools.population.predicted if row.any()]
        return sorted(set(starts), key=lambda s: (-starts.count(s), s))[:4] or [1]
