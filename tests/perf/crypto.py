"""What every channel costs: seconds, bytes and error of one round, in one table, measured in one go on one machine.

``python -m tests.perf.crypto [--channels a,b] [--values 460800,16777216] [--silos 3,30] [--repeat 3]``

A row is a defense's channel, driven through its endpoints over messages on disk; ``NAME@0.5`` sends a public half of
the coordinates. Each cell runs in a process of its own, which gives its peak memory (MiB: all parties in one process,
the interpreter and the updates included). With ``*`` three silos sealed, and the others' uploads are these once more:
so it is above a million values where an upload names nobody. Channels that do not exist are named and left out.

published     the published FedShield-LLM code path: a TenSEAL vector per tensor, summed, times 1/n, decrypted
seal          process seconds of one silo in a round, opening left out (median of ``--repeat``)
sum           of the server, which in channels that it opens includes opening
open          of one opener, where silos open
up, down      bytes per value of the adapter that one silo sends and receives in a round; setup: before the first round
party MiB     the most that one party's step needed beside its update: memory added at its peak, and its stored state
error         largest error of the opened sum against the summands as they were sent; with what quantising them added
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from bench.conformance.fixtures import transform_context
from bench.core.errors import UsageError
from bench.core.update import Layout, Update
from bench.defense.channel import Channel
from bench.defense.compose import fill
from bench.defense.parts import Transform
from bench.plugins.find import Plugins
from tests.perf.crypto_route import Router, public

CHANNELS = (
    "published,fedshield,ckks,ckks@0.5,bfv,bfv@0.5,selective-ckks,threshold-ckks,threshold-ckks@0.5,rlwe,rlwe@0.5,secagg,"
    "secagg@0.5,fedavg,plain"
)
#: rounds until a channel does what it does in every later one
SETTLES = {"selective-ckks": 2}
#: channels of which one silo's upload may stand for another's, and how many seal where it does
ALIKE, SEALERS = frozenset({"published", "fedshield", "ckks", "bfv", "fedavg", "plain"}), 3
BASELINE = "fedshield"
CLIP = 0.1
#: values of the round before the one that is measured
WARM = 20_000


@dataclass
class Cost:
    """One cell. Seconds of process time, bytes, absolute errors."""

    channel: str
    values: int
    silos: int
    seal: float
    sum: float
    open: float
    up: float
    down: float
    setup: float
    error: float
    quantised: float
    party: int = 0
    memory: int = 0


def layout_of(values: int) -> Layout:
    """SmolLM2-135M at rank 8, or Llama-2-7B at rank 32, on q and v; else one tensor."""
    shapes: tuple[tuple[int, ...], ...]
    if values == 460_800:
        shapes = ((8, 576), (576, 8), (8, 576), (192, 8)) * 30
    elif values == 16_777_216:
        shapes = ((32, 4096), (4096, 32)) * 64
    else:
        return Layout(("all",), ((values,),))
    return Layout(tuple(map(str, range(len(shapes)))), shapes)


def summand(size: int, silo: int) -> NDArray[np.float32]:
    """Normal, .02 a value: about what a few dozen steps make of LoRA weights."""
    return np.random.default_rng(silo).standard_normal(size, dtype=np.float32) * np.float32(0.02)


def sealers_of(name: str, values: int, silos: int) -> int:
    """How many silos seal an upload of their own."""
    return min(SEALERS, silos) if name in ALIKE and values > 1_000_000 else silos


def run(label: str, values: int, silos: int, sealers: int | None = None) -> Cost:
    """One cell. ``sealers``: ``sealers_of`` where not given."""
    name, _, share = label.partition("@")
    layout = layout_of(values)
    sealers = sealers or sealers_of(name, values, silos)
    if name == "published":
        return published(layout, silos, sealers)
    channel, encoders = parts_of(name)
    support = None
    if share:
        chosen = np.random.default_rng(5).choice(values, round(float(share) * values), replace=False)
        support = np.sort(chosen).astype(np.int64)
    rounds = SETTLES.get(name, 1)
    # where later rounds depend on what was opened, all silos must open
    router = Router(
        channel,
        public(layout, silos, rounds),
        support,
        1 if rounds == 1 else None,
        sealers if sealers < silos else None,
    )
    router.prepare()
    for number in range(rounds):
        made = [encoded(summand(values, 100 * number + i), layout, support, encoders, silos) for i in range(sealers)]
        updates = [made[i % sealers] for i in range(silos)]
        router.round(number, updates)
    return cost(label, router, updates, rounds - 1, sealers)


def parts_of(name: str) -> tuple[Channel, tuple[Transform, ...]]:
    plugin = Plugins(()).find("defense", name)
    plugin_class = plugin.config_class
    fixed = {"clip": CLIP} if "clip" in plugin_class.model_fields else {}
    parts = fill(plugin.build(plugin.validate(fixed)))
    return parts.channel, parts.encoders


def encoded(
    values: NDArray[np.float32],
    layout: Layout,
    support: NDArray[np.int64] | None,
    encoders: tuple[Transform, ...],
    silos: int,
) -> Update:
    update = Update(values if support is None else values[support], layout, support=support)
    for encoder in encoders:
        context = transform_context(values, 0, 1, silos=silos, layout=layout, secret_seed=None)
        update = encoder.apply(update, context)
    return update


def cost(label: str, router: Router, updates: list[Update], last: int, sealers: int) -> Cost:
    size, silos = router.known.layout.size, len(router.known.silos)
    ledger = router.rounds[-1]
    opening = sum(s for (stage, kind), s in ledger.seconds.items() if kind == "silo" and stage in ("open", "opened"))
    sealing = sum(s for (_, kind), s in ledger.seconds.items() if kind == "silo") - opening
    # what was sent, and what would have been without a grid
    sent, real = np.zeros(size), np.zeros(size)
    for i, update in enumerate(updates):
        sent += update.form.spread(update.values)
        values = summand(size, 100 * last + i % sealers).astype(np.float64)
        real += values if update.support is None else np.where(np.isin(np.arange(size), update.support), values, 0)
    found = next(iter(router.opened.values()))
    return Cost(
        channel=label + "*" * (sealers < silos),
        values=size,
        silos=silos,
        seal=sealing / sealers,
        sum=sum(s for (_, kind), s in ledger.seconds.items() if kind == "server"),
        open=opening / (router.openers or silos),
        up=bytes_of(ledger.sent) / silos / size,
        down=bytes_of(ledger.received) / silos / size,
        setup=(bytes_of(router.setup.sent) + bytes_of(router.setup.received)) / silos / size,
        error=float(np.abs(found - sent).max()),
        quantised=float(np.abs(sent - real).max()),
        party=router.party_bytes,
    )


def bytes_of(counts: dict[tuple[str, str], int]) -> int:
    """Of all silos together."""
    return sum(count for (_, kind), count in counts.items() if kind == "silo")


def published(layout: Layout, silos: int, sealers: int) -> Cost:
    """The published code: every party in one process with one context, messages serialised as Flower would send them.

    Its own sum takes the first ciphertexts in place and decrypts in the aggregator; here the aggregate is serialised
    once and opened by one party, as its paper has it.
    """
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
    context.generate_galois_keys()
    context.global_scale = 2**40
    clock = [time.process_time()]

    def lap() -> float:
        clock.append(time.process_time())
        return clock[-1] - clock[-2]

    uploads: list[dict[str, bytes]] = []
    updates = [dict(layout.tensors(summand(layout.size, i))) for i in range(sealers)]
    lap()
    for update in updates:
        uploads.append({k: ts.ckks_vector(context, v.flatten()).serialize() for k, v in update.items()})
    seal = lap() / sealers
    uploads = [uploads[i % sealers] for i in range(silos)]
    updates = [updates[i % sealers] for i in range(silos)]
    total = {k: ts.ckks_vector_from(context, raw) for k, raw in uploads[0].items()}
    for upload in uploads[1:]:
        for name, raw in upload.items():
            total[name] += ts.ckks_vector_from(context, raw)
    down = {k: (v * (1.0 / silos)).serialize() for k, v in total.items()}
    summed = lap()
    opened = {k: np.array(ts.ckks_vector_from(context, raw).decrypt()) for k, raw in down.items()}
    opening = lap()
    mean = [np.mean([u[k] for u in updates], axis=0, dtype=np.float64).ravel() for k in layout.names]
    error = max(float(np.abs(opened[k] - m).max()) for k, m in zip(layout.names, mean, strict=True))
    keys = len(context.serialize(save_secret_key=True))
    up, back = sum(map(len, uploads[0].values())), sum(map(len, down.values()))
    size = layout.size
    name = "published" + "*" * (sealers < silos)
    return Cost(name, size, silos, seal, summed, opening, up / size, back / size, keys / size, error * silos, 0.0)


def child(label: str, values: int, silos: int) -> None:
    run(label, WARM, 3)  # modules and tables that the first round of a process loads are no cost of a round
    found = run(label, values, silos)
    found.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(asdict(found)))


def measure(label: str, values: int, silos: int, repeat: int) -> Cost:
    """The median of several processes for the seconds, the last one's for all else. Raises UsageError."""
    found: list[Cost] = []
    for _ in range(repeat):
        command = [sys.executable, "-m", "tests.perf.crypto", "--child", label, str(values), str(silos)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UsageError(f"{label}: {(done.stderr.strip() or done.stdout.strip() or 'failed').splitlines()[-1]}")
        found.append(Cost(**json.loads(done.stdout.splitlines()[-1])))
    for name in ("seal", "sum", "open"):
        setattr(found[-1], name, statistics.median(getattr(cell, name) for cell in found))
    return found[-1]


HEAD = (
    "channel",
    "seal s",
    "sum s",
    "open s",
    "up B/v",
    "down B/v",
    "setup B/v",
    "error",
    "quantising",
    "MiB",
    "party MiB",
)


def table(labels: list[str], values: int, silos: int, repeat: int) -> Iterator[str]:
    """The lines of one size and number of silos, as they are measured, with ratios to ``BASELINE``."""
    yield f"{values:,} values, {silos} silos"
    yield line(HEAD, "times less up", "times faster sealing")
    base: Cost | None = None
    missing = []
    # the baseline first, so that every line can name its ratio
    for label in sorted(labels, key=lambda label: label != BASELINE):
        try:
            found = measure(label, values, silos, repeat)
        except UsageError as error:
            missing.append(str(error))
            continue
        base = found if label == BASELINE else base
        yield row(found, base)
    yield from missing
    yield ""


def row(found: Cost, base: Cost | None) -> str:
    figures = [f"{x:.4g}" for x in (found.seal, found.sum, found.open, found.up, found.down, found.setup)]
    errors = [
        f"{found.error:.1e}",
        f"{found.quantised:.1e}",
        f"{found.memory / 2**20:.0f}",
        f"{found.party / 2**20:.0f}",
    ]
    ratios = [] if base is None else [f"{base.up / found.up:.1f}", f"{base.seal / found.seal:.1f}"]
    return line((found.channel, *figures, *errors), *ratios)


def line(cells: tuple[str, ...], *more: str) -> str:
    return f"{cells[0]:<16}" + "".join(f"{cell:>11}" for cell in cells[1:]) + "".join(f"{cell:>22}" for cell in more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", default=CHANNELS)
    parser.add_argument("--values", default="460800,16777216")
    parser.add_argument("--silos", default="3,30")
    parser.add_argument("--repeat", type=int, default=3, help="processes a cell (one only above a million values)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]), int(options.child[2]))
        return
    for values in map(int, options.values.split(",")):
        for silos in map(int, options.silos.split(",")):
            repeat = options.repeat if values <= 1_000_000 else 1
            for text in table(options.channels.split(","), values, silos, repeat):
                print(text, flush=True)


if __name__ == "__main__":
    main()
