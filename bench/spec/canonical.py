"""Canonical JSON of a game's sheet (truth and scores, or grades), and bounded parsing of such text from anybody.

Equal contents give equal text: keys sorted, no spaces, floats by Python's shortest text that reads back as the same
double. So a SHA-256 of the text names the contents.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from bench.core.errors import UsageError
from bench.spec.config import canonical_json

#: format of a game's sheet; each game numbers its versions
SHEET = "silobench-scores"
#: bounds on hostile input: characters of a sheet, entries of any one list, characters of an id or a name
MAX_TEXT = 512 * 2**20
MAX_ENTRIES = 5_000_000
MAX_NAME = 500
_MAX_INTEGER = 2**53


def parse(text: str, what: str, version: int) -> dict[str, Any]:
    """The JSON object in ``text``, whose ``format`` must be ``what`` and whose ``version`` at most ``version``.

    Raises UsageError on anything else: other JSON, NaN or infinities, a repeated key, too much text, too deep nesting.
    """
    if len(text) > MAX_TEXT:
        raise UsageError(f"A {what} has at most {MAX_TEXT} characters, this text has {len(text)}.")
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"The {what} is not valid JSON ({error}).") from None
    if not isinstance(value, dict) or value.get("format") != what:
        raise UsageError(f"This is no {what}: its 'format' is not '{what}'.")
    if integer(value.get("version"), "version") > version:
        raise UsageError(
            f"The {what} has version {value['version']}, this silobench reads {version}: upgrade silobench."
        )
    return value


def require_canonical(text: str, again: str, what: str) -> None:
    """Raise UsageError unless ``again``, what was understood written anew, is ``text``: nothing unread may ride
    along.
    """
    if text != again:
        raise UsageError(f"The {what} is not in canonical form: it holds unknown fields, or was edited by hand.")


def write(value: dict[str, Any]) -> str:
    """Canonical text. Floats must be finite."""
    return canonical_json(value)


def sha256(text: str) -> str:
    """SHA-256 of ``text`` in UTF-8, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def field(value: dict[str, Any], name: str) -> Any:
    """``value[name]``, or UsageError."""
    if name not in value:
        raise UsageError(f"The field '{name}' is missing.")
    return value[name]


def mapping(value: Any, what: str) -> dict[str, Any]:
    """``value`` as an object, or UsageError."""
    if not isinstance(value, dict):
        raise UsageError(f"'{what}' must be an object.")
    return value


def entries(value: Any, what: str, count: int | None = None) -> list[Any]:
    """``value`` as a list of ``count`` entries (None: any number within bounds), or UsageError."""
    if not isinstance(value, list) or len(value) > MAX_ENTRIES or (count is not None and len(value) != count):
        wanted = f"{count} entries" if count is not None else f"at most {MAX_ENTRIES} entries"
        raise UsageError(f"'{what}' must be a list of {wanted}.")
    return value


def name(value: Any, what: str) -> str:
    """``value`` as a printable string of 1 to ``MAX_NAME`` characters, or UsageError."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise UsageError(f"'{what}' must be printable text of 1 to {MAX_NAME} characters.")
    return value


def label(value: Any, what: str) -> str:
    """``value`` as text of 1 to ``MAX_NAME`` characters, or UsageError."""
    if not 0 < len(string(value, what)) <= MAX_NAME:
        raise UsageError(f"'{what}' must have 1 to {MAX_NAME} characters.")
    return str(value)


def string(value: Any, what: str) -> str:
    """``value`` as a string that UTF-8 can hold, or UsageError."""
    if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
        raise UsageError(f"'{what}' must be text.")
    return value


def integer(value: Any, what: str) -> int:
    """``value`` as an integer within +-2^53, or UsageError."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MAX_INTEGER:
        raise UsageError(f"'{what}' must be an integer.")
    return value


def numbers(value: Any, what: str, count: int) -> list[float]:
    """``value`` as a list of ``count`` finite floats, or UsageError."""
    found = entries(value, what, count)
    if not all(isinstance(x, float) and math.isfinite(x) for x in found):
        raise UsageError(f"'{what}' must hold {count} finite decimal numbers.")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key!r:.80} stands twice")
        value[key] = item
    return value
