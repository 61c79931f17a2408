"""What a .npy file from anybody promises, read from its header before anything is allocated for it."""

from __future__ import annotations

import math
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def promised(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and number of bytes of the values that follow. Raises ValueError for whatever is no plain array."""
    try:
        shape, _, dtype = _HEADERS[npy.read_magic(stream)](stream)
    except Exception as error:  # a header is a Python literal, and numpy meets a hostile one with errors of many types
        raise ValueError(f"its header can't be read: {type(error).__name__}") from None
    if dtype.hasobject or any(size < 0 for size in shape):
        raise ValueError("it holds objects, or a negative number of values")
    return shape, dtype, math.prod(shape) * dtype.itemsize
