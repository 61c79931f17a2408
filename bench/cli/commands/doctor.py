"""``bench doctor``: findings on this installation, its cache and its store; exit code 1 where something is broken."""

from __future__ import annotations

import json
from argparse import Namespace

from bench.cli.doctor import examine
from bench.core.shown import shown
from bench.plugins.find import Plugins
from bench.store.store import Store


def main(args: Namespace) -> int:
    found = []
    for finding in examine(Store(args.store, any_layout=True), Plugins(args.plugin)):
        found.append(finding)
        if not args.json:
            mark = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}[finding.state]
            print(f"{mark}  {finding.subject:<9} {shown(finding.says)}", flush=True)
    broken = sum(finding.state == "broken" for finding in found)
    if args.json:
        print(json.dumps([finding.to_json() for finding in found], indent=1))
    else:
        print(f"{broken} broken" if broken else "nothing is broken")
    return 1 if broken else 0
