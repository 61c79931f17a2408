"""``bench attack``: attacks on a transcript that is there already, of a stored run or of somebody else's federation."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from bench.cli.commands.run import named, options, show
from bench.cli.grid import adversary_names, attack_specs
from bench.core.errors import UsageError
from bench.plugins.find import Plugins
from bench.spec.run import ADVERSARIES
from bench.store.store import Store


def main(args: Namespace) -> int:
    plugins = Plugins(args.plugin)
    attacks = attack_specs(plugins, named(args.attack, "attack", plugins), args.sets)
    adversaries = adversary_names(args.adversary, ADVERSARIES)
    store = Store(args.store)
    directory = transcript_directory(args.target, store)
    from bench.assess.harness import Harness
    from bench.assess.run import attack_transcript

    results = attack_transcript(directory, attacks, adversaries, Harness(store, plugins, options(args)))
    return show(results, store, args.json)


def transcript_directory(target: str, store: Store) -> Path:
    """The transcript of a run id (or its unambiguous beginning), or the directory named. Raises UsageError."""
    path = Path(target)
    for folder in (path, path / "transcript"):
        if (folder / "manifest.json").is_file():
            return folder
    runs = [run for run in store.runs() if run.startswith(target)] if target else []
    if len(runs) == 1:
        return store.run_dir(runs[0]) / "transcript"
    if len(runs) > 1:
        raise UsageError(f"'{target}' begins the ids of {len(runs)} runs in the store {store.root}: give more digits.")
    if path.exists():
        raise UsageError(f"{path} is no transcript: it has no manifest.json.")
    raise UsageError(f"There is no run '{target}' in the store {store.root}, and no such directory.")
