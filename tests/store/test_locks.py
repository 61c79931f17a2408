"""Locks between processes: who holds one, who is refused, who waits and for whom."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.store import locks as module
from bench.store.locks import Holder, Locks, Taken

NAME = "0123456789abcdef"
BUSY = Holder("computing it")


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    return Locks(tmp_path / "locks")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short, and locks are kept alive, since one that is collected as garbage is let go as well."""
    kept: list[object] = []
    real = filelock.FileLock

    def made(path: Path) -> object:
        kept.append(real(path))
        return kept[-1]

    monkeypatch.setattr(filelock, "FileLock", made)
    monkeypatch.setattr(module, "POLL", 0.005)
    monkeypatch.setattr(module, "_INTRODUCTION", 0.05)


def word(locks: Locks, name: str = NAME) -> Path:
    return locks.folder / f"{name}.json"


@contextmanager
def elsewhere(locks: Locks, holder: Holder = BUSY) -> Iterator[threading.Event]:
    """Held by another thread, with a lock of its own, until the event is set."""
    has, done = threading.Event(), threading.Event()

    def work() -> None:
        with Locks(locks.folder).held(NAME, holder, ""):
            has.set()
            done.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert has.wait(10)
        yield done
    finally:
        done.set()
        thread.join(10)


def hold(folder: Path, held: Any) -> None:
    with Locks(folder).held(NAME, Holder("holding", passing=True), ""):
        held.set()
        time.sleep(60)  # until it is killed: an event to wait on would keep the killed waiter's place for ever


def test_a_lock_that_another_process_holds_is_free_once_that_is_killed(locks: Locks) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold, args=(locks.folder, held))
    process.start()
    try:
        assert held.wait(60)
        says = rf"It is held \(process {process.pid}, holding\).*--store"
        with pytest.raises(Taken, match=says) as caught:
            locks.held(NAME, BUSY, "It is held").__enter__()
        assert caught.value.holder == Holder("holding", True, process.pid or 0)
        told = []

        def waiting(holder: Holder | None) -> None:
            told.append(holder)
            os.kill(process.pid or 0, signal.SIGKILL)

        with locks.held(NAME, BUSY, "", waiting):
            assert locks.holder(NAME) == Holder("computing it", False, os.getpid())
        assert told == [Holder("holding", True, process.pid or 0)]
    finally:
        process.kill()
        process.join(30)


def test_nothing_is_created_before_the_first_lock(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "locks")
    assert locks.holder(NAME) is None
    assert not (tmp_path / "locks").exists()
    with locks.held(NAME, BUSY, ""):
        assert sorted(p.name for p in locks.folder.iterdir()) == [f"{NAME}.json", f"{NAME}.lock"]


def test_the_holder_s_word_is_there_while_it_holds_and_goes_when_it_lets_go(locks: Locks) -> None:
    with locks.held(NAME, Holder("training it", passing=True, pid=-5), ""):
        # whatever number it was given, its process's own is written
        assert json.loads(word(locks).read_text()) == {"doing": "training it", "passing": True, "pid": os.getpid()}
        assert locks.holder(NAME) == Holder("training it", True, os.getpid())
    assert [p.name for p in locks.folder.iterdir()] == [f"{NAME}.lock"]
    assert locks.holder(NAME) is None


def test_a_taken_lock_is_refused_with_its_holder_and_what_to_do(locks: Locks) -> None:
    with elsewhere(locks, Holder("training it", passing=True)), pytest.raises(Taken) as caught:
        locks.held(NAME, BUSY, "Run 7 is held by another process").__enter__()
    assert str(caught.value) == (
        f"Run 7 is held by another process (process {os.getpid()}, training it): "
        "wait for it (--wait), or name another store with --store."
    )
    assert caught.value.holder == Holder("training it", True, os.getpid())
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2


def test_whoever_is_refused_leaves_the_holder_s_word_and_lock_alone(locks: Locks) -> None:
    with elsewhere(locks):
        before = word(locks).read_bytes()
        for _ in range(2):
            with pytest.raises(Taken):
                locks.held(NAME, Holder("intruding"), "").__enter__()
        assert word(locks).read_bytes() == before


def test_whoever_waits_is_told_for_whom_once_while_that_stays_the_same(locks: Locks) -> None:
    told: list[Holder | None] = []
    with elsewhere(locks) as done:
        threading.Timer(0.06, done.set).start()  # a dozen looks later
        with locks.held(NAME, BUSY, "", told.append):
            pass
    # a last look may fall between the holder's last word and its release
    assert told in ([Holder("computing it", False, os.getpid())], [Holder("computing it", False, os.getpid()), None])


