"""The standard adversaries: which parties form the coalition, and whose records it is asked about.

A coalition is asked only about records that it does not hold; attacker and victim silos rotate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.core.errors import unknown_name
from bench.core.parties import SERVER


@dataclass(frozen=True)
class Assignment:
    """One coalition (names as in ``bench.core.parties``; empty for those who see only what is public) and its
    victims."""

    coalition: frozenset[str]
    victims: tuple[str, ...]


#: by adversary those whose coalition, against the same victim, is part of its own: their views are part of its view
_PARTS: Mapping[str, tuple[str, ...]] = {
    "user": (),
    "outsider": ("user",),
    "silo": ("user", "outsider"),
    "server": ("user", "outsider"),
    "server+silo": ("user", "outsider", "silo", "server"),
    "all-but-one": ("user", "outsider", "silo", "server", "server+silo"),
}


def parts(adversary: str) -> tuple[str, ...]:
    """The standard adversaries that are part of this one: against every victim of its coalitions they have a coalition
    that is a subset of it."""
    return _PARTS[adversary]


def _public(silos: Sequence[str]) -> tuple[Assignment, ...]:
    return (Assignment(frozenset(), tuple(silos)),)


def _server(silos: Sequence[str]) -> tuple[Assignment, ...]:
    return (Assignment(frozenset({SERVER}), tuple(silos)),)


def _one_silo(silos: Sequence[str]) -> tuple[Assignment, ...]:
    if len(silos) < 2:
        return ()
    return tuple(Assignment(frozenset({silo}), (_next(silos, i),)) for i, silo in enumerate(silos))


def _server_and_silo(silos: Sequence[str]) -> tuple[Assignment, ...]:
    return tuple(Assignment(a.coalition | {SERVER}, a.victims) for a in _one_silo(silos))


def _all_but_one(silos: Sequence[str]) -> tuple[Assignment, ...]:
    return tuple(Assignment(frozenset({SERVER, *silos} - {victim}), (victim,)) for victim in silos)


def _next(silos: Sequence[str], index: int) -> str:
    return silos[(index + 1) % len(silos)]


_COALITIONS: Mapping[str, Callable[[Sequence[str]], tuple[Assignment, ...]]] = {
    "user": _public,
    "outsider": _public,
    "silo": _one_silo,
    "server": _server,
    "server+silo": _server_and_silo,
    "all-but-one": _all_but_one,
}


def assignments(adversary: str, silos: Sequence[str]) -> tuple[Assignment, ...]:
    """Every (coalition, victims) that ``adversary`` is played with in a federation of ``silos``.

    ``user`` and ``outsider``: nobody, against every silo. ``server``: the server, against every silo. ``silo`` and
    ``server+silo``: each silo in turn (with the server), against the next one. ``all-but-one``: for each silo, the
    server and all others against it. Empty where there is nobody to ask about: a silo alone in its federation has no
    victim. Raises UsageError for an unknown adversary.
    """
    if adversary not in _COALITIONS:
        raise unknown_name("adversary", adversary, _COALITIONS)
    return _COALITIONS[adversary](silos)
