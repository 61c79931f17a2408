"""``bench list``: what there is. Imports no plug-in."""

from __future__ import annotations

import json
import tomllib
from argparse import Namespace
from pathlib import Path

from bench.core.errors import unknown_name
from bench.core.parties import HOLDS
from bench.core.shown import shown
from bench.plugins.find import KINDS, PACKAGES, Plugins


def main(args: Namespace) -> int:
    sections = {PACKAGES[kind]: kind for kind in KINDS}
    known = [*sections, "adversaries", "presets"]
    if args.what is not None and args.what not in known:
        raise unknown_name("list", args.what, known)
    plugins = Plugins(args.plugin)
    wanted = [args.what] if args.what else known
    rows = {what: _rows(what, plugins) for what in wanted}
    print(json.dumps(rows, indent=1) if args.json else _text(rows))
    return 0


def _rows(what: str, plugins: Plugins) -> list[dict[str, str]]:
    if what == "adversaries":
        return [{"name": name, "summary": text} for name, text in HOLDS.items()]
    if what == "presets":
        return [{"name": name, "summary": _description(path)} for name, path in plugins.presets().items()]
    kind = next(kind for kind, package in PACKAGES.items() if package == what)
    return [
        {
            "name": plugin.name,
            "summary": f"can't be used: {plugin.broken}" if plugin.broken else plugin.summary,
            "origin": plugin.origin,
            "source": plugin.where,
        }
        for plugin in plugins.all(kind)
    ]


def _description(path: Path) -> str:
    """A preset's description, read without checking the rest of it (``bench show`` does)."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"can't be read: {error}"
    text = str(values.get("description", ""))
    return f"{text} (default)" if values.get("default") is True else text


def _text(rows: dict[str, list[dict[str, str]]]) -> str:
    width = max((len(row["name"]) for section in rows.values() for row in section), default=0)
    blocks = []
    for what, section in rows.items():
        lines = [shown(f"  {row['name']:<{width}}  {row['summary']}{_origin(row)}") for row in section]
        blocks.append("\n".join([what, *(lines or ["  none"])]))
    return "\n\n".join(blocks)


def _origin(row: dict[str, str]) -> str:
    return f" [{row['source']}]" if row.get("origin") in ("installed", "path") else ""
