"""Bytes of a run, counted from its messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from bench.core.parties import PUBLIC, is_silo
from bench.transcript.transcript import StoredMessage


def traffic(messages: Iterable[StoredMessage], silos: int, rounds: int) -> dict[str, Any]:
    """Bytes of all stages, from the messages: up = sent by silos, down = received by silos, once per receiver.

    ``per_silo_round`` divides by silos x rounds (by 1 where there are none) and leaves set-up out; ``setup`` holds it
    whole.
    """
    up: dict[str, int] = defaultdict(int)
    down: dict[str, int] = defaultdict(int)
    setup = released = 0
    for message in messages:
        receivers = sum(1 for r in message.receivers if is_silo(r))
        if PUBLIC in message.receivers:
            released += message.size
        if message.round < 0:
            setup += message.size * len(message.receivers)
            continue
        if is_silo(message.sender):
            up[message.stage] += message.size
        if receivers:
            down[message.stage] += message.size * receivers
    share = max(silos * rounds, 1)
    return {
        "up_bytes": dict(sorted(up.items())),
        "down_bytes": dict(sorted(down.items())),
        "setup_bytes": setup,
        "released_bytes": released,
        "up_per_silo_round": sum(up.values()) / share,
        "down_per_silo_round": sum(down.values()) / share,
    }
