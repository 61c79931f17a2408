"""The conformance kit's small runs, trained once for all tests of a worker."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from bench.attack import GameName
from bench.conformance.playground import Playground, playground
from bench.lender import Memo

_trained = cache(playground)


def ground(game: GameName) -> Playground:
    """The run that ``game`` is played on by default, with a memo of the caller's own."""
    return replace(_trained(game), memo=Memo())
