"""The conformance kit's small runs, trained once for all tests of a worker."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

from bench.assess.tools import Memo
from bench.attack.attack import GameName
from bench.conformance.playground import Playground, playground, setting
from bench.spec.run import LocalSpec, PluginSpec

#: one step of two records: a run of the same records, plantings and messages as the game's own, and nothing learnt
_BRIEF = LocalSpec(steps=1, batch=2)

_trained = cache(playground)
_untrained = cache(partial(playground, local=_BRIEF))


def ground(game: GameName) -> Playground:
    """The run that ``game`` is played on by default, with a memo of the caller's own."""
    return replace(_trained(_first(game)), memo=Memo())


def untrained(game: GameName, variant: PluginSpec | None = None) -> Playground:
    """The same for tests of who is asked what and how answers are graded, which no adapter decides."""
    if variant is not None:
        return playground(game, variant=variant, local=_BRIEF)
    return replace(_untrained(_first(game)), memo=Memo())


def instead(game: GameName, defense: str = "fedavg", variant: PluginSpec | None = None, *others: Any) -> Playground:
    """Stands for ``playground``: what is trained by default is trained once for all tests of a worker."""
    if defense == "fedavg" and variant is None:
        return ground(game)
    return playground(game, defense, variant, *others)


def _first(game: GameName) -> GameName:
    """One game of those that share a setting."""
    return "source" if setting(game) == "notes" else game
