"""Errors of configurations, and of JSON from anybody, as one sentence: which key, which value, which bound."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

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
    faults = error.errors(include_url=False)
    first, loc = faults[0], _place(model, faults[0]["loc"])
    key = ".".join(map(str, (prefix, *loc) if prefix else loc))
    if first["type"] == "extra_forbidden":
        return unknown_key(key, keys(model, prefix))
    if first["type"] == "missing":
        return f"'{key}' has no value and no default: give one with --set {key}=VALUE."
    if first["type"] in ("value_error", "assertion_error"):
        says = str(first["ctx"]["error"])
        return _sentence(f"{key}={_shown(first['input'])} is refused: {says}" if first["loc"] else says)
    return f"{key}={_shown(first['input'])} is refused: it {_wanted(faults, model)}."


def fault(error: ValidationError, kind: Any) -> str:
    """What is wrong with JSON from anybody, to follow the name of its file. Its format and version come first."""
    faults = sorted(error.errors(include_url=False), key=lambda one: _FIRST.get(one["loc"], len(_FIRST)))
    first, loc, value = faults[0], _place(kind, faults[0]["loc"]), faults[0]["input"]
    context, shown = first.get("ctx", {}), _short(json.dumps(value, default=str))
    match first["type"]:
        case "json_invalid":
            return f"is not valid JSON ({context['error']})."
        case "literal_error" if loc == ("format",):
            return f"is no {context['expected'][1:-1]}: its 'format' is {shown}."
        case "literal_error" if loc == ("version",) and type(value) is int:
            todo = "upgrade silobench" if value > int(context["expected"]) else "run it again with --refresh"
            return f"has version {shown}, and this silobench reads version {context['expected']}: {todo}."
        case "missing":
            says = "is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            says = "is no field that is known here"
        case "value_error":
            says = f"is refused: {context['error']}"
        case _:
            wanted = _wanted(faults, kind)
            says = wanted if ", not " in wanted else f"{wanted}, not {shown}"
    key = _short(repr(".".join(map(str, loc)))) if loc else "it"
    return f"is malformed: {key} {says}."


#: what is told before all else, since it explains whatever else does not fit
_FIRST: dict[Any, int] = {("format",): 0, ("version",): 1}


def _wanted(faults: Sequence[ErrorDetails], kind: Any) -> str:
    """What the first field should be: all of it, where it takes one of several types."""
    place = _place(kind, faults[0]["loc"])
    several = len(place) < len(faults[0]["loc"])
    same = [one["msg"] for one in faults if _place(kind, one["loc"]) == place] if several else [faults[0]["msg"]]
    pattern = "^.*? should | after validation" + "|, unable to .*" * several
    texts = dict.fromkeys(re.sub(pattern, "", text) for text in same)
    if " should " not in same[0]:
        return f"can't be taken ({same[0]})"
    return "should " + " or ".join(text.removeprefix("be ") if k else text for k, text in enumerate(texts))


def _place(kind: Any, loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """``loc`` up to a field that takes one of several types: what pydantic puts behind it is a type's name."""
    for depth, part in enumerate(loc):
        options = _options(kind)
        if len(options) > 1:
            return loc[:depth]
        (kind,) = options
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            inner = [one for one in get_args(kind) if one is not ...]
            kind = inner[min(part, len(inner) - 1) if isinstance(part, int) else -1] if inner else None
    return loc


def _options(annotation: Any) -> list[Any]:
    """The types that a field takes, None left out."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _options(inner[0])
    if origin in (Union, UnionType):
        return [option for one in inner if one is not NoneType for option in _options(one)]
    return [annotation]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """A sentence for a key that does not exist, with the nearest one and its siblings."""
    options = sorted(known)
    near = nearest_key(key, options)
    hint = f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
    head = key.rpartition(".")[0]
    siblings = [option for option in options if option.rpartition(".")[0] == head] or options
    return f"There is no key '{key}'.{hint} Known: {', '.join(siblings) or 'none'}."


def nearest_key(key: str, known: Iterable[str]) -> list[str]:
    """The full keys that are meant, at most three: those that end in the last word of ``key``, where it names several
    the ones that begin like it (``federation.lr`` is ``federation.local.lr``); else the one that is written most like
    it."""
    options = sorted(known)
    head, _, leaf = key.rpartition(".")
    named = [option for option in options if option.rpartition(".")[2] == leaf and option != key]
    below = [option for option in named if head and option.startswith(f"{head}.")]
    written = difflib.get_close_matches(key, options, n=1, cutoff=0.6)
    if below or not written or not head:
        return (below or named or written)[:3]
    return written


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
    return _short(value if isinstance(value, str) else json.dumps(value, default=str))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."
