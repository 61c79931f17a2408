"""Sheets: a game's truth and scores, or its grades, as canonical text. ``bench verify`` computes figures from them."""

from __future__ import annotations

from bench.errors import UsageError
from bench.games import membership, reconstruction
from bench.games import text as form
from bench.games.membership import MembershipSheet, Scored
from bench.games.reconstruction import ReconstructionSheet
from bench.games.text import SHEET

Sheet = MembershipSheet | ReconstructionSheet


def load(text: str) -> Sheet:
    """The sheet in ``text`` from anybody, of whichever game it names. Raises UsageError on anything malformed."""
    game = form.parse(text, SHEET, max(membership.VERSION, reconstruction.VERSION)).get("game")
    if game == membership.GAME:
        return MembershipSheet.from_json(text)
    if game == reconstruction.GAME:
        return ReconstructionSheet.from_json(text)
    raise UsageError(f"The {SHEET} is of no game that this silobench knows: {game!r:.80}.")


def leakage(sheet: Sheet) -> Scored:
    """The figures of a sheet, a pure function of it."""
    if isinstance(sheet, MembershipSheet):
        return membership.leakage(sheet)
    return reconstruction.leakage(sheet)
