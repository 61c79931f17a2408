"""What a game is played on: a finished run, its materials, and one seat per coalition with what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.assess.tools import LentTools, Memo
from bench.attack.attack import Candidates, Own, Shadow
from bench.core.adversaries import Assignment
from bench.core.update import Array
from bench.corpus.planting import Planting, Queries, queries
from bench.spec.result import Claim, Leakage, Status
from bench.training.materials import Materials
from bench.training.training import TrainedRun
from bench.view.view import View


@dataclass(frozen=True)
class Assessment:
    """What one attack found for one adversary. ``sheet``: the canonical scores behind the figures, or None.
    ``details``: what lies behind the scores, records' texts among it, for whoever runs this and nobody else; or None.
    ``audit``: what an audit proved, for the result's field of that name; None for all else.
    """

    status: Status
    reads: tuple[str, ...] = ()
    leakage: tuple[Leakage, ...] = ()
    sheet: str | None = None
    note: str = ""
    details: str | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] | None = None


@dataclass(frozen=True)
class Seat:
    """One coalition at the table. ``number``: which of the adversary's coalitions it is. ``shadows``: what it reads of
    other runs, each with that run's planting; asked for only by attacks that want them."""

    number: int
    assignment: Assignment
    view: View
    shadows: tuple[tuple[View, Planting], ...] = ()

    @property
    def victims(self) -> tuple[str, ...]:
        return self.assignment.victims


#: by attack and adversary: of each score, by candidate
Answers = dict[tuple[str, str], Mapping[str, Mapping[str, float]]]


class Table(Protocol):
    """What ``play`` is given besides the seats."""

    @property
    def run(self) -> TrainedRun: ...

    @property
    def materials(self) -> Materials: ...

    @property
    def memo(self) -> Memo: ...

    @property
    def answers(self) -> Answers:
        """What attacks have said of candidates, so that a coalition has what its parts have said."""

    @property
    def released(self) -> dict[str, Array]:
        """Released adapters by handle."""

    def claim(self, adversary: str, delta: float | None = None) -> Claim | None:
        """What the defense promises to that adversary's victims. ``delta``: None for the claim's own."""


#: of a table, an attack of its game and the name of that, an adversary, and its seats
Play = Callable[[Table, str, Any, str, Sequence[Seat]], Assessment]


def player(game: str) -> Play:
    """The function ``play`` of the module here that is named after ``game`` (one of ``bench.games.catalog``)."""
    found: Play = import_module(f"{__package__}.{game}").play
    return found


def tools(table: Table, name: str, adversary: str, seat: Seat, asked: Sequence[str] = ()) -> LentTools:
    """What the attack ``name`` is lent at ``seat``. ``asked``: the candidates, in the order that shadows follow."""
    rng = table.materials.streams.generator(f"attack/{name}/{adversary}", seat.number)
    found = LentTools(table.materials, table.memo, rng, table.released)
    found.own = own(table, seat.assignment.coalition)
    found.labels = tuple(table.materials.corpus.task.labels)
    found.population_labels = table.materials.gold(table.materials.pool.population)
    found.shadows = tuple(Shadow(view, members_of(planting, asked)) for view, planting in seat.shadows)
    return found


def own(table: Table, coalition: frozenset[str]) -> Own | None:
    """The candidates of the coalition's own silos, whose part in the training it knows."""
    planting = table.run.planting
    held = [(i, silo) for silo in sorted(coalition & set(planting.members)) for i in sorted(_all(planting, silo))]
    if not held:
        return None
    ids, silos = [i for i, _ in held], tuple(silo for _, silo in held)
    return Own(table.materials.tokens(ids), table.materials.texts(ids), silos, members_of(planting, ids))


def _all(planting: Planting, silo: str) -> tuple[str, ...]:
    return (*planting.members[silo], *planting.nonmembers[silo])


def members_of(planting: Planting, ids: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) whether each candidate is a member under ``planting``."""
    members = {i for held in planting.members.values() for i in held}
    return np.array([i in members for i in ids], dtype=np.bool_)


def ask(table: Table, seat: Seat) -> Queries:
    """The candidates of the seat's victims, shuffled, under opaque ids."""
    return queries(table.run.planting, seat.victims, table.materials.streams.generator("questions", seat.number))


def candidates(table: Table, asked: Queries) -> Candidates:
    """What the attack sees of the candidates."""
    return Candidates(
        asked.opaque,
        asked.silos,
        table.materials.texts(asked.candidates),
        table.materials.tokens(asked.candidates),
    )
