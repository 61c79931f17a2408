"""The ids of what is committed follow from its settings today as they did when it was made: a field that comes later,
of a spec or of a plug-in, nested or not, must not move one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.board import leaderboard, matrix
from bench.cli.grid import Request, expand
from bench.plugins.find import Plugins
from bench.spec.config import canonical_json
from bench.spec.run import Cell, Row

BOARDS = Path(__file__).resolve().parents[1] / "leaderboards"


def test_the_ids_of_committed_results_follow_from_their_specs() -> None:
    results = leaderboard.load(BOARDS)
    assert len(results) >= 174
    for result in results:
        row = Row.model_validate(result.spec)
        ids = row.row_id, row.run.run_id(result.seed), Cell(row, result.seed).cell_id
        assert ids == (result.row, result.run, result.result)


@pytest.mark.parametrize(("name", "count"), [("clinical-notes-smoke", 7434), ("drug-reviews-quick", 792)])
def test_the_ids_of_committed_cells_follow_from_words_of_the_command_line(name: str, count: int) -> None:
    """Presets, defaults and options as they are today, with what a cell says of its settings."""
    plugins, known = Plugins(), dict[str, dict[str, Row]]()
    entries = matrix.load(BOARDS / matrix.FOLDER / f"{name}{matrix.CELLS}").values()
    assert len(entries) >= count
    for one in entries:
        key = canonical_json([one.defense, one.settings, one.attack, one.options])
        if key not in known:
            known[key] = _rows(one, plugins)
        row = known[key][one.adversary]
        assert (row.run.run_id(one.seed), Cell(row, one.seed).cell_id) == (one.run, one.result)


def _rows(one: matrix.Entry, plugins: Plugins) -> dict[str, Row]:
    """By adversary the rows of the command that makes a cell."""
    settings = json.loads(one.settings)
    options = {**settings["options"], one.attack: one.options}
    sets = [f"federation.local.lr={settings['lr']}"]
    sets += [f"{part}.{key}={json.dumps(value)}" for part, values in options.items() for key, value in values.items()]
    asked = Request(one.defense, one.attack, preset=one.preset, sets=tuple(sets), shadow=settings["shadow"])
    return {row.adversary: row for row in expand(asked, plugins).rows}
