"""The arguments of every command. Nothing but argparse is imported here, so that ``--help`` is immediate."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Parser = argparse.ArgumentParser


#: what several commands take; ``{}`` in a help text is filled with a command's own words
OPTIONS: dict[str, dict[str, Any]] = {
    "defense": {"metavar": "NAMES", "help": "comma list; '+' composes: dp-sgd+fedshield"},
    "attack": {"metavar": "NAMES", "help": "comma list of attacks; all: every one that needs no further run"},
    "task": {"metavar": "NAME", "help": "the task (default: the preset's)"},
    "adversary": {"metavar": "NAMES", "help": "comma list of adversaries; all: every one (default: {})"},
    "preset": {"metavar": "NAME", "help": "how large a run is{} (see 'bench list presets')"},
    "seeds": {"metavar": "SEEDS", "help": "comma list of seeds and ranges{}"},
    "set": {
        "action": "append",
        "default": [],
        "dest": "sets",
        "metavar": "KEY=VALUE",
        "help": "set one option: {}; VALUE is JSON, else a string; may be repeated",
    },
    "model": {"metavar": "NAME", "help": "short for --set model.name="},
    "folder": {"type": Path, "default": Path("leaderboards"), "metavar": "DIR", "help": "default: ./leaderboards"},
    "plugin": {
        "action": "append",
        "default": [],
        "type": Path,
        "metavar": "PATH",
        "help": "also load the plug-in in this file (its code is run); may be repeated",
    },
    "store": {"type": Path, "metavar": "DIR", "help": "where runs are kept (default: SILOBENCH_STORE or ./.silobench)"},
    "isolate": {
        "action": argparse.BooleanOptionalAction,
        "help": "run every attack, or none, in a process of its own that holds the view's files and nothing else of "
        "the run (default: those that are not SiloBench's own)",
    },
    "wait": {
        "action": "store_true",
        "help": "wait for runs that another process computes (default: the others go first; what is held at the end "
        "is refused)",
    },
    "quiet": {"action": "store_true", "help": "no progress"},
    "json": {"action": "store_true", "help": "print {} as JSON"},
}


def _add(parser: Parser, *names: str, **words: str) -> None:
    """The options ``names``, then those of ``words`` with a command's words in their help."""
    for name, word in {**dict.fromkeys(names, ""), **words}.items():
        option = OPTIONS[name]
        parser.add_argument(f"--{name}", **{**option, "help": option["help"].format(word)})


def run(parser: Parser) -> None:
    add = parser.add_argument
    _add(parser, "defense", "attack")
    add("--task", metavar="NAMES", help="comma list of tasks; NAME:PATH hands a file to a task (default: the preset's)")
    _add(parser, adversary="the preset's, usually all", preset=": a preset's name or a .toml file")
    _add(parser, seeds=": 0,3 or 0-4, both ends included", set="model.*, pool.*, federation.*, utility.* or PLUGIN.*")
    _add(parser, "plugin", "store")
    add("--model", metavar="NAME", help="smollm2-135m, tiny, hf:ORG/NAME or a directory (short for --set model.name=)")
    add("--dtype", metavar="TYPE", help="float32, bfloat16 or float16 (short for --set model.dtype=)")
    add(
        "--secret-seed",
        type=int,
        metavar="N",
        help="draw all secrets from this number, for tests: such a run says so and makes no privacy claim",
    )
    add(
        "--shadow",
        type=int,
        default=0,
        metavar="K",
        help="attack the K-th federation under another planting, one that shadow attacks learn from (default: 0)",
    )
    add("--dry-run", action="store_true", help="print the cells, what is stored already, estimated time and bytes")
    _add(parser, "isolate")
    add("--refresh", action="store_true", help="run again also where a stored result is current")
    _add(parser, "wait", "quiet", json="one result per line")


def attack(parser: Parser) -> None:
    parser.add_argument("target", metavar="RUN", help="the id of a stored run, or the directory of a transcript")
    _add(parser, "attack", adversary="all", set="ATTACK.*")
    _add(parser, "isolate", "plugin", "store", "wait", "quiet", json="one result per line")


