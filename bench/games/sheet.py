"""Sheets: a game's truth and scores, or its grades, as canonical text. ``bench verify`` computes figures from them."""

from __future__ import annotations

from bench.core.errors import UsageError
from bench.games.audit_sheet import AuditSheet
from bench.games.catalog import GAMES
from bench.games.membership import MembershipSheet, Scored
from bench.games.reconstruction_sheet import ReconstructionSheet
from bench.games.trials import TrialSheet
from bench.spec import canonical as form
from bench.spec.canonical import SHEET
from bench.spec.foreign import parsed

Sheet = MembershipSheet | ReconstructionSheet | TrialSheet | AuditSheet


class _Head(form.SheetText, extra="ignore"):
    """Enough of any sheet to know whose it is."""


def load(text: str) -> Sheet:
    """The sheet in ``text`` from anybody, of whichever game it names. Raises UsageError on anything malformed."""
    game = parsed(_Head, text, f"The {SHEET}").game
    if game not in GAMES:
        raise UsageError(f"The {SHEET} is of no game that this silobench knows: {game!r:.80}.")
    sheet: Sheet = GAMES[game].sheet_class().from_json(text)
    return sheet


def leakage(sheet: Sheet) -> Scored:
    """The figures of a sheet, a pure function of it."""
    found: Scored = GAMES[sheet.game].scorer()(sheet)
    return found
