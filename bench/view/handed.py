"""Records that travel in clear, as one coalition reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.parties import is_silo
from bench.core.records import decode_records, is_records
from bench.defense.channel import Message


def records_in_clear(messages: Iterable[Message], own: frozenset[str]) -> Iterator[tuple[int, str, NDArray[np.int32]]]:
    """(round, silo, token ids (n, length) with -1 after a record's end) of every message in which a silo that is none
    of ``own`` sends records, whatever its stage and whatever the channel says."""
    for message in messages:
        other = is_silo(message.sender) and message.sender not in own
        if other and message.lengths and is_records(message.frame(0)):
            try:
                tokens = decode_records(message.frames())
            except SiloBenchError:
                continue  # no records, whatever it begins with
            inside = np.arange(tokens.ids.shape[1]) < tokens.lengths[:, None]
            yield message.round, message.sender, np.where(inside, tokens.ids, -1).astype(np.int32)
