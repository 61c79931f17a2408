"""A file of the user's own: one JSON object a line, with text or prompt and response.

Fields: ``text``, or ``prompt`` and ``response``; optional ``id``, ``label``, ``silo`` (the organisation that holds the
record: the federation is then divided by organisations, with their own sizes), ``group`` (the person: records of one
group are never split) and ``secrets`` (a list of strings, or of ``{"kind": ..., "text": ...}``, each found in the
prompt or the text). Labels stand on all records or on none, and those that look the same are the same. Anything else is
refused, with the number of the line.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.assets.assets import Assets
from bench.core.errors import UsageError
from bench.corpus.task import Record, Secret, Task
from bench.spec.config import Config as Base

api = 1
version = 2

FIELDS = ("text", "prompt", "response", "id", "label", "silo", "group", "secrets")
MAX_BYTES = 1 << 30
MAX_LINE = 1 << 20
MAX_RECORDS = 1_000_000
MAX_NAME = 200
MAX_SECRETS = 1000
MAX_LABELS = 100
ANSWER_PREFIX = "\nLabel:"


class Config(Base):
    """``path``: the file. ``sha256``: its contents' SHA-256, filled in by ``resolve``; another content is refused."""

    path: str = Field(min_length=1)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class BadLine(Exception):
    """What is wrong with one line, for the sentence that names the file and the line."""


class Jsonl(Task):
    """The records of one file, read whole when the task is built."""

    def __init__(self, records: Sequence[Record], source: str) -> None:
        self._records = tuple(records)
        self.labels = tuple(sorted({record.label for record in records if record.label is not None}))
        self.answer_prefix = ANSWER_PREFIX if self.labels else ""
        self.source = source
        self.organised = any(record.silo is not None for record in records)

    def records(self, assets: Assets) -> Sequence[Record]:
        """The file's records in its order."""
        return self._records


def resolve(config: Config) -> Config:
    """``config`` with the SHA-256 of the file, so that a run's identity changes with the file. Raises UsageError."""
    return config.model_copy(update={"sha256": hashlib.sha256(_read(config)).hexdigest()})


def build(config: Config) -> Task:
    """Read and check the whole file. Raises UsageError naming the first bad line."""
    data = _read(config)
    sha256 = hashlib.sha256(data).hexdigest()
    return Jsonl(parse(data, config.path), f"the user's file {Path(config.path).name} (SHA-256 {sha256})")


def _read(config: Config) -> bytes:
    try:
        with Path(config.path).expanduser().open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The task's file {config.path} can't be read: {reason}.") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"The task's file {config.path} is larger than {MAX_BYTES >> 20} MiB; split it.")
    if config.sha256 is not None and hashlib.sha256(data).hexdigest() != config.sha256:
        raise UsageError(
            f"The task's file {config.path} has changed: its SHA-256 is no longer {config.sha256}; "
            "restore it, or start a new run from the new file."
        )
    return data


def parse(data: bytes, name: str) -> list[Record]:
    """Records from JSON lines. Blank lines are skipped (and counted). Raises UsageError naming file and line."""
    found: list[Record] = []
    lines: dict[str, int] = {}
    first_label = True
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = _record(_object(line), number)
            if len(found) == MAX_RECORDS:
                raise BadLine(f"a task has at most {MAX_RECORDS} records")
            if record.id in lines:
                raise BadLine(f"the id '{record.id}' stands on line {lines[record.id]} already")
            if found and (record.label is not None) != first_label:
                raise BadLine("labels must stand on all records or on none, and this line differs from the first")
        except BadLine as problem:
            raise UsageError(f"{name} line {number}: {problem}.") from None
        first_label = record.label is not None
        lines[record.id] = number
        found.append(record)
    _check_whole(found, name)
    return found


def _check_whole(found: Sequence[Record], name: str) -> None:
    if not found:
        raise UsageError(f"{name} holds no record.")
    labels = {record.label for record in found}
    if len(labels) > MAX_LABELS:
        raise UsageError(f"{name} has {len(labels)} different labels; the most is {MAX_LABELS}.")
    if len(labels) == 1 and None not in labels:
        raise UsageError(f"{name} gives every record the label '{found[0].label}': leave it out, or use two or more.")


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise BadLine(f"it is {len(line)} bytes long; the most is {MAX_LINE}")
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise BadLine(f"it is not UTF-8 (byte {error.start + 1})") from None
    except (ValueError, RecursionError) as error:
        raise BadLine(f"it is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadLine("it is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BadLine("a field stands on it twice")
    return value


def _record(value: dict[str, Any], number: int) -> Record:
    if unknown := sorted(set(value) - set(FIELDS)):
        raise BadLine(f"the field '{unknown[0][:MAX_NAME]}' is unknown; known are {', '.join(FIELDS)}")
    paired = "response" in value or "prompt" in value
    if paired == ("text" in value):
        raise BadLine("it must have either 'text', or 'prompt' and 'response'")
    text = _string(value, "response" if paired else "text")
    prompt = _string(value, "prompt") if paired else ""
    label = _label(value)
    return Record(
        id=_name(value, "id") or f"line-{number}",
        text=text,
        prompt=prompt,
        answer="" if label is None else f"{ANSWER_PREFIX} {label}",
        label=label,
        field=_name(value, "silo"),
        silo=_name(value, "silo"),
        group=_name(value, "group"),
        secrets=_secrets(value.get("secrets", []), prompt + text),
    )


def _string(value: dict[str, Any], field: str) -> str:
    text = value.get(field)
    if not isinstance(text, str) or not text.strip():
        raise BadLine(f"'{field}' must be a text that is not empty")
    return _encodable(text, field)


def _encodable(text: str, field: str) -> str:
    """JSON can name half of a surrogate pair, which no tokenizer can encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadLine(f"'{field}' holds a lone surrogate, which is no character") from None
    return text


def _name(value: dict[str, Any], field: str) -> str | None:
    name = value.get(field)
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or "\n" in name:
        raise BadLine(f"'{field}' must be a text of 1 to {MAX_NAME} characters on one line")
    return _encodable(name, field)


def _label(value: dict[str, Any]) -> str | None:
    """A label in the form that all labels that look the same share: composed, in compatible characters, without spaces
    around and characters that nobody sees."""
    name = _name(value, "label")
    if name is None:
        return None
    plain = unicodedata.normalize("NFKC", name)
    seen = " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())
    if not seen:
        raise BadLine("'label' must be a text that can be seen")
    return seen


def _secrets(value: Any, text: str) -> tuple[Secret, ...]:
    if not isinstance(value, list) or len(value) > MAX_SECRETS:
        raise BadLine(f"'secrets' must be a list of at most {MAX_SECRETS}")
    return tuple(_secret(entry, text) for entry in value)


def _secret(entry: Any, text: str) -> Secret:
    if isinstance(entry, str):
        entry = {"kind": "secret", "text": entry}
    if not isinstance(entry, dict) or set(entry) != {"kind", "text"}:
        raise BadLine("a secret must be a text or {'kind': ..., 'text': ...}")
    kind, secret = _name(entry, "kind"), _string(entry, "text")
    if kind is None:
        raise BadLine("a secret's 'kind' must be a text")
    if secret not in text:
        raise BadLine("a secret does not stand in the text it is a secret of")
    return Secret(kind, secret)
