"""``bench check``: the conformance kit on one plug-in."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from bench.cli.commands.show import find
from bench.cli.grid import plugin_values
from bench.conformance import check
from bench.core.errors import UsageError
from bench.core.shown import lines_shown, shown
from bench.plugins.find import Plugin, Plugins, from_path


def main(args: Namespace) -> int:
    plugin = one_plugin(args.words, Plugins(args.plugin))
    values = plugin_values(plugin, args.sets)
    plugin.validate(values)
    if not args.json:
        print(shown(f"{plugin.kind} {plugin.name} ({plugin.where})"))
    findings = []
    for finding in check(plugin, values):
        findings.append(finding)
        if not args.json:
            print(lines_shown(f"  {finding}"), flush=True)
    failed = sum(not finding.passed for finding in findings)
    if args.json:
        value = {"kind": plugin.kind, "name": plugin.name, "findings": [f.to_json() for f in findings]}
        print(json.dumps(value, indent=1))
    else:
        print(f"{len(findings) - failed} of {len(findings)} checks passed")
    return 1 if failed else 0


def one_plugin(words: list[str], plugins: Plugins) -> Plugin:
    """The plug-in of ``NAME``, ``KIND NAME`` or a file's path. Raises UsageError where that is none, or several."""
    if len(words) == 1 and (words[0].endswith(".py") or Path(words[0]).is_file()):
        return from_path(Path(words[0]))
    found = find(plugins, words)
    if len(found) > 1:
        kinds = " and ".join(plugin.kind for plugin in found)
        raise UsageError(f"'{words[0]}' is a {kinds}: say which, as in 'bench check {found[0].kind} {words[0]}'.")
    return found[0]
