"""Checks of every plug-in's file, whatever its kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from bench.conformance.checks import Check, Failed, expect
from bench.plugins.find import Plugin

#: what a plug-in may not import before it is used, so that answers from the store stay fast
HEAVY = ("torch", "transformers", "peft", "tenseal", "opacus", "scipy", "sklearn", "evaluate", "datasets", "pandas")
_PROBE = """
import sys
from pathlib import Path
from bench.plugins.find import Plugins, from_path
kind, name, path = sys.argv[1:]
plugin = from_path(Path(path)) if path else Plugins().find(kind, name)
before = set(sys.modules)
plugin.module()
print(" ".join(sorted({n.partition(".")[0] for n in set(sys.modules) - before})))
"""


def checks(plugin: Plugin) -> Iterator[Check]:
    yield Check("documentation", lambda: _documented(plugin))
    yield Check("imports", lambda: _light(plugin))


def _documented(plugin: Plugin) -> str:
    expect(plugin.summary, "the module has no docstring; its first line is what 'bench list' shows.")
    expect(len(plugin.summary) <= 150, f"the docstring's first line has {len(plugin.summary)} characters; 150 at most.")
    return f"'{plugin.summary}'"


def _light(plugin: Plugin) -> str:
    path = str(plugin.path) if plugin.origin == "path" else ""
    command = [sys.executable, "-c", _PROBE, plugin.kind, plugin.name, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"importing it in a fresh process fails: {last}")
    found = sorted(set(done.stdout.split()) & set(HEAVY))
    expect(not found, f"importing it imports {', '.join(found)}; do that inside build() or a method.")
    return "importing it imports no heavy library"
