"""Shared by the tests of views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.defense.channel import Channel
from tests.view.synthetic import Synthetic


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., Synthetic]:
    """Run a small federation over a channel; see ``Synthetic``."""
    count = 0

    def make(channel: Channel, **options: Any) -> Synthetic:
        nonlocal count
        count += 1
        return Synthetic(tmp_path / f"run-{count}", channel, **options)

    return make
