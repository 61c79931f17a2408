"""``bench verify``: leakage recomputed from stored scores, for results of the store or of files."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from bench.board.verify import Source, Verdict, exit_code, of_file, of_leaderboards, of_store, verify_all
from bench.core.shown import shown
from bench.store.store import Store


def main(args: Namespace) -> int:
    verdicts = verify_all(_sources(args.targets, Store(args.store)))
    for verdict in verdicts:
        print(json.dumps(verdict.to_json()) if args.json else _line(verdict))
    if not args.json:
        good = sum(verdict.good for verdict in verdicts)
        print(f"{good} of {len(verdicts)} results hold" if verdicts else "there are no results to verify")
    return exit_code(verdicts)


def _sources(targets: list[str], store: Store) -> list[Source]:
    """Of result ids, of ``.jsonl`` files, of leaderboard folders; of all stored results where nothing is named."""
    if not targets:
        return of_store(store)
    found: list[Source] = []
    for target in targets:
        path = Path(target)
        if path.is_dir():
            found += of_leaderboards(path)
        elif path.is_file() or path.suffix == ".jsonl":
            found += of_file(path)
        else:
            found += of_store(store, [target])
    return found


def _line(verdict: Verdict) -> str:
    result = verdict.result
    if result is None:
        return shown(f"{verdict.outcome}: {'; '.join(verdict.problems)}")
    head = f"{result.result}  {result.defense} / {result.attack} / {result.adversary}: {verdict.outcome}"
    return shown("; ".join([head, *verdict.problems]))
