"""Configuration errors as one sentence: which key, which value, which bound."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from bench.core.errors import UsageError
from bench.spec.config import Config

C = TypeVar("C", bound=Config)


def validated(model: type[C], values: Mapping[str, Any], prefix: str) -> C:
    """``values`` as ``model``. Raises UsageError with one sentence; ``prefix`` is put before the key (``pool``)."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(explain(error, model, prefix)) from None


def explain(error: ValidationError, model: type[Config], prefix: str = "") -> str:
    """One sentence for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    key = ".".join([prefix, *map(str, first["loc"])] if prefix else map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown_key(key, keys(model, prefix))
    if first["type"] == "missing":
        return f"'{key}' has no value and no default: give one with --set {key}=VALUE."
    if first["type"] in ("value_error", "assertion_error"):
        says = str(first["ctx"]["error"])
        return _sentence(f"{key}={_shown(first['input'])} is refused: {says}" if first["loc"] else says)
    says = first["msg"].removeprefix("Input ")
    return f"{key}={_shown(first['input'])} is refused: it {_lower(says)}."


def unknown_key(key: str, known: Iterable[str]) -> str:
    """A sentence for a key that does not exist, with the nearest one and its siblings."""
    options = sorted(known)
    near = difflib.get_close_matches(key, options, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    head = key.rpartition(".")[0]
    siblings = [option for option in options if option.rpartition(".")[0] == head] or options
    return f"There is no key '{key}'.{hint} Known: {', '.join(siblings) or 'none'}."


def keys(model: type[Config], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields that hold a value, nested configurations opened up."""
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        inner = nested(field.annotation)
        if inner is None:
            yield key
        else:
            yield from keys(inner, key)


def nested(annotation: Any) -> type[Config] | None:
    """The Config that a field holds (``X`` or ``X | None``), or None for a plain value."""
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, Config) and not _is_container(annotation):
            return option
    return None


def _is_container(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list, dict, set, frozenset)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
