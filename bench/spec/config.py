"""The base of every configuration: frozen, unknown keys refused, no infinities."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class Config(BaseModel):
    """A frozen pydantic model. A plug-in's options subclass this."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get(_LATER) and getattr(self, name) == field.default:
                values.pop(name, None)
        return values


_LATER = "later"


def later(default: Any, **bounds: Any) -> Any:
    """A field that came after its class was in use: written down only where it has another value than ``default``, so
    that identities from before it stay what they were. ``bounds``: as of ``pydantic.Field``. The default may never
    change, since it stands for all that was made before."""
    return Field(default, json_schema_extra={_LATER: True}, **bounds)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """The first ``length`` hexadecimal digits of the SHA-256 of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]
