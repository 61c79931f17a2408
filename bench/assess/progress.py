"""Progress on stderr: a rich bar with the time left where stderr is a terminal, nothing where it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.core.shown import shown


class Progress:
    """``quiet``: nothing at all."""

    def __init__(self, quiet: bool = False) -> None:
        self.silent = quiet
        self.quiet = quiet or not sys.stderr.isatty()
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """One line that a log must hold too: a warning, or for whom the command waits."""
        if not self.silent:
            print(f"bench: {shown(text)}", file=sys.stderr, flush=True)

    def once(self, text: str) -> None:
        """``say``, unless it was said before."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def note(self, text: str) -> None:
        """One line that says what begins."""
        if not self.quiet:
            print(shown(text), file=sys.stderr)

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[str], None]]:
        """A bar of ``total`` steps; call what it yields, with a few words, after each."""
        if self.quiet:
            yield lambda text: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            handle = bar.add_task(name, total=total)
            yield lambda text: bar.update(handle, advance=1, description=shown(f"{name}: {text}"))
