"""The meter counts what is done inside a phase and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from bench.core.meter import Meter


def test_a_stream_counts_the_producer_s_time_only() -> None:
    def produce() -> Iterator[int]:
        for i in range(3):
            time.sleep(0.02)
            yield i

    meter = Meter()
    for _ in meter.stream("made", produce()):
        time.sleep(0.1)
    phase = meter.phases["made"]
    # three sleeps of 20 ms were inside, three of 100 ms outside
    assert 0.06 <= phase.wall < 0.3
    assert phase.calls == 4


def test_peak_memory_sees_what_a_phase_allocates() -> None:
    meter = Meter()
    with meter.measure("small"):
        pass
    with meter.measure("large"):
        block = np.ones(40_000_000)
        del block
    assert meter.phases["large"].peak - meter.phases["small"].peak > 250e6


def test_what_was_measured_before_an_interruption_is_added() -> None:
    meter = Meter()
    meter.add({"train": {"wall_s": 2.0, "process_s": 3.0, "calls": 4, "peak_bytes": 5}})
    with meter.measure("train"):
        pass
    phase = meter.phases["train"]
    assert phase.wall >= 2.0
    assert phase.calls == 5
    assert phase.peak > 5
