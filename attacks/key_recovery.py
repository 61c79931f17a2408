"""Membership from uploads that CKKS sealed: the secret key follows from sums and the averages published of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attacks.mia import Config, Likelihood
from bench.attack.attack import Attack, Candidates, Guesses, Tools
from bench.defense.channel import Candidate, Knowledge
from bench.view.openers.base import Hints

if TYPE_CHECKING:
    from bench.view.view import View

api = 1
version = 2


def opener(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """Uploads under CKKS, opened with a key that published averages give away (``attacks.ckks``)."""
    from attacks.ckks.recovery import opener as recover

    return recover(knowledge, hints)


class KeyRecovery(Likelihood):
    """The likelihood family on single uploads. Says from which precision of the release on this attack finds no key."""

    needs = frozenset({"upload"})
    adaptive = True
    openers = (opener,)

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        from attacks.ckks.report import outlook

        guesses = super().infer(view, candidates, tools)
        return Guesses(guesses.scores, guesses.reads, {**guesses.missing, **outlook(view)})


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return KeyRecovery(config)
