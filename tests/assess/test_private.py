"""What a run leaves on disk that only its owner may open: keys, states, truth, plantings, and what keys opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE

import pytest

from bench.cli.doctor import examine
from bench.cli.main import main
from bench.core.npy import save
from bench.plugins.find import Plugins
from bench.store.store import Store
from bench.store.usage import exposed

SETS = (
    "pool.candidates=8",
    "pool.validation=4",
    "pool.heldout=8",
    "pool.population=32",
    "pool.max_tokens=48",
    "federation.rounds=1",
    "federation.local.epochs=1",
    "clinical-notes.notes=200",
)
#: the first folders below a run that anybody may open; ``rounds`` holds what the network saw
PUBLIC = {"spec.json", "run.json", "transcript/manifest.json", "transcript/initial.npy", "transcript/rounds"}


@contextmanager
def umask(value: int) -> Iterator[None]:
    former = os.umask(value)
    try:
        yield
    finally:
        os.umask(former)


def mode(path: Path) -> int:
    return S_IMODE(path.stat().st_mode)


def _is_public(path: Path) -> bool:
    if path.parts[0] != "runs":
        return path.parts[0] in {"results", "scores", "sources", "locks", "store.json"}
    below = "/".join(path.parts[2:])
    return below in ("", "transcript", "views") or any(below == p or below.startswith(f"{p}/") for p in PUBLIC)


@pytest.fixture(scope="module", params=[0o000, 0o022])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one run of secure aggregation."""
    store = tmp_path_factory.mktemp("private") / "store"
    words = ["run", "--preset", "smoke", "--defense", "secagg", "--attack", "mia", "--adversary", "server+silo"]
    words += ["--store", str(store), *(part for value in SETS for part in ("--set", value))]
    with umask(request.param):
        assert main(words) == 0
    return store


def test_only_their_owner_opens_keys_truth_plantings_and_views(run: Path) -> None:
    paths = [path.relative_to(run) for path in run.rglob("*")]
    private = [path for path in paths if not _is_public(path)]
    seen = {part for path in private for part in path.parts}
    assert {"plantings", "secrets", "truth", "keys"} <= seen
    assert all(mode(run / path) == (0o700 if (run / path).is_dir() else 0o600) for path in private)
    assert exposed(Store(run)) == (0, "")


def test_doctor_says_how_to_close_a_store_of_an_earlier_version(tmp_path: Path) -> None:
    store = Store(tmp_path / "a store")
    store.save_planting("a" * 16, "{}")
    truth = store.run_dir("b" * 16) / "transcript" / "truth"
    truth.mkdir(parents=True)
    (truth / "origin.json").write_text("{}")
    (store.root / "plantings").chmod(0o755)
    (store.root / "plantings" / f"{'a' * 16}.json").chmod(0o644)
    truth.chmod(0o755)
    count, command = exposed(store)
    assert count == 2
    assert any(one.says.endswith(command) and one.state == "note" for one in examine(store, Plugins()))
    assert os.system(command) == 0
    assert exposed(store) == (0, "")


def test_what_lies_in_a_private_folder_is_exposed_to_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.save_planting("a" * 16, "{}")
    (store.root / "plantings").chmod(0o755)
    assert exposed(store)[0] == 1
    store.root.chmod(0o700)
    assert exposed(store) == (0, "")


def test_a_full_disk_is_a_sentence_where_an_array_is_written(tmp_path: Path) -> None:
    """Under a limit on the size of files, which fails as a full disk does: half of the array is written."""
    resource = pytest.importorskip("resource")
    import signal

    import numpy as np

    from bench.core.errors import UsageError

    former, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, former[1]))
    try:
        with pytest.raises(UsageError, match=r"no disk space left to write .*x\.npy"):
            save(tmp_path / "x.npy", np.zeros(2**16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
