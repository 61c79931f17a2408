"""Every plug-in that comes with SiloBench passes the conformance kit; a new file needs no mention here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.conformance import Grounds, check
from bench.conformance import attack as kit
from bench.plugins.find import KINDS, Plugin, Plugins
from bench.spec.run import ADVERSARIES
from tests.grounds import instead

#: tasks whose records must be fetched first: checked by hand with 'bench check', and by their own tests on local files
FETCHED = frozenset({"drug-reviews"})
#: attacks that are slow on one run
LONG = frozenset({"combined", "difference", "fedmia", "gradient", "label-distribution"})
FOUND = [plugin for kind in KINDS for plugin in Plugins().all(kind) if plugin.origin == "built-in"]


@pytest.fixture(scope="module")
def grounds() -> Grounds:
    """Runs to try attacks on, trained once for all of them."""
    return {}


@pytest.fixture(autouse=True)
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "playground", instead)


def case(plugin: Plugin) -> Any:
    """Attacks that train more than the kit's one run, search, or take gradients of candidates take their minutes in
    'tox -e slow'."""
    marks = []
    if plugin.kind == "attack":
        attack = plugin.build()
        own_run = any(attack.variant(who) is not None for who in ADVERSARIES)
        own_run |= attack.ground != "fedavg" or attack.shadows > 0
        if own_run or attack.game in ("reconstruction", "extraction") or plugin.name in LONG:
            marks.append(pytest.mark.slow)
    return pytest.param(plugin, marks=marks, id=f"{plugin.kind}-{plugin.name}")


@pytest.mark.parametrize("plugin", [case(p) for p in FOUND if p.name not in FETCHED])
def test_it_passes(plugin: Plugin, tmp_path: Path, grounds: Grounds) -> None:
    findings = list(check(plugin, options(plugin, tmp_path), grounds))
    assert len(findings) >= 4
    assert [str(finding) for finding in findings if not finding.passed] == []


def options(plugin: Plugin, folder: Path) -> dict[str, Any]:
    """Options for what has no default: a task that reads a file gets one."""
    if plugin.kind != "task" or "path" not in plugin.config_class.model_fields:
        return {}
    path = folder / "records.jsonl"
    rows = [{"text": f"Note {i} of Anna.", "label": "ab"[i % 2], "secrets": ["Anna"]} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path)}


def test_the_published_key_holder_passes_too() -> None:
    plugin = Plugins().find("defense", "fedshield")
    findings = list(check(plugin, {"key_holder": "server"}))
    assert [str(finding) for finding in findings if not finding.passed] == []
