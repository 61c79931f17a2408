"""The command ``bench``: parses the words, calls one module of ``bench.cli.commands``, turns errors into exit codes.

Exit codes: 0 done; 1 something ran and failed, or a row has status ``error``; 2 the request can't be carried out as
asked; 130 interrupted; 141 the reader of the output went away. Only what a command needs is imported.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from bench import __version__
from bench.cli.arguments import COMMANDS
from bench.core.errors import SiloBenchError, UsageError, unknown_name
from bench.core.shown import shown

INTERRUPTED = 130
BROKEN_PIPE = 141
#: set to 1 to see tracebacks
TRACEBACK = "SILOBENCH_TRACEBACK"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors, so that one place prints them."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see '{self.prog} --help'.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Never raises but SystemExit (from ``--help``); returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout once more at exit; let that go nowhere instead of failing
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("bench: interrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK) == "1":
            raise
        message, code = _explain(error)
        print(f"bench: {shown(message)}", file=sys.stderr)
        return code


def _dispatch(words: list[str]) -> int:
    parser = build_parser()
    if not words:
        parser.print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise unknown_name("command", words[0], COMMANDS)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        raise _unknown_argument(args.command, unknown[0])
    module = import_module(f"bench.cli.commands.{COMMANDS[args.command][0]}")
    return int(module.main(args))


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, SiloBenchError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"the disk is full{where}: free space, or choose another place with --store; the same command resumes",
            2,
        )
    if isinstance(error, MemoryError):
        return "memory ran out: take a smaller --preset, fewer silos or a shorter pool.max_tokens", 1
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    return f"stopped by an unexpected {type(error).__name__}: {text} (set {TRACEBACK}=1 to see where)", 1


def _unknown_argument(command: str, word: str) -> UsageError:
    parser = _Parser(prog=f"bench {command}")
    COMMANDS[command][2](parser)
    known = [option for action in parser._actions for option in action.option_strings]
    option = word.partition("=")[0]
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.6) or _as_setting(option, known)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"'bench {command}' takes no '{word}'.{hint} See 'bench {command} --help'.")


def _as_setting(option: str, known: Sequence[str]) -> list[str]:
    """How ``--set`` sets what ``option`` names (``--rounds``), where the command takes it."""
    if "--set" not in known:
        return []
    from bench.cli.presets import SECTIONS
    from bench.spec.explain import keys, nearest_key

    leaf = option.lstrip("-").replace("-", "_")
    every = [key for name, model in SECTIONS.items() for key in keys(model, name)]
    return [f"--set {key}=" for key in nearest_key(leaf, every) if key.rpartition(".")[2] == leaf]


def build_parser() -> argparse.ArgumentParser:
    """The whole parser, for ``bench --help``."""
    parser = _Parser(
        prog="bench",
        allow_abbrev=False,
        description="SiloBench measures what each party of a federated fine-tuning can learn about the others' "
        "records, what the model loses, and what it costs.",
        epilog="For example: bench run --defense fedshield --attack mia",
    )
    parser.add_argument("--version", action="version", version=f"silobench {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, (_, text, arguments) in COMMANDS.items():
        arguments(commands.add_parser(name, help=text, description=text, allow_abbrev=False))
    return parser
