"""``bench show``: a plug-in's documentation, its options with types, defaults and bounds, and where its source is."""

from __future__ import annotations

import inspect
import json
from argparse import Namespace
from typing import Any

from bench.core.errors import UsageError, unknown_name
from bench.core.shown import lines_shown
from bench.plugins.find import KINDS, Plugin, Plugins


def main(args: Namespace) -> int:
    plugins = Plugins(args.plugin)
    name = args.words[-1]
    presets = plugins.presets()
    if (len(args.words) == 1 and name in presets) or (args.words[0] == "preset" and len(args.words) == 2):
        if name not in presets:
            raise unknown_name("preset", name, presets)
        print(lines_shown(presets[name].read_text(encoding="utf-8").rstrip()))
        return 0
    for number, plugin in enumerate(find(plugins, args.words)):
        shown = describe(plugin)
        if args.json:
            print(json.dumps(shown))
        else:
            print(("\n" if number else "") + lines_shown(_text(shown)))
    return 0


def find(plugins: Plugins, words: list[str]) -> tuple[Plugin, ...]:
    """The plug-ins of ``NAME`` or ``KIND NAME``. Raises UsageError."""
    if len(words) == 1:
        return plugins.search(words[0])
    if len(words) > 2:
        raise UsageError(f"'{' '.join(words)}' is more than NAME or KIND NAME, for instance: attack mia.")
    kind = next((kind for kind in KINDS if words[0] in (kind, f"{kind}s")), None)
    if kind is None:
        raise unknown_name("kind of plug-in", words[0], [*KINDS, "preset"])
    return (plugins.find(kind, words[1]),)


def describe(plugin: Plugin) -> dict[str, Any]:
    """Everything shown, as JSON values."""
    module = plugin.module()
    task = plugin.kind == "task"
    source = getattr(module, "source", "") or (_task_source(plugin) if task else "")
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "version": plugin.version,
        "origin": plugin.origin,
        "file": plugin.where,
        "documentation": plugin.outline.docstring,
        "records": source if task else None,
        "about_options": inspect.cleandoc(plugin.config_class.__dict__.get("__doc__") or ""),
        "options": options(plugin),
    }


def _task_source(plugin: Plugin) -> str:
    """Licence and origin of a task's records, where the task can be built from defaults alone."""
    try:
        return str(plugin.build().source)
    except UsageError:
        return ""


def options(plugin: Plugin) -> list[dict[str, Any]]:
    """The plug-in's options: key, type, default, bounds and meaning."""
    found = _fields(plugin.config_class.model_json_schema(), plugin.name, {})
    return [row for row in found if row["key"] != plugin.name]


def _fields(schema: dict[str, Any], prefix: str, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    definitions = {**definitions, **schema.get("$defs", {})}
    rows: list[dict[str, Any]] = []
    for name, field in schema.get("properties", {}).items():
        target = _resolved(field, definitions)
        if "properties" in target:
            rows += _fields(target, f"{prefix}.{name}", definitions)
            continue
        required = name in schema.get("required", ())
        rows.append(
            {
                "key": f"{prefix}.{name}",
                "type": _type(target, definitions),
                "default": "required" if required else json.dumps(field.get("default")),
                "range": _range(target, definitions),
                "meaning": field.get("description", ""),
            }
        )
    return rows


def _resolved(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = field.get("$ref", "")
    found: dict[str, Any] = definitions.get(reference.rpartition("/")[2], field)
    return found


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(_resolved(option, definitions), definitions) for option in field["anyOf"])
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "array" and isinstance(field.get("items"), dict):
        return f"list of {_type(_resolved(field['items'], definitions), definitions)}"
    return str(field.get("type", "any"))


def _range(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    parts = [f"{sign} {field[key]}" for key, sign in signs.items() if key in field]
    for option in field.get("anyOf", ()):
        inner = _range(_resolved(option, definitions), definitions)
        parts += [inner] if inner else []
    return ", ".join(parts)


def _text(shown: dict[str, Any]) -> str:
    lines = [
        f"{shown['kind']} {shown['name']} (version {shown['version']}, {shown['origin']}, {shown['file']})",
        "",
        shown["documentation"].strip(),
    ]
    if shown["records"]:
        lines += ["", f"Records: {shown['records']}"]
    lines += ["", "Options (--set KEY=VALUE):"]
    if shown["about_options"]:
        lines += [*(f"  {line}".rstrip() for line in shown["about_options"].splitlines()), ""]
    for row in shown["options"]:
        bounds = f", {row['range']}" if row["range"] else ""
        meaning = f": {row['meaning']}" if row["meaning"] else ""
        lines.append(f"  {row['key']} = {row['default']} ({row['type']}{bounds}){meaning}")
    if not shown["options"]:
        lines.append("  none")
    return "\n".join(lines)
