"""``bench doctor``: is this installation sound, and are its cache and store what they should be?

Every finding is ``ok``, ``note`` (worth knowing, no fault) or ``broken`` (something will fail until it is mended).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from bench.assets.assets import Assets
from bench.board.words import size
from bench.core.errors import SiloBenchError, UsageError
from bench.core.meter import cores
from bench.plugins.find import KINDS, Plugins
from bench.plugins.fingerprint import version
from bench.store.store import Store
from bench.store.usage import exposed, usage

State = Literal["ok", "note", "broken"]
#: less memory than this is too little for the quick preset; less disk than this, for its transcript
MIN_MEMORY = 4 * 10**9
MIN_DISK = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """``subject``: what was looked at. ``says``: one sentence, with what to do where something is broken."""

    subject: str
    state: State
    says: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(store: Store, plugins: Plugins, assets: Assets | None = None) -> Iterator[Finding]:
    """All findings, as they are made. Looks at everything, changes nothing, fetches nothing."""
    parts: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("machine", _machine),
        ("libraries", _libraries),
        ("plug-ins", lambda: _plugins(plugins)),
        ("cache", lambda: _cache(assets or Assets(quiet=True))),
        ("store", lambda: _store(store)),
    )
    for subject, part in parts:
        try:
            yield from part()
        except SiloBenchError as error:
            yield Finding(subject, "broken", str(error))
        except Exception as error:
            yield Finding(subject, "broken", f"could not be examined: {type(error).__name__}: {error}.")


def _python() -> Iterator[Finding]:
    sound = sys.version_info >= (3, 11)
    says = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", "ok" if sound else "broken", says if sound else f"{says}; silobench needs 3.11 or newer.")


def _packages() -> Iterator[Finding]:
    """Every requirement of silobench against what is installed, and what is installed against the tested versions."""
    from packaging.requirements import Requirement

    broken = 0
    for text in metadata.requires("silobench") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None:
            problem = "is not installed"
        elif not requirement.specifier.contains(found, prereleases=True):
            problem = f"is {found}, and silobench needs {requirement.specifier}"
        else:
            continue
        broken += 1
        yield Finding("packages", "broken", f"{requirement.name} {problem}: reinstall silobench.")
    if not broken:
        yield Finding("packages", "ok", "every requirement is met")
    yield from _tested()


def _version(name: str) -> str | None:
    """The installed version without a build's local label (``+cpu``), or None."""
    found = version(name).partition("+")[0]
    return None if found == "absent" else found


def _tested() -> Iterator[Finding]:
    path = Path(__file__).resolve().parents[2] / "constraints.txt"
    if not path.is_file():
        return
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", path.read_text(), re.MULTILINE)
    other = [f"{name} {found} ({pin})" for name, pin in pins if (found := _version(name)) not in (None, pin)]
    if other:
        yield Finding("packages", "note", f"other than the tested versions: {', '.join(other)}")
    else:
        yield Finding("packages", "ok", "all installed packages have the tested versions of constraints.txt")


def _machine() -> Iterator[Finding]:
    import psutil

    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    yield Finding("machine", "ok", f"{cores()} cores may be used; OMP_NUM_THREADS is {threads}")
    memory = psutil.virtual_memory()
    low = memory.available < MIN_MEMORY
    says = f"{size(memory.available)} of {size(memory.total)} memory are free"
    yield Finding(
        "machine", "note" if low else "ok", f"{says}; the quick preset wants {size(MIN_MEMORY)}" if low else says
    )


def _libraries() -> Iterator[Finding]:
    for name, use in (("torch", _torch), ("tenseal", _tenseal), ("opacus", _opacus)):
        try:
            yield Finding(name, "ok", use())
        except Exception as error:
            yield Finding(name, "broken", f"{name} does not work here: {type(error).__name__}: {error}.")


def _torch() -> str:
    import torch

    total = float((torch.ones(3) @ torch.ones(3)).item())
    if total != 3.0:
        raise ArithmeticError(f"1 + 1 + 1 came out as {total}")
    if not torch.cuda.is_available():
        return f"torch {torch.__version__}, {torch.get_num_threads()} threads; no GPU is seen, runs use the processor"
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"torch {torch.__version__}; GPU: {names}"


def _tenseal() -> str:
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.global_scale = 2**40
    (value,) = (ts.ckks_vector(context, [1.5]) + ts.ckks_vector(context, [2.0])).decrypt()
    if abs(value - 3.5) > 1e-6:
        raise ArithmeticError(f"1.5 + 2.0 decrypted to {value}")
    return f"tenseal {metadata.version('tenseal')} encrypts, adds and decrypts"


def _opacus() -> str:
    import opacus
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.step(noise_multiplier=1.0, sample_rate=0.01)
    epsilon = accountant.get_epsilon(delta=1e-5)
    if not 0 < epsilon < 10:
        raise ArithmeticError(f"one step costs epsilon {epsilon}")
    return f"opacus {opacus.__version__} imports and accounts"


def _plugins(plugins: Plugins) -> Iterator[Finding]:
    for kind in KINDS:
        broken = 0
        for name in plugins.names(kind):
            try:
                plugins.find(kind, name).module()
            except UsageError as error:
                broken += 1
                yield Finding("plug-ins", "broken", str(error))
        if not broken:
            yield Finding("plug-ins", "ok", f"{kind}: {', '.join(plugins.names(kind)) or 'none'}")


def _cache(assets: Assets) -> Iterator[Finding]:
    """Every cached file against its checksum; the packaged model."""
    from bench.spec.run import ModelSpec

    yield Finding("cache", "ok", f"the packaged model 'tiny' is at {assets.model(ModelSpec(name='tiny')).path}")
    files = broken = total = 0
    for checked in assets.verify():
        files += 1
        if checked.problem:
            broken += 1
            yield Finding("cache", "broken", f"{checked.path}: {checked.problem}.")
        else:
            total += checked.path.stat().st_size
    if not broken:
        says = f"{files} files ({size(total)}) in {assets.cache} have the right checksums"
        yield Finding("cache", "ok", says if files else f"nothing is cached in {assets.cache} yet")
    yield _disk("cache", assets.cache)


def _store(store: Store) -> Iterator[Finding]:
    """Every result and its scores can be read, and the scores are those that the result names."""
    if not store.root.exists():
        yield Finding("store", "ok", f"{store.root} does not exist yet; the first run makes it")
        yield _disk("store", store.root)
        return
    store.refuse_other_layouts()
    broken = 0
    for result in store.results():
        if result.scores_sha256 is not None and store.scores(result.scores_sha256) is None:
            broken += 1
            yield Finding("store", "broken", f"The scores of result {result.result} are gone: run it with --refresh.")
    used = usage(store)
    says = f"{used.runs} runs and {used.results} results in {used.root}, {size(used.bytes)}"
    yield Finding("store", "note" if broken else "ok", says)
    count, command = exposed(store)
    if count:
        yield Finding("store", "note", f"others can open {count} files of keys, truth and plantings: {command}")
    if used.leftovers:
        yield Finding("store", "note", f"{used.leftovers} leftovers of interrupted runs; the same command resumes them")
    yield _disk("store", store.root)


def _disk(subject: str, path: Path) -> Finding:
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Finding(subject, "broken", f"{folder} can't be written: choose another folder.")
    free = shutil.disk_usage(folder).free
    says = f"{size(free)} are free on the disk of {path}"
    low = free < MIN_DISK
    return Finding(subject, "note" if low else "ok", f"only {says}; the quick preset wants 2 GB" if low else says)
