"""Rounds in which only a public support travels: opened like any other, by the channel's words or against them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.defense.channel import Channel
from bench.defense.defaults.plain import PlainChannel
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic
from tests.view.test_broken_channels import assert_opened, name

Federate = Callable[..., Synthetic]
SIZE = 1000
HALF = np.arange(0, SIZE, 2)
FEW = np.sort(np.random.default_rng(5).permutation(SIZE)[:200])
MIXED = {1: HALF, 2: FEW, 3: HALF}


@pytest.mark.parametrize(
    "channel",
    [
        PlainChannel(),
        channels.ForgetsToEncrypt(),
        channels.ForgetsAndDenies(),
        channels.ShipsTheKey(),
    ],
    ids=name,
)
def test_what_was_not_really_sealed_is_opened_dense_or_not(
    federate: Federate, tmp_path: Path, channel: Channel
) -> None:
    run = federate(channel, size=SIZE, rounds=4, supports=MIXED, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert_opened(view, run)
    for reading in view.uploads(round=2):
        assert set(np.flatnonzero(reading.values)) <= set(FEW)
    np.testing.assert_allclose(view.adapters()[-1].values, run.global_adapter, atol=1e-6)


def test_the_same_channel_done_right_gives_the_server_nothing(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Denies(), size=SIZE, rounds=4, supports=MIXED, release="none")
    assert run.view(tmp_path / "view", "server", "server").readings == ()


def test_a_reused_keystream_shows_differences_on_the_support(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.ReusesAdditivePad(), size=SIZE, supports={0: HALF, 1: HALF}, release="none")
    view = run.view(tmp_path / "both", "server+silo", "server", "silo-0")
    assert_opened(view, run)
    pair = run.view(tmp_path / "server", "server", "server")
    found = {(r.round, r.silos) for r in pair.readings if r.kind == "difference"}
    assert found >= {(r, frozenset({"silo-0", s})) for r in (0, 1) for s in ("silo-1", "silo-2")}


def test_two_silos_learn_each_other_s_values_from_the_sum(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), size=SIZE, silos=2, supports={1: FEW}, release="none")
    view = run.view(tmp_path / "view", "silo", "silo-0")
    assert {(r.round, *r.silos) for r in view.uploads()} == {(0, "silo-1"), (1, "silo-1")}
    for reading in view.uploads():
        np.testing.assert_allclose(reading.values, run.summand(reading.round, "silo-1"), atol=1e-6)
