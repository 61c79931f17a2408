"""Views are built from disk: no array is held per silo."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.defense.defaults.plain import PlainChannel
from bench.view.openers.base import Traits
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]


def _peak(run: Synthetic, folder: Path, *coalition: str) -> int:
    tracemalloc.start()
    try:
        run.view(folder, "server", *coalition, traits=Traits())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coalition", [("server",), ("silo-0",)])
def test_memory_does_not_grow_with_the_silos(federate: Federate, tmp_path: Path, coalition: tuple[str, ...]) -> None:
    few = federate(PlainChannel(), silos=3, size=200_000, rounds=1)
    many = federate(PlainChannel(), silos=30, size=200_000, rounds=1)
    _peak(few, tmp_path / "warm", *coalition)
    assert _peak(many, tmp_path / "many", *coalition) <= 1.2 * _peak(few, tmp_path / "few", *coalition)
