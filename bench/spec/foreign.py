"""JSON from anybody as strict models: what does not fit ends in one sentence that names the file and the field."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench.core.errors import UsageError, raising
from bench.core.files import read_bytes
from bench.spec.config import canonical_json
from bench.spec.explain import fault

T = TypeVar("T")
#: of a whole number, so that it is one of floating point too
MAX_DIGITS = 100
#: one that every reader of JSON keeps exact
Integer = Annotated[int, Field(ge=-(2**53), le=2**53)]


class Foreign(BaseModel):
    """An object as it stands in a file: frozen, unknown keys refused, no type made of another, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def parsed(kind: type[T], raw: str | bytes, where: object) -> T:
    """The JSON text ``raw`` as ``kind``: a model, or a container of such. Raises UsageError, which begins with
    ``where``."""
    try:
        data = raw if isinstance(raw, bytes) else raw.encode()
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a class is hashable
        found = adapter.validate_json(data, strict=True)
        json.loads(data, object_pairs_hook=_once, parse_int=_whole)
        return found
    except UnicodeEncodeError:
        raise UsageError(f"{where} is not valid JSON (it holds half a surrogate pair).") from None
    except ValidationError as error:
        raise UsageError(f"{where} {fault(error, kind)}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not valid JSON ({str(error) or type(error).__name__:.200}).") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it gives a key twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it holds a whole number of more than {MAX_DIGITS} digits")
    return int(digits)


def loads(text: str) -> Any:
    """Any JSON that can be written again. Raises ValueError for what is none, repeats a key, is nested too deeply or
    holds NaN or a number out of range."""
    with raising(ValueError, of=RecursionError):
        return writable(json.loads(text, object_pairs_hook=_once, parse_int=_whole))


def read(kind: type[T], path: Path) -> T | None:
    """``parsed`` of a file, None where there is none. Raises UsageError where it can't be read or does not fit."""
    raw = read_bytes(path)
    return None if raw is None else parsed(kind, raw, path)


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def writable(value: T) -> T:
    """``value``, where it can be written as JSON: the parser reads 1e999 as infinity, and NaN too."""
    try:
        # a model's own dump for JSON would write null
        canonical_json(value.model_dump() if isinstance(value, BaseModel) else value).encode()
    except (ValueError, RecursionError):
        raise ValueError("it holds NaN, or a number out of range") from None
    return value


#: whatever JSON holds
Json = Annotated[Any, AfterValidator(writable)]
