"""Which versions a row's numbers are of: those of the plug-ins that it names, and the harness's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from bench.core import versions
from bench.core.errors import UsageError
from bench.spec.result import Result
from bench.spec.run import Row

if TYPE_CHECKING:
    from bench.plugins.find import Kind, Plugins


def named(row: Row) -> tuple[tuple[Kind, str], ...]:
    """Kind and name of the plug-ins of a row."""
    defenses: list[tuple[Kind, str]] = [("defense", part.name) for part in row.run.defense]
    return (("task", row.run.task.name), *defenses, ("attack", row.attack.name))


def taking_part(task: str, defense: str, attack: str) -> tuple[tuple[Kind, str], ...]:
    """Kind and name of the plug-ins behind a committed result, by its words. A name ends at ``:`` (``jsonl:PATH``)."""
    defenses: list[tuple[Kind, str]] = [("defense", name) for name in defense.split("+")]
    return (("task", task.partition(":")[0]), *defenses, ("attack", attack))


class Versions:
    """Of the plug-ins as they are here; their files are read, and nothing is run."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins

    def of(self, row: Row) -> dict[str, int]:
        """By "attack/mia", "SCORING" and the like. Raises UsageError where a plug-in is not here."""
        return self._of(named(row))

    def current(self, result: Result) -> bool:
        """Whether a result's numbers mean what they would today. One from before there were versions does not, nor one
        of a plug-in that is not here."""
        return self.are_current(result.versions, taking_part(result.task, result.defense, result.attack))

    def are_current(self, known: Mapping[str, int], parts: Iterable[tuple[Kind, str]]) -> bool:
        """``current`` of anything with versions."""
        try:
            return bool(known) and dict(known) == self._of(parts)
        except UsageError:
            return False

    def _of(self, parts: Iterable[tuple[Kind, str]]) -> dict[str, int]:
        found = {f"{kind}/{name}": self.plugins.find(kind, name).version for kind, name in parts}
        return found | versions.harness()

    def warn(self, rows: Iterable[Row], say: Callable[[str], None]) -> None:
        """One line for each plug-in that says no version, and for each that hides one of an installed package."""
        for kind, name in dict.fromkeys(part for row in rows for part in named(row)):
            plugin = self.plugins.find(kind, name)
            if (other := self.plugins.hidden(kind, name)) is not None:
                say(
                    f"{kind} '{name}' is SiloBench's own; the package '{other.package}' brings one of that name too "
                    f"({other.where}), which is not used: give it another name."
                )
            if plugin.outline.version is None:
                say(
                    f"{kind} '{name}' ({plugin.where}) says no version, which counts as 1: assign 'version = 1' beside "
                    "'api', and raise it whenever its numbers change."
                )
