"""Texts that are committed packed: cells, and score sheets (``scores/<SHA-256 of the text>.json.gz``)."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from bench.core.errors import UsageError
from bench.core.files import read_bytes, read_text

#: bytes that are unpacked at most, whatever a file from others says
LIMIT = 256 * 2**20


def sheet_path(folder: Path, digest: str) -> Path:
    """Where the sheet with that SHA-256 is committed. Raises UsageError for what is no SHA-256."""
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise UsageError(f"{digest[:80]!r} is no SHA-256: one has 64 lower-case hexadecimal digits.")
    return folder / "scores" / f"{digest}.json.gz"


def pack(text: str) -> bytes:
    """The bytes of a file: the same for the same text, whenever they are made."""
    return gzip.compress(text.encode(), 9, mtime=0)


def read_sheet(folder: Path, digest: str) -> str | None:
    """The sheet's text, unchecked (``verify`` compares its SHA-256), or None where there is none. Raises UsageError
    for a file that does not unpack, or to more than ``LIMIT`` bytes."""
    path = sheet_path(folder, digest)
    text = read_packed(path)
    return read_text(path.with_suffix("")) if text is None else text


def read_packed(path: Path) -> str | None:
    """The text that was packed into a file, or None where it does not exist. Raises UsageError as ``read_sheet``."""
    packed = read_bytes(path)
    if packed is None:
        return None
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            text = file.read(LIMIT + 1)
        if len(text) > LIMIT:
            raise UsageError(f"{path} unpacks to more than {LIMIT} bytes: nothing of ours is so large.")
        return text.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is damaged: it does not unpack to a text ({type(error).__name__}).") from None
