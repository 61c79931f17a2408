"""``bench leaderboard``: committed results to Markdown; ``--add`` copies stored results in; ``--check`` compares;
``--rescore`` computes figures anew from the committed scores."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.board import leaderboard, matrix
from bench.board.rescoring import rescore
from bench.core.errors import UsageError
from bench.core.shown import shown
from bench.plugins.find import Plugins
from bench.store.store import Store


def main(args: Namespace) -> int:
    if not args.folder.is_dir():
        raise UsageError(f"There is no folder {args.folder}: go to the repository's root, or name one with --folder.")
    if args.check:
        return _check(args.folder, args.json)
    added = leaderboard.add(store := Store(args.store), _ids(args.add, store), args.folder) if args.add else ()
    anew = rescore(args.folder) if args.rescore else ()
    changed = leaderboard.write(args.folder, _rendered(args.folder))
    if args.json:
        made = {"added": [r.result for r in added], "rescored": [r.result for r in anew], "changed": list(changed)}
        print(json.dumps(made))
        return 0
    if args.add:
        print(f"{len(added)} results added or replaced")
    if args.rescore:
        print(f"{len(anew)} results computed anew from their scores")
    print("\n".join(shown(f"made {args.folder / name}") for name in changed) or "the Markdown is up to date")
    return 0


def _rendered(folder: Path) -> dict[str, str]:
    results = leaderboard.load(folder)
    return leaderboard.render(results, leaderboard.stale_ids(results, Plugins()), matrix.pages(folder))


def _check(folder: Path, as_json: bool) -> int:
    found = leaderboard.check(folder, _rendered(folder))
    if as_json:
        print(json.dumps({"differing": list(found.differing), "stale": list(found.stale)}))
    else:
        for sentence in found.differing:
            print(f"{shown(sentence)}; run 'bench leaderboard' and commit what it makes")
        for name in found.stale:
            print(f"{shown(str(folder / name))}: versions changed since some rows were measured (not an error)")
        if not found.differing:
            print("the committed Markdown is what the committed results give")
    return 1 if found.differing else 0


def _ids(words: Iterable[str], store: Store) -> Iterator[str]:
    """Result ids from result ids and run ids (all results of that run)."""
    by_run: dict[str, list[str]] = {}
    for result in store.results():
        by_run.setdefault(result.run, []).append(result.result)
    for word in words:
        yield from by_run.get(word, [word])
