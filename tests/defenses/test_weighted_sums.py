"""Silos of 160, 80, 40 and 20 records: what every channel sums is their weighted mean, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.plugins.find import Plugins
from bench.spec.run import Dropout, FederationSpec, LocalSpec
from tests.federation.fakes import DrawnTrainer, drawn, make_setup, run

COUNTS = (160, 80, 40, 20)
#: learning rate times one step: what AdamW may move a value by, and what bounds the quantisers
REACH = 5.0
#: the largest error of a value of the mean. On a grid of 12 bits, whose step is 160 clips over its levels, each of four
#: silos is off by less than a step
STEP = REACH * 160 / 2047
GRID = 4 * STEP / 300
CHANNELS = {
    "fedavg": 1e-6,
    "ckks": 1e-4,
    "threshold-ckks": 1e-4,
    "selective-ckks": 1e-4,
    "bfv": GRID,
    "rlwe": GRID,
    "secagg": GRID,
}


def federate(root: Path, name: str, dropouts: tuple[Dropout, ...] = ()) -> np.ndarray:
    """What one round changed."""
    plugin = Plugins().find("defense", name)
    values = {"bits": 12} if "bits" in plugin.config_class.model_fields else {}
    local = LocalSpec(steps=1, lr=REACH)
    spec = FederationSpec(silos=4, rounds=1, local=local, dropouts=dropouts)
    defense = replace(plugin.build(plugin.validate(values)), trainer=DrawnTrainer())
    setup = make_setup(spec, defense, counts=COUNTS)
    assert list(setup.public.weights.values()) == list(COUNTS)
    transcript = run(root, setup)
    return np.asarray(transcript.truth(0, "adapter"), np.float64) - transcript.initial_adapter()


def mean(*silos: int) -> np.ndarray:
    total = sum(COUNTS[i] * drawn(0, i, 0).astype(np.float64) for i in silos)
    return np.asarray(total / sum(COUNTS[i] for i in silos))


@pytest.mark.parametrize("name", CHANNELS)
def test_a_sum_weighs_silos_by_their_size(tmp_path: Path, name: str) -> None:
    moved = federate(tmp_path, name)
    np.testing.assert_allclose(moved, mean(0, 1, 2, 3), atol=CHANNELS[name] + 1e-6)
    equal = np.mean([drawn(0, i, 0) for i in range(4)], axis=0)
    assert np.abs(moved - equal).max() > 0.5


@pytest.mark.parametrize("name", ["fedavg", "secagg", "rlwe"])
def test_without_the_largest_the_others_weights_are_the_whole(tmp_path: Path, name: str) -> None:
    moved = federate(tmp_path, name, (Dropout(round=0, silo=0, stage="upload" if name == "fedavg" else "train"),))
    np.testing.assert_allclose(moved, mean(1, 2, 3), atol=3 * STEP / 140 if name != "fedavg" else 1e-6)
