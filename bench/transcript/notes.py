"""What the harness noted of a run for the accountant: mechanisms by silo, and sums that were opened."""

from __future__ import annotations

from bench.defense.parts import Mechanism
from bench.privacy import Sum
from bench.transcript.manifest import Did
from bench.transcript.transcript import Transcript


def logged_mechanisms(transcript: Transcript) -> dict[str, tuple[Mechanism, ...]]:
    """Per silo, what its privacy mechanisms did, in order of rounds."""
    found: dict[str, list[Mechanism]] = {name: [] for name in transcript.public.silos}
    for round in range(transcript.committed() + 1):
        for name, training in transcript.training(round).items():
            found.setdefault(name, []).extend(_mechanism(did, round) for did in training.mechanisms)
    return {name: tuple(items) for name, items in found.items()}


def opened_sums(transcript: Transcript) -> tuple[Sum, ...]:
    """Every sum that was opened: of whom, what bounds their summands, and what the opener added."""
    rounds = range(transcript.committed() + 1)
    bounds = {(r, name): training.bound for r in rounds for name, training in transcript.training(r).items()}
    return tuple(
        Sum(
            note.round,
            {name: bounds.get((note.round, name)) for name in note.silos},
            None if note.noise is None else _mechanism(note.noise, note.round),
        )
        for r in rounds
        for note in transcript.sums(r)
    )


def _mechanism(did: Did, round: int) -> Mechanism:
    return Mechanism(did.kind, did.params, round)
