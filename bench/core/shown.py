"""Text from anybody as it may be printed on a terminal."""

from __future__ import annotations


def shown(text: str) -> str:
    """``text`` in one line, with an escape (``\\x1b``) for every character that moves the cursor, turns the direction
    of writing, or can't be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def lines_shown(text: str) -> str:
    """``shown`` of every line."""
    return "\n".join(map(shown, text.split("\n")))
