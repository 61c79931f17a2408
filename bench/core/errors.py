"""Errors that end a command, each with the exit code it maps to."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class SiloBenchError(Exception):
    """Something ran and failed; the message is one clear sentence for the user (exit code 1)."""

    exit_code = 1


class UsageError(SiloBenchError):
    """The request cannot be carried out as asked: a wrong name, value, file or combination (exit code 2)."""

    exit_code = 2


class Refused(SiloBenchError):
    """The protocol's own code, at some party, did not take what a deviating coalition sent it or made up."""


class CannotOpen(Exception):
    """Raised by a channel's ``read`` when the knowledge it was handed opens nothing."""


@contextmanager
def raising(
    kind: type[Exception], what: str = "", of: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Errors of the types ``of`` in its body leave it as a ``kind``, with ``what`` before their text."""
    try:
        yield
    except of as error:
        raise kind(f"{what}: {error}" if what else str(error)) from None


def where_it_broke(error: BaseException) -> str:
    """An exception of somebody else's code in one line: its type, the function and line that raised it, its text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].name} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {error}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A UsageError for a name that does not exist, with the nearest existing name and the full list."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listing = ", ".join(options) if options else "none"
    return UsageError(f"There is no {kind} '{name}'.{hint} Known: {listing}.")