def tune(parser: Parser) -> None:
    _add(parser, "defense")
    parser.add_argument(
        "--try",
        action="append",
        default=[],
        dest="tries",
        metavar="KEY=V1,V2",
        help="values of one option to try, as for --set; several make a grid; may be repeated",
    )
    _add(parser, "task", "preset", seeds="; the figure is their mean")
    _add(parser, set="model.*, pool.*, federation.*, utility.* or PLUGIN.*, for every trial")
    _add(parser, "plugin", "store", "model", "wait", "quiet", json="one trial per line")


def matrix(parser: Parser) -> None:
    add = parser.add_argument
    add("--defense", metavar="NAMES", default="all", help="comma list; all: every one that is installed (default)")
    add("--attack", metavar="NAMES", help="comma list; all: every one that needs no further run (default)")
    _add(parser, "task", adversary="the preset's")
    _add(parser, "preset", "seeds", "folder")
    add("--minutes", type=float, metavar="N", help="begin no further training after so many minutes")
    add("--refresh", action="store_true", help="run the table's cells again too")
    add("--drop-runs", action="store_true", help="remove each run from the store when its cells are in the table")
    add("--check", action="store_true", help="fail where a committed table is not what its cells give; run nothing")
    _add(parser, set="model.*, pool.*, federation.*, utility.* or PLUGIN.*")
    _add(parser, "plugin", "store", "model", "quiet", json="what was added")
    _add(parser, "wait")


def listing(parser: Parser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        metavar="WHAT",
        help="defenses, attacks, tasks, adversaries or presets (default: all of these), or runs: what the store holds",
    )
    _add(parser, "plugin", "store", json="the list")


def show(parser: Parser) -> None:
    parser.add_argument("words", nargs="+", metavar="NAME", help="a plug-in or preset: NAME, or KIND NAME")
    _add(parser, "plugin", json="what is shown")


def check(parser: Parser) -> None:
    parser.add_argument("words", nargs="+", metavar="NAME", help="a plug-in: NAME, KIND NAME, or the path of its file")
    _add(parser, set="PLUGIN.*")
    _add(parser, "plugin", json="the checks")


def verify(parser: Parser) -> None:
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="RESULT",
        help="ids of stored results, .jsonl files, or a leaderboards folder (default: all stored)",
    )
    _add(parser, "store", json="the outcome")


def compare(parser: Parser) -> None:
    add = parser.add_argument
    add("first", metavar="DEFENSE", help="the defense that the other's AUC is taken from")
    add("second", metavar="DEFENSE", help="the other defense")
    add("--preset", metavar="NAME", help="only results of this preset")
    add("--folder", type=Path, metavar="DIR", help="committed results (leaderboards) instead of the store's")
    _add(parser, "store", json="one comparison per line")


def leaderboard(parser: Parser) -> None:
    _add(parser, "folder")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="fail where the committed Markdown differs; write nothing")
    mode.add_argument(
        "--add", nargs="+", metavar="RESULT", help="add stored results (ids, or a run's id) and their scores"
    )
    mode.add_argument(
        "--rescore", action="store_true", help="compute figures of an older scoring anew from the committed scores"
    )
    _add(parser, "store", json="what was written")


def doctor(parser: Parser) -> None:
    _add(parser, "store", "plugin", json="the findings")


#: name: (module in ``bench.cli.commands``, what it does, its arguments)
COMMANDS: dict[str, tuple[str, str, Callable[[Parser], None]]] = {
    "run": ("run", "train under defenses, attack, and print what each adversary learned", run),
    "attack": ("attack", "attack a stored run or a transcript directory again", attack),
    "tune": ("tune", "try settings of defenses, judged on validation records", tune),
    "matrix": ("matrix", "run attacks against defenses where a cell is missing, and make the table", matrix),
    "list": ("listing", "list plug-ins, adversaries and presets", listing),
    "show": ("show", "show a plug-in's documentation and options, or a preset", show),
    "check": ("check", "check that a plug-in keeps its interface's rules", check),
    "verify": ("verify", "recompute the leakage of results from their stored scores", verify),
    "compare": ("compare", "compare two defenses on the same candidates, paired", compare),
    "leaderboard": ("leaderboard", "make the leaderboard's Markdown from leaderboards/results/*.jsonl", leaderboard),
    "doctor": ("doctor", "check this installation, its cache and its store", doctor),
}
