"""Our side of an isolated attack: hands over the case, answers forward passes, and takes the answer.

Forward passes are made here and memoised, so that isolated attacks share them like all others, and so that a ``user``
never holds the adapter that it queries. What comes back is somebody else's bytes: only values of the attack interface
are read from it, and the game checks those as it checks every attack's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.assess.isolation.codec import Decoder, Encoder, receive, send
from bench.attack.attack import Attack, Tools
from bench.attack.by_game import ReconstructionAttack, question
from bench.core.errors import SiloBenchError
from bench.core.held import Scratch
from bench.core.tokens import Tokens, TokenStats
from bench.plugins.find import Plugin
from bench.plugins.outline import top_package
from bench.spec.run import PluginSpec, RunSpec
from bench.training.materials import Materials
from bench.view.view import Reading, View

#: tells the child that it was started by us
MODULE = "bench.assess.isolation.child"
_LAST_WORDS = 2000


@dataclass(frozen=True)
class Origin:
    """Where an attack's code and base model are, for the child to load."""

    plugin: Plugin
    spec: PluginSpec
    run: RunSpec
    materials: Materials


def isolated(attack: Attack, origin: Origin) -> Attack:
    """``attack`` with every question asked in a process of its own. Its openers, where it has some, still run here:
    they are part of making the view."""

    class Isolated(Attack):
        confined: str = ""

        def __init__(self) -> None:
            for name in (*Attack.__annotations__, *ReconstructionAttack.__annotations__):
                if hasattr(attack, name):
                    setattr(self, name, getattr(attack, name))

        def variant(self, adversary: str) -> PluginSpec | None:
            return attack.variant(adversary)

        def work(self, spec: RunSpec) -> float:
            return attack.work(spec)

        def budget(self, spec: RunSpec) -> str:
            return attack.budget(spec)

    def ask(method: str) -> Callable[..., Any]:
        def asked(self: Isolated, *args: Any) -> Any:
            *rest, tools = args
            found, self.confined = _run(origin, method, rest, tools)
            return found

        return asked

    method = question(attack)
    setattr(Isolated, method, ask(method))
    return Isolated()


def _run(origin: Origin, method: str, args: list[Any], tools: Tools) -> tuple[Any, str]:
    encoder = Encoder()
    case = encoder.dumps(
        {
            "plugin": str(origin.plugin.path),
            "installed": origin.plugin.origin == "installed",
            "config": origin.spec.model_dump_json(),
            "model": [str(origin.materials.source.path), origin.run.model.model_dump_json()],
            "lora": origin.run.federation.lora.model_dump_json(),
            "method": method,
            "args": args,
            "population": tools.population,
            "population_texts": tools.population_texts,
            "own": tools.own,
            "shadows": tools.shadows,
            "labels": tools.labels,
            "population_labels": tools.population_labels,
            "rng": _state(tools),
        }
    )
    with Scratch("case") as folder:
        root = Path(folder).resolve()
        for number, directory in enumerate(encoder.views):
            _lay(directory, root / "views" / str(number))
        (root / "scratch").mkdir()
        return _talk(origin, case, root, [View.load(d) for d in encoder.views], tools)


def _state(tools: Tools) -> dict[str, Any]:
    state: dict[str, Any] = dict(tools.rng.bit_generator.state)
    return state


def _lay(source: Path, target: Path) -> None:
    """The view's files at ``target``: links where the disk allows, else copies."""
    target.parent.mkdir(parents=True, exist_ok=True)

    def put(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=put)


def _talk(origin: Origin, case: bytes, root: Path, views: list[View], tools: Tools) -> tuple[Any, str]:
    paths = [str(Path(__file__).resolve().parents[3])]
    if origin.plugin.origin == "installed" and origin.plugin.path is not None:
        paths.append(str(top_package(origin.plugin.path).parent))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SILOBENCH_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "TMPDIR": str(root / "scratch"),
        "HOME": str(root / "scratch"),
    }
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.assets.child", str(os.getpid()), MODULE, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            cwd=root,
            env=environment,
        )
        try:
            found = _converse(child, case, views, tools)
        finally:
            if child.poll() is None:
                child.kill()
            child.communicate()
        if found is not None:
            return found
        words.seek(0)
        said = words.read()[-_LAST_WORDS:].decode(errors="replace").strip() or "no word"
    name = origin.plugin.name
    raise SiloBenchError(f"the isolated attack '{name}' ended with status {child.returncode}: {said}")


def _converse(child: Any, case: bytes, views: list[View], tools: Tools) -> tuple[Any, str] | None:
    """The answer and what confined the child; None where it ended without one."""
    decoder, encoder = Decoder(views), Encoder()
    try:
        send(child.stdin, case)
        while (data := receive(child.stdout)) is not None:
            kind, *rest = decoder.loads(data)
            if kind == "answer":
                return rest[0], str(rest[1])
            if kind not in ("stats", "under"):
                raise SiloBenchError(str(rest[0])[:_LAST_WORDS])
            what, tokens = rest
            send(child.stdin, encoder.dumps(_passed(kind, what, tokens, tools)))
    except BrokenPipeError:
        pass
    child.wait()
    return None


def _passed(kind: str, what: Any, tokens: Any, tools: Tools) -> TokenStats:
    """The forward pass that the child asks for."""
    if isinstance(tokens, Tokens):
        if kind == "under" and isinstance(what, np.ndarray):
            return tools.stats_under(what, tokens)
        if kind == "stats" and (what is None or isinstance(what, Reading)):
            return tools.token_stats(what, tokens)
    raise SiloBenchError("the isolated attack asks for a forward pass of something else than records, or under none")
