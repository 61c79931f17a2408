"""Prints what it takes to get the CKKS key of published FedShield from averages, and at which precision it is safe.

    python -m tests.perf.key_recovery                  # one federation at SmolLM2's size: seconds and error
    python -m tests.perf.key_recovery --precisions     # the tables of docs/attacks.md

The federation is real (keys, ciphertexts, sums, releases) and its updates are drawn: LoRA factors of rank 8 on q and v
of SmolLM2-135M, 460,800 values in 120 tensors, three silos. Seconds count from where the server holds the round's
messages: reading them from disk, parsing, the key, and then one silo's whole upload.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attacks.ckks import published
from attacks.ckks.frames import uploads
from attacks.ckks.published import PRECISIONS, Precision, Published, Round
from attacks.ckks.recovery import NotFound, recover
from attacks.ckks.slots import Float
from bench.core.update import Layout
from bench.defense.channel import Knowledge
from bench.defense.compose import Defense
from bench.view.knowledge import Seen
from defenses import ckks, fedshield
from tests.attacks.sealed_federation import Sealed, federate

LAYERS, HIDDEN, VALUES, RANK = 30, 576, 192, 8
#: of what averages are rounded to; and of the deviations of what training adds to every value
GRIDS = (1e-12, 1e-11, 1.5e-11, 2e-11, 3e-11, 1e-10, 1e-9)
STEPS = (3e-5, 1e-4, 3e-4, 5e-4, 1e-3, 2e-2)


def layout(layers: int) -> Layout:
    shapes = {"q": HIDDEN, "v": VALUES}
    tensors = [
        (f"{layer}.{name}.lora_{factor}", (RANK, HIDDEN) if factor == "A" else (out, RANK))
        for layer in range(layers)
        for name, out in shapes.items()
        for factor in "AB"
    ]
    return Layout(tuple(name for name, _ in tensors), tuple(shape for _, shape in tensors))


def shield(pruned: float = 0.0) -> Defense:
    return fedshield.build(fedshield.Config(start=0, sparsity_start=pruned, sparsity_end=pruned))


def server(run: Sealed) -> Knowledge:
    return Seen(run.transcript, frozenset({"server"})).knowledge


def speed() -> None:
    """Seconds and error at full size."""
    with tempfile.TemporaryDirectory() as folder:
        run = federate(Path(folder) / "run", shield(), layout=layout(LAYERS), step=2e-2)
        begin = time.perf_counter()
        knowledge = server(run)
        found = recover(knowledge)
        keyed = time.perf_counter()
        message = next(uploads(knowledge))
        values = found.lock.open_upload(message, found.key)
        end = time.perf_counter()
        error = float(np.abs(values - run.upload(message.round, message.sender)).max())
    size = run.transcript.public.layout.size
    print(f"published FedShield, {size:,} values in {4 * LAYERS} tensors, one round released at float64")
    print(f"key: {keyed - begin:.2f} s; one silo's upload: {end - keyed:.2f} s; largest error {error:.1e}")
    print(f"together {end - begin:.2f} s (to be under 5), error to be under 1e-6")


def outcome(defense: Defense, layers: int, **options: Any) -> str:
    """What the attack comes to on one federation: the deviation of the second best sum, and whether it gave the key."""
    with tempfile.TemporaryDirectory() as folder:
        run = federate(Path(folder) / "run", defense, layout=layout(layers), **options)
        begin = time.perf_counter()
        try:
            found = recover(server(run))
        except NotFound as error:
            return f"{error.outlook[options['precision']]:.2g}, no key" if error.outlook else "no key"
        seconds = time.perf_counter() - begin
    return f"{found.outlook[found.precision]:.2g}, **key** ({seconds:.1f} s)"


def table(title: str, rows: Sequence[tuple[str, Defense, dict[str, Any]]], layers: int) -> None:
    print(f"\n| {title} | {' | '.join(PRECISIONS)} |\n|---|{'---|' * len(PRECISIONS)}")
    for label, defense, options in rows:
        cells = [outcome(defense, layers, precision=precision, **options) for precision in PRECISIONS]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


@dataclass(frozen=True)
class Gridded(Published):
    """Values rounded to multiples of ``step``, which an attacker sees."""

    step: float = 0.0

    def error(self, precision: Precision | None = None) -> Float:
        return np.full(len(self.values), self.step / 12**0.5)


def rounded(layers: int) -> None:
    """One federation's averages, rounded to multiples of several steps before the attack sees them."""
    print("\n| averages rounded to multiples of | known to (units) | |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        run = federate(Path(folder) / "run", shield(), layout=layout(layers), step=2e-2)
        knowledge = server(run)
        whole = published.rounds(knowledge)
        for step in GRIDS:
            after = {r: Gridded(np.rint(w.after.values / step) * step, "float64", step) for r, w in whole.items()}
            coarse = {r: Round(value, whole[r].before) for r, value in after.items()}
            with unittest.mock.patch("attacks.ckks.recovery.rounds", return_value=coarse):
                try:
                    recover(knowledge)
                    found = "**key**"
                except NotFound:
                    found = "no key"
            left = 2 * 2.0**40 * step / 12**0.5 / 8192**0.5
            print(f"| {step:g} | {left:.2g} | {found} |", flush=True)


def precisions(layers: int) -> None:
    """The tables."""
    rounded(layers)
    table("`fedshield`, not pruned", [(f"steps of {s:g}", shield(), {"step": s}) for s in STEPS], layers)
    pruned = [(f"{p:.0%} pruned, steps of 5e-4", shield(p), {"step": 5e-4}) for p in (0.2, 0.5)]
    pruned += [("100% pruned", shield(1.0), {"step": 5e-4})]
    table("`fedshield`, pruned", pruned, layers)
    flat = ckks.build(ckks.Config())
    table("`ckks`", [(f"steps of {s:g}", flat, {"step": s}) for s in STEPS[1:]], layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", action="store_true", help="the tables of docs/attacks.md")
    parser.add_argument("--layers", type=int, default=2, help="layers of the tables' federations (default 2)")
    asked = parser.parse_args()
    if asked.precisions:
        precisions(asked.layers)
    else:
        speed()


if __name__ == "__main__":
    sys.exit(main())
