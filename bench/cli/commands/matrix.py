"""``bench matrix``: attacks against defenses, run where a cell is missing, and the table made from the cells."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from bench.board import matrix
from bench.cli.commands.run import options, request
from bench.cli.grid import ALL, Grid, check_compositions, expand, split
from bench.core.errors import SiloBenchError
from bench.core.files import read_text
from bench.core.shown import shown
from bench.plugins.find import Plugins
from bench.spec.run import Cell
from bench.store.locks import Holder
from bench.store.store import Store


def main(args: Namespace) -> int:
    if args.check:
        return _check(args.folder)
    plugins = Plugins(args.plugin)
    args.attack = args.attack or ALL
    asked = request(args, plugins)
    words = split(asked.defense, "--defense")
    names = [name for word in words for name in (plugins.names("defense") if word == ALL else [word])]
    grids = [expand(replace(asked, defense=name), plugins) for name in names]
    for grid in grids:
        check_compositions(grid.rows, plugins)
    return _run(grids, args, plugins)


def _run(grids: list[Grid], args: Namespace, plugins: Plugins) -> int:
    """Seed by seed, so that an interrupted table has every defense before any has a second seed."""
    from bench.assess.harness import Harness
    from bench.assess.run import StillTaken, execute

    store = Store(args.store)
    until = time.monotonic() + args.minutes * 60 if args.minutes else float("inf")
    failed = left = added = 0
    harnesses = {grid.preset: Harness(store, plugins, options(args, grid.preset)) for grid in grids}
    games = {row.attack.name: harnesses[grid.preset].attack(row.attack).game for grid in grids for row in grid.rows}
    for seed in dict.fromkeys(seed for grid in grids for seed in grid.seeds):
        for grid in grids:
            harness = harnesses[grid.preset]
            rows = [harness.pinned(row) for row in grid.rows]
            known = matrix.load(matrix.path(args.folder, rows[0].run.task.name, grid.preset))
            missing = [row for row in rows if args.refresh or not _known(Cell(row, seed), known)]
            if not missing:
                continue
            if time.monotonic() >= until:
                left += len(missing)
                continue
            try:
                results = execute(missing, [seed], harness)
            except SiloBenchError as error:
                print(shown(f"{missing[0].run.defense_name}, seed {seed}: {error}"), file=sys.stderr)
                results = list(error.results) if isinstance(error, StillTaken) else []
                failed += 1
            matrix.add(args.folder, results, games, plugins)
            added += len(results)
            failed += sum(r.status == "error" for r in results)
            if args.drop_runs:
                _drop({r.run for r in results}, store)
    say = {"added": added, "failed": failed, "left": left, "folder": str(args.folder / matrix.FOLDER)}
    print(json.dumps(say) if args.json else f"{added} cells added, {failed} failed, {left} left: {say['folder']}")
    return 1 if failed else 0


def _drop(runs: Iterable[str], store: Store) -> None:
    for run_id in runs:
        with store.lock(run_id, Holder("removing it")):
            store.discard_run(run_id)


def _known(cell: Cell, known: Mapping[str, matrix.Entry]) -> bool:
    """Whether the table has the cell. One that older code made counts: stale is not false."""
    found = known.get(cell.cell_id)
    return found is not None and found.status != "error"


def _check(folder: Path) -> int:
    """Whether every committed table is what its cells give."""
    differing = []
    for file in matrix.files(folder):
        page = matrix.page_of(file)
        if not matrix.agrees(read_text(page), matrix.render(list(matrix.load(file).values()))):
            differing.append(str(page))
    for name in differing:
        print(f"{shown(name)} is not what its cells give: run 'bench matrix' again.", file=sys.stderr)
    return 1 if differing else 0
