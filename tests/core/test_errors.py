"""Errors: the exit code of each, where somebody else's code broke, and which name was meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.core.errors import CannotOpen, Refused, SiloBenchError, UsageError, unknown_name, where_it_broke


def test_a_request_that_cannot_be_carried_out_ends_with_2_and_all_else_with_1() -> None:
    assert (SiloBenchError.exit_code, Refused.exit_code, UsageError.exit_code) == (1, 1, 2)
    assert issubclass(UsageError, SiloBenchError)
    assert issubclass(Refused, SiloBenchError)


def test_what_opens_nothing_is_no_error_of_a_command() -> None:
    """An answer of a channel: who catches a command's errors must not take it for one of them."""
    assert not issubclass(CannotOpen, SiloBenchError)


def breaks() -> None:
    raise ValueError("no such luck")


def calls() -> None:
    breaks()


def caught(call: Callable[[], Any]) -> ValueError:
    try:
        call()
    except ValueError as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("call", [breaks, calls])
def test_somebody_else_s_exception_is_named_with_the_innermost_place(call: Callable[[], None]) -> None:
    line = breaks.__code__.co_firstlineno + 1
    assert where_it_broke(caught(call)) == f"ValueError at breaks line {line}: no such luck"


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert where_it_broke(KeyError("k")) == "KeyError: 'k'"


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        ("gaurd", ["prune", "guard"], "There is no defense 'gaurd'. Did you mean 'guard'? Known: guard, prune."),
        ("zzz", iter(["prune", "guard"]), "There is no defense 'zzz'. Known: guard, prune."),
        ("guard", [], "There is no defense 'guard'. Known: none."),
        # half of the letters in common is near enough, and less is not
        ("ab", ["ax"], "There is no defense 'ab'. Did you mean 'ax'? Known: ax."),
        ("abcde", ["abxyz"], "There is no defense 'abcde'. Known: abxyz."),
        # of several near ones the nearest, once
        ("prunes", ["prune", "pruned", "prunesx"], "Did you mean 'prunesx'? Known: prune, pruned, prunesx."),
    ],
)
def test_an_unknown_name_is_told_the_nearest_one_and_all(name: str, known: list[str], says: str) -> None:
    error = unknown_name("defense", name, known)
    assert isinstance(error, UsageError)
    assert str(error).endswith(says)
