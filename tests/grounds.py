"""The conformance kit's small runs, trained once for all tests of a worker."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from bench.assess.tools import Memo
from bench.attack.attack import GameName
from bench.conformance.playground import Playground, playground

_trained = cache(playground)


def ground(game: GameName) -> Playground:
    """The run that ``game`` is played on by default, with a memo of the caller's own."""
    return replace(_trained(game), memo=Memo())
