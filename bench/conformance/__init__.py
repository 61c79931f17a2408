"""The conformance kit: what every plug-in must do, checked on the plug-in itself (``bench check``).

Every check answers with one sentence. A check that does not apply to a plug-in (the trainer of a defense without one)
is not run and not reported. Plug-ins are run as in a real federation, on the packaged model ``tiny`` or on random
updates; nothing is fetched but a task's own records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from bench.conformance.checks import Check, Failed, Finding, expect, run_checks
from bench.plugins.find import Plugin
from bench.spec.config import Config

if TYPE_CHECKING:
    from bench.conformance.playground import Playground

#: runs by what they were trained for
Grounds = MutableMapping[str, "Playground"]


def check(plugin: Plugin, values: Mapping[str, Any] | None = None, grounds: Grounds | None = None) -> Iterator[Finding]:
    """Findings on one plug-in under the options ``values``, as they are made. ``grounds``: runs to try attacks on, kept
    for the next plug-in; None: trained for this one.

    Raises UsageError where the plug-in can't be imported or ``values`` are no options of it.
    """
    from bench.conformance.module import checks as every_module

    config = plugin.validate(values or {})
    yield from run_checks(every_module(plugin))
    yield from run_checks(_of_kind(plugin, config, {} if grounds is None else grounds))


def _of_kind(plugin: Plugin, config: Config, grounds: Grounds) -> Iterable[Check]:
    if plugin.kind == "defense":
        from bench.conformance.defense import checks as of_defense

        return of_defense(plugin, config)
    if plugin.kind == "task":
        from bench.conformance.task import checks as of_task

        return of_task(plugin, config)
    from bench.conformance.attack import checks as of_attack

    return of_attack(plugin, config, grounds)


__all__ = ["Check", "Failed", "Finding", "Grounds", "check", "expect", "run_checks"]
