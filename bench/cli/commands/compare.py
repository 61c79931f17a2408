"""``bench compare``: two defenses on the same candidates."""

from __future__ import annotations

import json
from argparse import Namespace

from bench.board.compare import compare, lines
from bench.board.leaderboard import load
from bench.board.words import table
from bench.core.errors import UsageError
from bench.core.shown import lines_shown, shown
from bench.spec.result import Result
from bench.store.committed import read_sheet
from bench.store.store import Store

HEADS = ("adversary", "attack", "seed", "records", "AUC difference", "95% interval", "p", "seen from", "note")


def main(args: Namespace) -> int:
    store = Store(args.store)
    if args.folder is not None and not args.folder.is_dir():
        raise UsageError(f"There is no folder {args.folder}: --folder takes one with results/ and scores/ in it.")
    results = list(load(args.folder)) if args.folder is not None else list(store.results())

    def read(result: Result) -> str | None:
        name = result.scores_sha256 or ""
        if args.folder is None:
            return store.scores(name)
        return read_sheet(args.folder, name)

    found = compare(results, read, args.first, args.second, args.preset)
    if args.json:
        for row in found:
            print(json.dumps(row.to_json()))
        return 0
    print(f"{shown(args.first)} less {shown(args.second)}, on the same candidates under the same planting")
    print(lines_shown(table(lines(found), HEADS)))
    print(
        "\nOne seed compares two models on these records; 'seen from' is the smallest difference that they could have "
        "shown (80% power). Five seeds or more speak of the defenses."
    )
    return 0
