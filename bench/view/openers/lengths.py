"""What lengths and headers give away: only where two chosen updates showed that they depend on the update."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bench.defense.channel import Candidate, Knowledge
from bench.view.openers.base import Guess, Hints, sealed_by_silos
from bench.view.openers.layouts import heads


def lengths_and_headers(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """A metadata reading for every message that is not opened: its frames' lengths in bytes, or the telling bytes of
    its header."""
    pending = [m for m in sealed_by_silos(knowledge) if hints.targets(m)]
    if not pending:
        return
    traits = hints.traits()
    headers = dict(traits.headers)
    for message in pending:
        silos = frozenset({message.sender})
        if message.stage in traits.lengths:
            lengths = np.array(message.lengths, dtype=np.float64)
            how = f"the lengths of '{message.stage}' depend on the update"
            yield Guess(message.round, silos, lengths, how, form="metadata")
        positions = headers.get(message.stage, ())
        if positions and message.lengths:
            shown = heads(message)
            seen = np.array([shown[p] for p in positions], dtype=np.float64)
            how = f"{len(positions)} header bytes from byte {positions[0]} of '{message.stage}' depend on the update"
            yield Guess(message.round, silos, seen, how, form="metadata")
