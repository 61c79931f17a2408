"""Whole files: what is written stands whole or not at all, and what the operating system refuses is a sentence."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench.core import files
from bench.core.errors import UsageError


def everything(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def failing(number: int) -> Any:
    """A call of the operating system that fails with this error."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    files.write_text(path, "first")
    files.write_text(path, "second\r\n\u2028é")
    assert path.read_bytes() == b"second\r\n\xe2\x80\xa8\xc3\xa9"
    files.write_bytes(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    assert everything(tmp_path) == ["a", "a/b.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("at", ["fsync", "write"])
def test_a_full_disk_is_a_sentence_and_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: str
) -> None:
    path = tmp_path / "x.json"
    files.write_text(path, "former")
    if at == "fsync":
        monkeypatch.setattr(os, "fsync", failing(number))
    else:
        opened = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *given: Failing(opened(*given), failing(number)))
    with pytest.raises(UsageError) as caught:
        files.write_text(path, "new")
    monkeypatch.undo()
    assert str(caught.value) == f"There is no disk space left to write {path}: free some and run again."
    assert path.read_text() == "former"
    assert everything(tmp_path) == ["x.json"]


class Failing:
    """A file whose ``write`` fails."""

    def __init__(self, file: Any, write: Any) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    with pytest.raises(UsageError) as caught:
        files.write_text(path, "new")
    monkeypatch.undo()
    assert str(caught.value) == f"{path} can't be written (Permission denied): check the folder."
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match=r"file/x\.json can't be written"):
        files.write_text(tmp_path / "file" / "x.json", "new")


def test_an_error_without_a_text_of_the_system_is_said_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x can't be written \(odd\): check the folder\."), files.writing(Path("x")):
        raise OSError("odd")


def test_killed_while_writing_the_former_file_stands(tmp_path: Path) -> None:
    """A process is killed inside fsync, after the new bytes were written under the temporary name."""
    path = tmp_path / "x.json"
    files.write_text(path, "former")
    code = """
        import os, signal, sys
        from pathlib import Path
        from bench.core import files
        os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
        files.write_text(Path(sys.argv[1]), "new" * 1000)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "former"
    files.write_text(path, "later")
    assert path.read_text() == "later"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_the_former_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    path = tmp_path / "x.json"
    files.write_text(path, "former")

    def interrupted(*_: Any) -> None:
        raise interruption

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(interruption):
        files.write_text(path, "new")
    assert path.read_text() == "former"
    assert everything(tmp_path) == ["x.json"]


def test_contents_reach_the_disk_before_the_name_and_the_name_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    seen: list[tuple[bool, bool, int]] = []

    def synced(handle: int) -> None:
        status = os.fstat(handle)
        seen.append((stat.S_ISDIR(status.st_mode), path.exists(), status.st_size))

    monkeypatch.setattr(os, "fsync", synced)
    files.write_text(path, "three")
    assert [found[:2] for found in seen] == [(False, False), (True, True)]
    assert seen[0][2] == 5


def test_a_system_that_cannot_sync_folders_writes_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sync, opened = tmp_path / "x.json", os.fsync, os.open

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "no folders")
        sync(handle)

    def opens_no_folder(path: Any, *rest: Any, **named: Any) -> int:
        if path == tmp_path:
            raise OSError(errno.EACCES, "no folders")
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "fsync", files_only)
    files.write_text(path, "one")
    assert path.read_text() == "one"
    monkeypatch.setattr(os, "open", opens_no_folder)
    files.write_text(path, "two")
    monkeypatch.undo()
    assert path.read_text() == "two"


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_a_private_file_is_its_owner_s_from_the_first_byte_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool, mode: int
) -> None:
    path = tmp_path / "x.json"
    sync, modes = os.fsync, []

    def synced(handle: int) -> None:
        modes.append(os.fstat(handle).st_mode & 0o777)
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    before = os.umask(0o022)
    try:
        files.write_text(path, "secret", private=private)
    finally:
        os.umask(before)
    assert modes[0] == path.stat().st_mode & 0o777 == mode
    assert path.read_text() == "secret"


# -- reading -------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_and_a_missing_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert files.read_text(path) is None
    assert files.read_bytes(path) is None
    files.write_text(path, "é\r\n")
    assert files.read_text(path) == "é\r\n"
    assert files.read_bytes(path) == b"\xc3\xa9\r\n"
    files.write_bytes(path, b"")
    assert files.read_text(path) == ""


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    for read in (files.read_text, files.read_bytes):
        with pytest.raises(UsageError) as caught:
            read(tmp_path)
        assert str(caught.value) == f"{tmp_path} can't be read (Is a directory)."
    path = tmp_path / "x"
    path.write_bytes(b"\xff\xfe")
    assert files.read_bytes(path) == b"\xff\xfe"
    with pytest.raises(UsageError) as caught:
        files.read_text(path)
    assert str(caught.value) == f"{path} is damaged: it is no UTF-8 text; remove it and run again."


# -- folders held --------------------------------------------------------------------------------------------------


def is_free(folder: Path) -> bool:
    """Whether anybody else could hold the folder now, if only to share it. Locks are of opened files."""
    fcntl = pytest.importorskip("fcntl")
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def test_a_folder_is_held_by_one_until_its_block_ends_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with files.folder_held(folder):
        assert not is_free(folder)
    assert is_free(folder)
    with pytest.raises(KeyError), files.folder_held(folder):
        raise KeyError
    assert is_free(folder)
    assert everything(tmp_path) == ["a", "a/b"]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match=r"file/a can't be written \(Not a directory\)"):
        files.folder_held(tmp_path / "file" / "a").__enter__()


def test_where_the_system_has_no_locks_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with files.folder_held(tmp_path / "a"):
        assert not (tmp_path / "a").exists()