def test_whoever_waits_is_told_again_when_the_holder_changes(locks: Locks) -> None:
    told: list[Holder | None] = []
    others = [Holder("second", False, 22), None, Holder("third", True, 33)]

    def waiting(holder: Holder | None) -> None:
        told.append(holder)
        if not others:
            done.set()
            return
        following = others.pop(0)
        if following is None:
            word(locks).unlink()
        else:
            text = {"doing": following.doing, "passing": following.passing, "pid": following.pid}
            word(locks).write_text(json.dumps(text))

    with elsewhere(locks, Holder("first")) as done, locks.held(NAME, BUSY, "", waiting):
        pass
    first = Holder("first", False, os.getpid())
    assert told[:4] == [first, Holder("second", False, 22), None, Holder("third", True, 33)]
    assert told[4:] in ([], [None])  # between the holder's last word and its release


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[1]",
        "7",
        "{}",
        "[" * 100_000,
        '{"doing": "x"}',
        '{"doing": 1, "pid": "x"}',
        '{"doing": "x", "pid": 1e999}',
        '{"doing": "x", "pid": true}',
    ],
)
def test_a_torn_word_of_the_holder_is_as_good_as_none(locks: Locks, text: str) -> None:
    with elsewhere(locks):
        word(locks).write_text(text)
        with pytest.raises(Taken, match=r"^It is held: wait for it") as caught:
            locks.held(NAME, BUSY, "It is held").__enter__()
        assert caught.value.holder is None


def test_a_holder_that_said_nothing_is_no_crash(locks: Locks) -> None:
    told: list[Holder | None] = []
    with elsewhere(locks) as done:
        word(locks).unlink()
        with pytest.raises(Taken, match=r"^It is held: wait for it") as caught:
            locks.held(NAME, BUSY, "It is held").__enter__()
        assert caught.value.holder is None

        def waiting(holder: Holder | None) -> None:
            told.append(holder)
            done.set()

        with locks.held(NAME, BUSY, "", waiting):
            pass
    assert told == [None]
    assert not word(locks).exists()


def test_a_new_holder_has_time_to_say_who_it_is(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between taking a lock and its word lies a moment, in which nobody is refused for want of a word."""
    monkeypatch.setattr(module, "_INTRODUCTION", 10.0)
    with elsewhere(locks):
        whole = word(locks).read_text()
        word(locks).unlink()
        threading.Timer(0.03, lambda: word(locks).write_text(whole)).start()
        with pytest.raises(Taken) as caught:
            locks.held(NAME, BUSY, "It is held").__enter__()
        assert caught.value.holder == Holder("computing it", False, os.getpid())


def test_whoever_waits_is_told_of_nobody_while_a_holder_lets_go(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTRODUCTION", 10.0)
    told: list[Holder | None] = []
    with elsewhere(locks) as done:
        word(locks).unlink()
        threading.Timer(0.03, done.set).start()
        with locks.held(NAME, BUSY, "", told.append):
            pass
    assert told == []


def test_two_names_do_not_conflict(locks: Locks) -> None:
    with elsewhere(locks), locks.held("fedcba9876543210", Holder("another"), ""):
        assert locks.holder("fedcba9876543210") == Holder("another", False, os.getpid())
        assert locks.holder(NAME) == Holder("computing it", False, os.getpid())


@pytest.mark.parametrize("raised", [KeyError, KeyboardInterrupt])
def test_a_lock_is_released_by_an_exception(locks: Locks, raised: type[BaseException]) -> None:
    with pytest.raises(raised), locks.held(NAME, BUSY, ""):
        raise raised
    assert not word(locks).exists()
    with locks.held(NAME, BUSY, ""):
        pass


def test_a_lock_whose_word_can_not_be_written_is_not_kept(locks: Locks, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise UsageError("There is no disk space left")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_text", full)
        with pytest.raises(UsageError, match="no disk space"):
            locks.held(NAME, BUSY, "").__enter__()
    with locks.held(NAME, BUSY, ""):
        pass


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=rf"{tmp_path}/file/{NAME}\.lock can't be written"):
        Locks(tmp_path / "file").held(NAME, BUSY, "").__enter__()


@given(st.text(), st.booleans(), st.integers(0, 2**31))
def test_a_holder_reads_as_words_after_which(doing: str, passing: bool, pid: int) -> None:
    assert str(Holder(doing, passing, pid)) == f"process {pid}, {doing}"
