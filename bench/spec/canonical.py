"""Canonical JSON of a game's sheet (truth and scores, or grades), and bounded parsing of such text from anybody.

Equal contents give equal text: keys sorted, no spaces, floats by Python's shortest text that reads back as the same
double. So a SHA-256 of the text names the contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import AfterValidator, FailFast, Field

from bench.core.errors import SiloBenchError, UsageError
from bench.spec.config import canonical_json
from bench.spec.foreign import Foreign, parsed

#: format of a game's sheet; each game numbers its versions
SHEET = "silobench-scores"
#: bounds on hostile input: characters of a sheet, entries of any one list, characters of an id or a name
MAX_TEXT = 512 * 2**20
MAX_ENTRIES = 5_000_000
MAX_NAME = 500


class Writable(Protocol):
    def to_json(self) -> str: ...


T = TypeVar("T")
W = TypeVar("W", bound=Writable)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds characters that can't be printed")
    return text


Label = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Name = Annotated[Label, AfterValidator(_printable)]
Many = Annotated[tuple[T, ...], Field(max_length=MAX_ENTRIES), FailFast()]
Table = dict[Name, Many[float]]


class SheetText(Foreign):
    """What every sheet's text holds; a game's own adds its ``version``."""

    format: Literal["silobench-scores"]
    game: Name


def read(kind: type[T], text: str, what: str, make: Callable[[T], W]) -> W:
    """What ``make`` understands of ``text``, from anybody. Raises UsageError where it does not fit ``kind``,
    contradicts itself, or is not what would be written of it: nothing unread may ride along."""
    if len(text) > MAX_TEXT:
        raise UsageError(f"A {what} has at most {MAX_TEXT} characters, this text has {len(text)}.")
    value = parsed(kind, text, f"The {what}")
    try:
        found = make(value)
    except SiloBenchError as error:
        raise UsageError(f"The {what} contradicts itself: {error}.") from None
    if found.to_json() != text:
        raise UsageError(
            f"The {what} is not in canonical form: it gives a field twice or a number otherwise, or was edited by hand."
        )
    return found


def columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """The columns of rows that have ``count`` fields each, of no rows too."""
    return [[row[k] for row in rows] for k in range(count)]


def write(value: dict[str, Any]) -> str:
    """Canonical text. Floats must be finite."""
    return canonical_json(value)


def sha256(text: str) -> str:
    """SHA-256 of ``text`` in UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
