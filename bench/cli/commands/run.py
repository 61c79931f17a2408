"""``bench run``: a grid of cells, trained, attacked, and shown."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bench.cli.division import brings
from bench.cli.grid import Grid, Request, check_compositions, expand
from bench.core.errors import UsageError
from bench.core.shown import lines_shown, shown
from bench.plugins.find import Kind, Plugins
from bench.spec.config import canonical_json
from bench.spec.result import Result
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.assess.harness import Options


def main(args: Namespace) -> int:
    plugins = Plugins(args.plugin)
    grid = expand(request(args, plugins), plugins)
    check_compositions(grid.rows, plugins)
    store = Store(args.store)
    if args.dry_run:
        return _dry_run(grid, store, plugins, args.json)
    from bench.assess.harness import Harness
    from bench.assess.run import StillTaken, execute

    harness = Harness(store, plugins, options(args, grid.preset))
    try:
        results = execute(grid.rows, grid.seeds, harness)
    except StillTaken as refused:
        if refused.results:
            show(refused.results, store, args.json)
        raise
    return show(results, store, args.json)


def options(args: Namespace, preset: str = "") -> Options:
    """How the words of the command line say that runs are carried out."""
    from bench.assess.harness import Options

    known = {"quiet": args.quiet or args.json, "wait": args.wait, "isolate": getattr(args, "isolate", None)}
    return Options(preset=preset, refresh=getattr(args, "refresh", False), **known)


def request(args: Namespace, plugins: Plugins, **given: Any) -> Request:
    """The words of the command line, ``given`` in place of them. Raises UsageError where a defense or an attack is not
    named."""
    words = {field.name: vars(args)[field.name] for field in fields(Request) if field.name in args} | given
    for kind in ("defense", "attack"):
        named(words[kind], kind, plugins)
    return Request(**{**words, "sets": tuple(args.sets)})


def named(value: str | None, kind: Kind, plugins: Plugins) -> str:
    """``value``, where one was given. Raises UsageError that lists what there is."""
    if value:
        return value
    known = ", ".join(plugins.names(kind)) or "none"
    raise UsageError(f"Name at least one {kind} with --{kind}. Known: {known}.")


def show(results: Sequence[Result], store: Store, as_json: bool) -> int:
    """Print results; the exit code is 1 where one has status ``error``."""
    if as_json:
        for result in results:
            print(result.to_json())
    else:
        from bench.board import report

        print(report.render(results, store.root))
    return 1 if any(result.status == "error" for result in results) else 0


def _dry_run(grid: Grid, store: Store, plugins: Plugins, as_json: bool) -> int:
    """What would be done. Builds every defense, so that parts that don't combine are found here too."""
    from bench.board.words import duration, one_line, size
    from bench.cli.forecast import estimate

    estimates = estimate(grid.rows, grid.seeds, store, plugins=plugins)
    by_id = {row.row_id: row for row in grid.rows}
    rows: list[dict[str, Any]] = [
        {
            "task": row.run.task.name,
            "defense": row.run.defense_name,
            "attack": row.attack.name,
            "adversary": row.adversary,
            **vars(e),
        }
        for e, row in ((e, by_id[e.row]) for e in estimates)
    ]
    runs = {canonical_json(row.run.task): row.run for row in grid.rows}
    named = [{"task": run.task.name, **vars(one)} for run in runs.values() for one in brings(run, plugins)]
    if as_json:
        print(json.dumps({"preset": grid.preset, "organisations": named, "cells": rows}, indent=1))
        return 0
    print(lines_shown(_table(rows)))
    for one in named:
        where = f"{one['silo']}: {one_line(one['name'])}, {one['candidates']} candidates of {one['records']} records"
        print(shown(where))
    for attack, budget in {(row["attack"], row["budget"]): None for row in rows if row["budget"]}:
        print(shown(f"budget of {attack}: {budget}"))
    seconds = sum(e.seconds for e in estimates if not e.stored)
    total = sum(e.bytes for e in estimates if not e.stored)
    stored, trainings = sum(e.stored for e in estimates), sum(e.trainings for e in estimates)
    print(
        f"\npreset {grid.preset}: {len(rows)} rows, {stored} stored already; {trainings} federations to train; "
        f"about {duration(seconds)} and {size(total)} for the rest (estimates)"
    )
    return 0


def _table(rows: Sequence[dict[str, Any]]) -> str:
    from bench.board.words import duration, size, table

    body = []
    for r in rows:
        left = ["yes", "", ""] if r["stored"] else ["no", duration(r["seconds"]), size(r["bytes"])]
        body.append([r["task"], r["defense"], r["attack"], r["adversary"], r["seed"], *left])
    heads = ["task", "defense", "attack", "adversary", "seed", "stored", "time", "disk"]
    return table(body, heads)
