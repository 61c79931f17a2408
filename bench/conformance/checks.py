"""One check, its outcome, and how checks are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any


class Failed(Exception):
    """Raised by a check that failed; the message says in one sentence what was found."""


@dataclass(frozen=True)
class Check:
    """``title``: what must hold, in a few words. ``run`` returns a sentence on what was seen, or raises Failed."""

    title: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    title: str
    passed: bool
    says: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.title}: {self.says}"


def expect(condition: object, message: str) -> None:
    """Raise Failed with ``message`` unless ``condition``."""
    if not condition:
        raise Failed(message)


def run_checks(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run checks one after the other. An exception that is no Failed fails the check it came from, and only that."""
    for check in checks:
        try:
            says = check.run()
        except Failed as error:
            yield Finding(check.title, False, str(error))
        except Exception as error:
            yield Finding(check.title, False, f"raised {type(error).__name__}: {error}")
        else:
            yield Finding(check.title, True, says)
