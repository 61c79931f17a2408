"""The table of ``python -m tests.perf.crypto``: each channel of this package through its real endpoints, small."""

from __future__ import annotations

import pytest

from tests.perf.crypto import BASELINE, row, run

VALUES = 5000


@pytest.mark.parametrize(
    ("label", "error", "least", "most"),
    [
        ("published", 1e-6, 81, 200),
        ("fedshield", 1e-6, 81, 200),
        # one ciphertext holds 2048 values or 20480: what is not filled is paid for
        ("ckks", 1e-4, 16, 20),
        ("ckks@0.5", 1e-4, 8, 14),
        ("bfv", 1e-12, 12, 13),
        ("selective-ckks", 1e-4, 7, 12),
        ("fedavg", 0, 4, 4.1),
        ("plain", 0, 3, 4),
    ],
)
def test_a_cell_is_right_and_its_bytes_are_counted(label, error, least, most) -> None:
    cost = run(label, VALUES, 2)
    assert cost.error <= error
    assert least <= cost.up <= most
    assert (cost.down > 0) == (label not in ("fedavg", "plain"))
    assert (cost.setup > 0) == (label not in ("fedavg", "plain"))
    assert cost.seal > 0
    # half a step of 0.1 / 127 on each of two silos' values would be rounding to nearest; rounding here is stochastic
    assert cost.quantised == 0 or (label == "bfv" and cost.quantised < 2 * 0.1 / 127)


@pytest.mark.parametrize("label", ["published", "fedshield", "ckks", "bfv", "fedavg", "plain"])
def test_uploads_that_stand_for_others_are_summed_and_marked(label) -> None:
    every, some = run(label, VALUES, 5), run(label, VALUES, 5, sealers=2)
    assert some.channel == f"{label}*"
    assert some.error <= max(1e-3 if label == "ckks" else 1e-5, 2 * every.error)
    assert some.up == pytest.approx(every.up, rel=0.02)


def test_ratios_are_to_the_baseline() -> None:
    cost = run("plain", VALUES, 2)
    assert row(cost, None).split()[0] == "plain"
    assert row(cost, cost).split()[-2:] == ["1.0", "1.0"]
    assert BASELINE == "fedshield"
