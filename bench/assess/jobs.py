"""The plan of a command: which cells share a training, which shadows they need, in which order they are attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.adversaries import parts
from bench.spec.config import canonical_json
from bench.spec.run import Cell, PluginSpec, Row, RunSpec

if TYPE_CHECKING:
    from bench.attack.attack import Attack


@dataclass(frozen=True)
class Job:
    """The rows that share one training."""

    spec: RunSpec
    seed: int
    rows: tuple[Row, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(row, self.seed) for row in self.rows)


def jobs(rows: Sequence[Row], seeds: Sequence[int]) -> list[Job]:
    """Rows grouped by training, in the order in which they were asked for."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(canonical_json(row.run), []).append(row)
    return [Job(group[0].run, seed, tuple(group)) for group in grouped.values() for seed in seeds]


def ordered(rows: Sequence[Row], built: Mapping[str, Attack]) -> list[Row]:
    """By adversary, so that its views are built once for all attacks. Those that see least go first, since what an
    attack says as them is part of what it says as coalitions that hold their views; with each the attacks whose turn is
    first: their passes give the losses that the others ask for."""
    return sorted(
        rows, key=lambda row: (len(parts(row.adversary)), row.adversary, built[canonical_json(row.attack)].turn)
    )


def shadows_wanted(rows: Sequence[Row], built: Mapping[str, Attack]) -> int:
    """How many shadow federations the attacks of ``rows``, which share a training, want at most."""
    asking = [(built[canonical_json(row.attack)], row) for row in rows]
    return max((attack.shadows for attack, row in asking if unfit(attack, row.adversary, row.run) is None), default=0)


def unfit(attack: Attack, adversary: str, spec: RunSpec) -> str | None:
    """Why runs of ``spec`` are none for the attack as this adversary; None: they are."""
    if attack.only is not None and adversary not in attack.only:
        return f"it is made as {' or '.join(sorted(attack.only))}"
    wanted = attack.variant(adversary)
    if _canonical(wanted) != _canonical(spec.variant):
        return f"it is made on {_named(wanted)}, and this is {_named(spec.variant)}"
    return None


def _named(variant: PluginSpec | None) -> str:
    return "an ordinary run" if variant is None else f"a run of its own ({variant.name})"


def _canonical(variant: PluginSpec | None) -> str:
    return "" if variant is None else canonical_json(variant)
