"""Commands in processes of their own on one store: none waits for ever, none is refused where it may wait, and every
cell is computed once."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from bench.assess.harness import Harness, Options
from bench.assess.run import execute
from bench.plugins.find import Plugins
from bench.store.store import Store
from tests.assess.test_run import row
from tests.assess.test_shadows import PLUGIN

#: a row's shadow, attack and seeds, and seconds to wait before it begins
Asked = tuple[int, str, Sequence[int], float]


def command(folder: Path, asked: Asked, wait: bool) -> list[tuple[str, str, str]]:
    """(status, id, date) of each result; what a command of its own does."""
    import torch

    torch.set_num_threads(1)
    shadow, attack, seeds, delay = asked
    time.sleep(delay)
    options = Options(quiet=True, isolate=False, wait=wait)
    harness = Harness(Store(folder / "store"), Plugins([folder / "shadow_one.py"]), options)
    found = execute([row(shadow, attack)], seeds, harness)
    return [(one.status, one.result, one.provenance["date"]) for one in found]


def at_once(folder: Path, asked: Sequence[Asked], wait: bool = False) -> list[list[tuple[str, str, str]]]:
    folder.mkdir(exist_ok=True)
    (folder / "shadow_one.py").write_text(PLUGIN.format(name="shadow-one"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.assess.preload", "tests.assess.test_processes"])
    with ProcessPoolExecutor(len(asked), mp_context=context) as pool:
        running = [pool.submit(command, folder, one, wait) for one in asked]
        return [one.result(timeout=240) for one in running]


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", [0, 1])
def test_two_whose_runs_are_each_other_s_shadows_both_finish(tmp_path: Path, first: int, times: int) -> None:
    """Without ``--wait``. The second begins while the first trains, or a little later."""
    for number in range(times):
        delay = 0.05 * number
        asked = [(first, "shadow-one", [0], 0.0), (1 - first, "shadow-one", [0], delay)]
        found = at_once(tmp_path / str(number), asked)
        assert [[status for status, _, _ in one] for one in found] == [["ok"], ["ok"]]


def test_four_that_overlap_compute_every_cell_once_and_none_is_refused(tmp_path: Path) -> None:
    asked = [(0, "mia", seeds, 0.0) for seeds in ([0, 1, 2], [2, 1, 0], [1, 2, 3], [3, 0])]
    found = at_once(tmp_path / "four", asked, wait=True)
    assert [len(one) for one in found] == [3, 3, 3, 2]
    assert len({result for one in found for _, result, _ in one}) == 4
    # who asked for a cell got the same one, with the same date
    assert len({cell for one in found for cell in one}) == 4
    assert not list((tmp_path / "four" / "store" / "results" / "old").glob("*"))
