"""The packaged model, loaded once a module, for tests that reconstruct from its updates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import bench
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec

TINY = Path(bench.__file__).parent / "models" / "tiny"
RANK = 16


@pytest.fixture(scope="module")
def loaded() -> LoraModel:
    return LoraModel.load(TINY, ModelSpec(name="tiny"), LoraSpec(rank=RANK, alpha=16.0), device="cpu")


@pytest.fixture
def model(loaded: LoraModel) -> Iterator[LoraModel]:
    yield loaded
    loaded.set_adapter(None)


@pytest.fixture(scope="module")
def initial(loaded: LoraModel) -> NDArray[np.float32]:
    return loaded.initial_adapter(np.random.default_rng(5))
