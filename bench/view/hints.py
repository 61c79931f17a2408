"""What openers may ask about the view in the making."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.core.parties import SERVER, is_silo
from bench.core.update import Terms
from bench.defense.channel import Message
from bench.view.knowledge import Seen
from bench.view.ledger import Ledger
from bench.view.openers.base import ADAPTER_STAGES, Spans, Traits, terms_of
from bench.view.truth import Truth


class LiveHints:
    """``bench.view.openers.base.Hints`` from what is read so far."""

    def __init__(self, seen: Seen, ledger: Ledger, truth: Truth, find: Callable[[], Traits]) -> None:
        self._seen, self._ledger, self._truth, self._find = seen, ledger, truth, find
        self._traits: Traits | None = None
        #: what openers did not try, in the order in which they said so
        self.left_out: dict[str, None] = {}
        self.checked = any(truth.known(round) for round in range(seen.knowledge.public.rounds))

    def targets(self, message: Message) -> Sequence[frozenset[str]]:
        if is_silo(message.sender):
            options = [frozenset({message.sender})]
        elif message.sender == SERVER and message.stage not in ADAPTER_STAGES:
            options = [frozenset(silos) for silos in self._seen.summed.get(message.round, ())]
        else:
            options = []
        return [silos for silos in options if not self._ledger.has(terms_of(message.round, silos))]

    def read(self, terms: Terms) -> bool:
        return self._ledger.has(terms)

    def spans(self, terms: Terms) -> Spans:
        return self._truth.spans(terms)

    def fits(self, terms: Terms, spans: Spans, sample: NDArray[np.floating]) -> bool:
        return self._truth.fits(terms, spans, sample)

    def traits(self) -> Traits:
        if self._traits is None:
            self._traits = self._find()
        return self._traits

    def untried(self, what: str) -> None:
        self.left_out[what] = None
