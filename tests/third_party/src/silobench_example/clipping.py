"""A module of the package that one of its plug-ins uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clipped(values: NDArray[np.float32], bound: float) -> NDArray[np.float32]:
    """``values``, shrunk where their L2 norm is above ``bound``."""
    norm = float(np.linalg.norm(values.astype(np.float64)))
    return values if norm <= bound else (values * (bound / norm)).astype(np.float32)
