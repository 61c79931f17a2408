"""``bench tune``: the same grid of trials for every defense, judged on validation records."""

from __future__ import annotations

import json
from argparse import Namespace

from bench.assess.harness import Harness
from bench.cli.commands.run import options, request
from bench.cli.grid import split
from bench.cli.tuning import Attempt, best, tune
from bench.core.shown import lines_shown, shown
from bench.plugins.find import Plugins
from bench.store.store import Store


def main(args: Namespace) -> int:
    plugins = Plugins(args.plugin)
    asked = request(args, plugins, attack=plugins.names("attack")[0])  # a grid needs one; nothing is attacked
    store = Store(args.store)
    harness = Harness(store, plugins, options(args, args.preset or ""))
    trials: list[Attempt] = []
    for trial in tune(asked, split(asked.defense, "--defense"), args.tries, harness):
        trials.append(trial)
        if args.json:
            print(json.dumps(trial.to_json()), flush=True)
    if not args.json:
        _show(trials, store)
    return 0


def _show(trials: list[Attempt], store: Store) -> None:
    from bench.board.words import table

    chosen = best(trials)
    body = [
        [t.defense, t.sets, f"{t.value:.4g}", f"{t.base:.4g}", "best" if t is chosen[t.defense] else ""] for t in trials
    ]
    heads = ["defense", "setting", f"validation {trials[0].metric}", "base model", ""]
    print(lines_shown(table(body, heads)))
    print()
    for name, trial in chosen.items():
        print(shown(f"{name}: {trial.sets}"))
    print(f"\n{len(trials)} trials on {trials[0].records} validation records each; the runs lie in {store.root}.")
