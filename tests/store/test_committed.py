"""Score sheets in files: what was packed comes back, and bytes from others break nothing."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.spec.canonical import sha256
from bench.store import committed
from bench.store.committed import pack, read_sheet, sheet_path

DIGEST = "ab" * 32


def put(folder: Path, data: bytes) -> None:
    path = sheet_path(folder, DIGEST)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@given(text=st.text(max_size=200))
def test_a_packed_sheet_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("sheets")
    put(folder, pack(text))
    assert pack(text) == pack(text)
    assert read_sheet(folder, DIGEST) == text


def test_a_sheet_as_a_store_keeps_it_is_read_too(tmp_path: Path) -> None:
    assert read_sheet(tmp_path, sha256("{}")) is None
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / f"{sha256('{}')}.json").write_text("{}")
    assert read_sheet(tmp_path, sha256("{}")) == "{}"


DAMAGED = {
    "no gzip": b"no gzip",
    "cut short": pack("a sheet")[:-9],
    "wrong checksum": pack("x")[:-1] + b"!",
    "no UTF-8": gzip.compress(b"\xff", mtime=0),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_bytes_are_said_to_be(tmp_path: Path, data: bytes) -> None:
    put(tmp_path, data)
    with pytest.raises(UsageError, match="does not unpack to a text"):
        read_sheet(tmp_path, DIGEST)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committed, "LIMIT", 1000)
    put(tmp_path, pack("0" * 1000))
    assert read_sheet(tmp_path, DIGEST) == "0" * 1000
    put(tmp_path, pack("0" * 1001))
    with pytest.raises(UsageError, match="unpacks to more than 1000 bytes"):
        read_sheet(tmp_path, DIGEST)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "AB" * 32, "ab" * 31])
def test_no_path_is_made_of_what_is_no_digest(tmp_path: Path, digest: str) -> None:
    with pytest.raises(UsageError, match="no SHA-256"):
        read_sheet(tmp_path, digest)
