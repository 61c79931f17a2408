"""Arrays as .npy files: written like any file, and read from anybody's as far as the header can be believed."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bench.core.files import opened

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


def save(path: Path, values: NDArray[Any], *, private: bool = False) -> None:
    """Write an array, in C order, into a folder that exists. Raises UsageError as ``write_bytes`` does."""
    with opened(path, private=private) as file:
        # into a real file numpy writes by itself, and its error of a full disk has no number
        target: Any = SimpleNamespace(write=file.write)
        np.save(target, np.asarray(values, order="C"), allow_pickle=False)
