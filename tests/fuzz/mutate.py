"""Mutants of a valid file: bytes changed, cut and doubled, and JSON with values that nobody expects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

_MARK = "@@@"
#: JSON texts that stand in place of a value
TOKENS = (
    *("null", "true", "-1", "0", "0.5", "7", "1e308", "-1e308", "1e+308", "-1e+308", "1e+200", "5e-324", "1e999"),
    *("NaN", "Infinity", "-Infinity", "9" * 400, "9" * 5000, str(2**53 + 1), str(2**63), "[]", "{}", "[[]]", "[null]"),
    *('""', '"1"', '"\\u001b[2J\\u202e"', '"\\ud800"', '"\\u0000"', '"a/../b"', f'"{"x" * 1000}"', '[""]', '{"": {}}'),
    *('{"a": 1}', '{"a": 1, "a": 2}', "[" * 300 + "]" * 300, "[" * 20000, '{"a":' * 300 + "1" + "}" * 300),
)


def mutant(seeds: Sequence[bytes], number: int) -> bytes:
    """The mutant of that number: the same whenever it is asked for."""
    random = Random(number)
    data = random.choice(seeds)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        ways = (_json, _json, _line) if data[:1] in (b"{", b"[") else ()
        data = random.choice((*ways, _flip, _cut, _double, _insert, _swap))(random, data, seeds)
    return data


def _flip(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    # what decides how a file is read stands in front, more often than not
    reach = len(changed) if random.random() < 0.5 else min(len(changed), 200)
    for _ in range(random.choice((1, 2, 8))):
        if reach:
            changed[random.randrange(reach)] = random.choice((0, 255, 0x80, random.randrange(256), ord("9"), ord("-")))
    return bytes(changed)


def _cut(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return random.choice((data[:start], data[start:], data[:start] + data[end:]))


def _double(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:]


def _insert(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice((random.randbytes(8), random.choice(TOKENS).encode(), b"\n", b"\xff")) + data[at:]


def _swap(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = random.choice(seeds)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _line(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A line of JSON lines changed, the others as they are."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = _json(random, lines[at], seeds)
    return b"\n".join(lines)


def _json(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One value or key of a JSON text changed, at any depth; what is no JSON has a byte changed."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _flip(random, data, seeds)
    holder: list[Any] = [value]
    spots: list[tuple[Any, Any]] = []
    _spots(holder, spots)
    where, key = random.choice(spots)
    random.choice((_token, _token, _token, _remove, _add, _nested))(random, where, key)
    text = json.dumps(holder[0] if holder else None, separators=(",", ":"), ensure_ascii=False)
    while f'"{_MARK}"' in text:
        text = text.replace(f'"{_MARK}"', random.choice(TOKENS), 1)
    return text.encode(errors="surrogatepass")


def _spots(value: Any, found: list[tuple[Any, Any]]) -> None:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            _spots(value[key], found)


def _token(random: Random, where: Any, key: Any) -> None:
    where[key] = _MARK


def _remove(random: Random, where: Any, key: Any) -> None:
    del where[key]


def _add(random: Random, where: Any, key: Any) -> None:
    if isinstance(where, dict):
        where[random.choice(("more", "", "\x1b[2J", str(key) + "x"))] = _MARK
    else:
        where.insert(key, _MARK)


def _nested(random: Random, where: Any, key: Any) -> None:
    where[key] = random.choice(([where[key]], {"a": where[key]}, str(where[key])))
