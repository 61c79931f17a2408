"""Party state: committed with its round, secrets write-once, nothing written outside a round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.core.errors import SiloBenchError, UsageError
from bench.federation.state import StateStore


def begin(store: StateStore, root: Path, round: int) -> Path:
    directory = root / f"{round:04d}.partial"
    directory.mkdir(parents=True)
    store.begin(directory)
    return directory


def commit(store: StateStore, directory: Path) -> None:
    final = directory.with_suffix("")
    directory.rename(final)
    store.committed(final)


def test_values_survive_a_commit_and_a_reopening(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    state = store.party("silo-0")
    directory = begin(store, tmp_path, 0)
    state["global/values"] = np.arange(5, dtype=np.float32)
    state["count"] = np.array(3)
    commit(store, directory)
    for opened in (state, StateStore(tmp_path).party("silo-0")):
        np.testing.assert_array_equal(opened["global/values"], np.arange(5))
        assert int(opened["count"]) == 3
        assert sorted(opened) == ["count", "global/values"]
    assert not list(StateStore(tmp_path).party("silo-1"))


def test_what_was_not_committed_never_happened(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    commit_me = begin(store, tmp_path, 0)
    store.party("server")["x"] = np.array(1)
    commit(store, commit_me)
    begin(store, tmp_path, 1)
    store.party("server")["x"] = np.array(2)
    assert int(StateStore(tmp_path).party("server")["x"]) == 1


def test_a_replaced_value_leaves_the_disk_after_the_commit_only(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    state = store.party("server")
    commit_me = begin(store, tmp_path, 0)
    state["x"] = np.array(1)
    commit(store, commit_me)
    old = tmp_path / "0000" / "server" / "x.npy"
    commit_me = begin(store, tmp_path, 1)
    state["x"] = np.array(2)
    assert old.exists()
    commit(store, commit_me)
    assert not old.exists()
    assert int(state["x"]) == 2


def test_secrets_are_neither_overwritten_nor_deleted(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    begin(store, tmp_path, 0)
    state = store.party("silo-0")
    state["keys/round-0"] = np.zeros(2, np.uint8)
    with pytest.raises(SiloBenchError, match="overwrote its secret 'keys/round-0'"):
        state["keys/round-0"] = np.ones(2, np.uint8)
    with pytest.raises(SiloBenchError, match="deleted its secret"):
        del state["keys/round-0"]


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "A", "", "a/../b", "."])
def test_a_key_can_t_leave_its_folder(tmp_path: Path, key: str) -> None:
    store = StateStore(tmp_path)
    begin(store, tmp_path, 0)
    with pytest.raises(SiloBenchError, match="as a key of its state"):
        store.party("silo-0")[key] = np.array(1)


def test_writing_outside_a_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiloBenchError, match="outside a round"):
        StateStore(tmp_path).party("silo-0")["x"] = np.array(1)


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "0000" / "silo-0" / "a.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x93NUMPY\x01\x00\x05\x00((((\n")
    with pytest.raises(UsageError, match=r"a\.npy is no readable \.npy file"):
        StateStore(tmp_path).party("silo-0")["a"]
