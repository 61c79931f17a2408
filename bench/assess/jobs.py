"""Which cells share a training, and in which order they are attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.spec.config import canonical_json
from bench.spec.run import Cell, RunSpec

if TYPE_CHECKING:
    from bench.attack.attack import Attack


@dataclass(frozen=True)
class Job:
    """The cells that share one training."""

    spec: RunSpec
    seed: int
    cells: tuple[Cell, ...]


def jobs(cells: Sequence[Cell], seeds: Sequence[int]) -> list[Job]:
    """Cells grouped by training, in the order in which they were asked for."""
    grouped: dict[str, list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(canonical_json(cell.run), []).append(cell)
    return [Job(group[0].run, seed, tuple(group)) for group in grouped.values() for seed in seeds]


def ordered(cells: Sequence[Cell], built: Mapping[str, Attack]) -> list[Cell]:
    """By adversary, so that its views are built once for all attacks. The adversaries that are named last and see most
    go first, and with each the attacks whose turn is first: their passes give the losses that the others ask for."""
    names = [cell.adversary for cell in cells]
    return sorted(cells, key=lambda c: (-names.index(c.adversary), built[canonical_json(c.attack)].turn))
