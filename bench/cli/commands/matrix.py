"""``bench matrix``: attacks against defenses, run where a cell is missing, and the table made from the cells."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from bench.assess.progress import Progress
from bench.board import matrix
from bench.cli.commands.run import named, request
from bench.cli.grid import ALL, Grid, check_compositions, expand, split
from bench.core.errors import SiloBenchError
from bench.core.files import read_text
from bench.plugins.find import Plugins
from bench.spec.run import Cell
from bench.store.store import Store


def main(args: Namespace) -> int:
    if args.check:
        return _check(args.folder)
    plugins = Plugins(args.plugin)
    args.attack = args.attack or ALL
    asked = request(args, plugins)
    words = split(named(args.defense, "defense", plugins), "--defense")
    names = [name for word in words for name in (plugins.names("defense") if word == ALL else [word])]
    grids = [expand(replace(asked, defense=name), plugins) for name in names]
    for grid in grids:
        check_compositions(grid.cells, plugins)
    return _run(grids, args, plugins)


def _run(grids: list[Grid], args: Namespace, plugins: Plugins) -> int:
    """Seed by seed, so that an interrupted table has every defense before any has a second seed."""
    from bench.assess import run

    store = Store(args.store)
    until = time.monotonic() + args.minutes * 60 if args.minutes else float("inf")
    failed = left = added = 0
    runner = run.Runner(store, plugins, "", Progress(True), run.TRANSCRIPT_BUDGET, None)
    played = {cell.attack.name: runner.build_attack(cell.attack).game for grid in grids for cell in grid.cells}
    for seed in dict.fromkeys(seed for grid in grids for seed in grid.seeds):
        for grid in grids:
            cells = [runner.pinned(cell) for cell in grid.cells]
            missing = [cell for cell in cells if args.refresh or not _known(cell, seed, args.folder, grid.preset)]
            if not missing:
                continue
            if time.monotonic() >= until:
                left += len(missing)
                continue
            try:
                results = run.execute(
                    missing, [seed], store, plugins=plugins, preset=grid.preset, quiet=args.quiet or args.json
                )
            except SiloBenchError as error:
                print(f"{missing[0].run.defense_name}, seed {seed}: {error}", file=sys.stderr)
                failed += 1
                continue
            matrix.add(args.folder, results, played)
            added += len(results)
            failed += sum(r.status == "error" for r in results)
            if args.drop_runs:
                for one in {r.run for r in results}:
                    with store.lock(one):
                        store.discard_run(one)
    say = {"added": added, "failed": failed, "left": left, "folder": str(args.folder / matrix.FOLDER)}
    print(json.dumps(say) if args.json else f"{added} cells added, {failed} failed, {left} left: {say['folder']}")
    return 1 if failed else 0


def _known(cell: Cell, seed: int, folder: Path, preset: str) -> bool:
    """Whether the table has the cell. One that older code made counts: stale is not false."""
    found = matrix.load(matrix.path(folder, cell.run.task.name, preset)).get(cell.result_id(seed))
    return found is not None and found.status != "error"


def _check(folder: Path) -> int:
    """Whether every committed table is what its cells give."""
    differing = []
    for file in matrix.files(folder):
        page = matrix.page_of(file)
        if read_text(page) != matrix.render(list(matrix.load(file).values())):
            differing.append(str(page))
    for name in differing:
        print(f"{name} is not what its cells give: run 'bench matrix' again.", file=sys.stderr)
    return 1 if differing else 0
