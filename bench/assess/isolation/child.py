"""The isolated attack's side: ``python -m bench.assets.child PARENT bench.assess.isolation.child CASE``, a case on
standard input."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bench.assess.isolation.codec import Decoder, Encoder, receive, send
from bench.assess.isolation.sandbox import confine
from bench.attack.attack import Own, Shadow, Tools
from bench.core.errors import SiloBenchError, where_it_broke
from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Array
from bench.plugins.outline import top_package
from bench.spec.run import LoraSpec, ModelSpec, PluginSpec
from bench.view.view import Reading, View

#: what Python and its libraries read of the system
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc", "/sys"),
    # of itself and of the machine, not of other processes, whose command lines may hold a secret seed
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/proc/filesystems", "/proc/version"),
    # not the devices that hold disks
    *("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"),
)


class RemoteTools(Tools):
    """What the parent lends: forward passes are made there; the model is loaded here when it is first asked for."""

    def __init__(self, case: dict[str, Any], views: list[View], stdin: BinaryIO, stdout: BinaryIO) -> None:
        self.population: Tokens = case["population"]
        self.population_texts: tuple[str, ...] = case["population_texts"]
        self.own: Own | None = case["own"]
        self.shadows: tuple[Shadow, ...] = case["shadows"]
        self.labels: tuple[str, ...] = case["labels"]
        self.population_labels: NDArray[np.int64] = case["population_labels"]
        self.rng = np.random.Generator(np.random.PCG64())
        self.rng.bit_generator.state = case["rng"]
        self._case, self._views = case, views
        self._stdin, self._stdout = stdin, stdout
        self._loaded: Any = None

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        return self._asked("stats", source, tokens)

    def stats_under(self, adapter: Array, tokens: Tokens) -> TokenStats:
        return self._asked("under", np.asarray(adapter, dtype=np.float32), tokens)

    def _asked(self, kind: str, what: Any, tokens: Tokens) -> TokenStats:
        send(self._stdout, Encoder(self._views).dumps((kind, what, tokens)))  # type: ignore[arg-type]
        data = receive(self._stdin)  # type: ignore[arg-type]
        if data is None:
            raise SiloBenchError("the harness went away")
        stats: TokenStats = Decoder().loads(data)
        return stats

    @property
    def model(self) -> Any:  # type: ignore[override]
        """The base model, an adapter of zeros in it."""
        if self._loaded is None:
            from bench.model.lora import LoraModel

            path, spec = self._case["model"]
            lora = LoraSpec.model_validate_json(self._case["lora"])
            self._loaded = LoraModel.load(Path(path), ModelSpec.model_validate_json(spec), lora)
        return self._loaded


def main(folder: Path) -> None:
    stdin: Any = sys.stdin.buffer
    stdout: Any = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an attack prints is no message
    data = receive(stdin)
    if data is None:
        raise SystemExit("no case was handed over")
    views = [View.load(folder / "views" / str(n)) for n in range(len(list((folder / "views").iterdir())))]
    case = Decoder(views).loads(data)
    confined = confine(*_reach(folder, case))
    try:
        found = _answer(case, RemoteTools(case, views, stdin, stdout))
        reply = Encoder(views).dumps(("answer", found, confined))
    except Exception as error:
        word = str(error) if isinstance(error, SiloBenchError) else where_it_broke(error)
        reply = Encoder().dumps(("error", word))
    send(stdout, reply)


def _reach(folder: Path, case: dict[str, Any]) -> tuple[list[Path], list[Path], list[Path]]:
    """(readable, writable, listed): Python, libraries, our source, what the plug-in imports of its own folder, the
    model, the case. Of directories beside these only names can be listed, which is what finding a module takes. Shared
    memory is none of it: what one question left there another would find."""
    from bench.plugins.fingerprint import imported

    root = Path(__file__).resolve().parents[3]
    packages = [root / name for name in ("bench", "attacks", "defenses", "tasks")]
    paths = sysconfig.get_paths()
    libraries = [Path(p) for p in (*site.getsitepackages(), *paths.values(), sys.prefix, sys.base_prefix)]
    plugin = Path(case["plugin"])
    if case["installed"]:
        top = top_package(plugin)
        own = [top, *top.parent.glob("*.dist-info")]
    else:
        own = [] if plugin.parent in packages else list(imported(plugin))
    readable = [*map(Path, _SYSTEM), *libraries, *packages, *own, Path(case["model"][0]), folder]
    return readable, [folder / "scratch", Path("/dev/null")], [root, *(path.parent for path in own)]


def _answer(case: dict[str, Any], tools: Tools) -> Any:
    from bench.plugins.find import Plugins

    plugin, spec = Path(case["plugin"]), PluginSpec.model_validate_json(case["config"])
    root = Path(__file__).resolve().parents[3]
    extra = [] if case["installed"] or plugin.parent == root / "attacks" else [plugin]
    attack = Plugins(extra).find("attack", spec.name).build(spec.config)
    found = getattr(attack, case["method"])(*case["args"], tools)
    return tuple(found) if isinstance(found, list) else found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
