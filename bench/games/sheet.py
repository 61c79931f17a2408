"""Sheets: a game's truth and scores, or its grades, as canonical text. ``bench verify`` computes figures from them."""

from __future__ import annotations

from bench.errors import UsageError
from bench.games import membership, reconstruction
from bench.games import text as form
from bench.games.audit import AuditSheet
from bench.games.catalog import GAMES
from bench.games.membership import MembershipSheet, Scored
from bench.games.reconstruction import ReconstructionSheet
from bench.games.text import SHEET
from bench.games.trials import TrialSheet

Sheet = MembershipSheet | ReconstructionSheet | TrialSheet | AuditSheet
#: the newest version of any game's sheet
NEWEST = 1_000


def load(text: str) -> Sheet:
    """The sheet in ``text`` from anybody, of whichever game it names. Raises UsageError on anything malformed."""
    game = form.parse(text, SHEET, NEWEST).get("game")
    if not isinstance(game, str) or game not in GAMES:
        raise UsageError(f"The {SHEET} is of no game that this silobench knows: {game!r:.80}.")
    sheet: Sheet = GAMES[game].sheet_class().from_json(text)
    return sheet


def leakage(sheet: Sheet) -> Scored:
    """The figures of a sheet, a pure function of it."""
    if isinstance(sheet, MembershipSheet):
        return membership.leakage(sheet)
    if isinstance(sheet, ReconstructionSheet):
        return reconstruction.leakage(sheet)
    return sheet.scored()
