"""``bench list``: what there is, and which runs the store holds. Imports no plug-in."""

from __future__ import annotations

import json
import tomllib
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import unknown_name
from bench.core.parties import HOLDS
from bench.core.shown import shown
from bench.plugins.find import KINDS, PACKAGES, Plugins

if TYPE_CHECKING:
    from bench.spec.result import Result

#: what is listed only when it is asked for
RUNS = "runs"


def main(args: Namespace) -> int:
    sections = {PACKAGES[kind]: kind for kind in KINDS}
    known = [*sections, "adversaries", "presets"]
    if args.what is not None and args.what not in (*known, RUNS):
        raise unknown_name("list", args.what, (*known, RUNS))
    plugins = Plugins(args.plugin)
    wanted = [args.what] if args.what else known
    rows = {what: _runs(args.store) if what == RUNS else _rows(what, plugins) for what in wanted}
    print(json.dumps(rows, indent=1) if args.json else _text(rows))
    return 0


def _runs(folder: Path | None) -> list[dict[str, str]]:
    """The trainings of a store: run id, what was trained, and what was asked of it."""
    from bench.board.words import preset
    from bench.store.store import Store

    store = Store(folder)
    of_run: dict[str, list[Result]] = {}
    for result in store.results():
        of_run.setdefault(result.run, []).append(result)
    rows = []
    for run in sorted({*store.runs(), *of_run}):
        asked = of_run.get(run, [])
        summary = "no results yet"
        if asked:
            one, attacks = asked[0], ", ".join(sorted({result.attack for result in asked}))
            summary = f"{one.defense} on {one.task} ({preset(one)}), seed {one.seed}: {len(asked)} results of {attacks}"
        rows.append({"name": run, "summary": summary})
    return rows


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
