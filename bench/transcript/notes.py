"""What the harness noted of a run for the accountant: mechanisms by silo, and sums that were opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.core.errors import UsageError
from bench.defense.parts import Mechanism
from bench.privacy import Sum
from bench.transcript.transcript import Transcript


def logged_mechanisms(transcript: Transcript) -> dict[str, tuple[Mechanism, ...]]:
    """Per silo, what its privacy mechanisms did, in order of rounds."""
    found: dict[str, list[Mechanism]] = {name: [] for name in transcript.public.silos}
    for round in range(transcript.committed() + 1):
        for name, training in transcript.training(round).items():
            found.setdefault(name, []).extend(Mechanism(m["kind"], m["params"], round) for m in training["mechanisms"])
    return {name: tuple(items) for name, items in found.items()}


def opened_sums(transcript: Transcript) -> tuple[Sum, ...]:
    """Every sum that was opened: of whom, what bounds their summands, and what the opener added.

    Raises UsageError where the notes are malformed.
    """
    rounds = range(transcript.committed() + 1)
    bounds = {(r, name): t.get("bound") for r in rounds for name, t in transcript.training(r).items()}
    try:
        return tuple(_sum(note, bounds) for r in rounds for note in transcript.sums(r))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{transcript.root} holds malformed notes of its sums: {type(error).__name__}.") from None


def _sum(note: Mapping[str, Any], bounds: Mapping[tuple[int, str], Any]) -> Sum:
    round, noise = int(note["round"]), note["noise"]
    held = {str(name): bounds.get((round, str(name))) for name in note["silos"]}
    added = None if noise is None else Mechanism(str(noise["kind"]), dict(noise["params"]), round)
    return Sum(round, {name: None if bound is None else float(bound) for name, bound in held.items()}, added)
