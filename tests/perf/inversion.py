"""How far the row-space attack reads: by batch, rank, round, optimiser and pruning; a table and a figure.

``python -m tests.perf.inversion [--batches 1,2,4,8,16] [--ranks 4,16,64] [--prune 0,0.5,0.9] [--optimizers sgd,adamw]
[--rounds 0,2] [--length 16] [--attack inversion] [--preset smoke] [--store DIR] [--json FILE] [--svg FILE]``

Every cell is an ordinary run of the harness: 6 silos, one local step a round on one batch of records of ``--length``
tokens, three rounds, attacked by the server that reads uploads in clear. ``--json`` keeps rows as they come and takes
up where it was stopped. Means are over the silos of one run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from bench.assess.harness import Harness, Options
from bench.assess.run import execute
from bench.cli.grid import Request, expand
from bench.plugins.find import Plugins
from bench.store.store import Store

FIGURES = {"precision": "token_precision", "recall": "token_recall", "rouge_l": "rouge_l", "auc": "token_auc"}
RATES = {"sgd": 0.1, "adamw": 2e-3}


@dataclass(frozen=True)
class Row:
    """One cell: settings and means, ``base_...`` of the baseline that sees no update."""

    optimizer: str
    prune: float
    rank: int
    batch: int
    round: int
    precision: float
    recall: float
    rouge_l: float
    auc: float
    base_precision: float
    base_recall: float
    base_rouge_l: float
    base_auc: float

    @property
    def key(self) -> tuple[str, float, int, int, int]:
        return self.optimizer, self.prune, self.rank, self.batch, self.round


class Bench:
    """Runs cells one after the other in this process; model and records stay loaded while they are the same."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.plugins = options, Plugins()
        self.harness = Harness(Store(options.store), self.plugins, Options(preset=options.preset, quiet=True))

    def rows(self, rank: int, optimizer: str, prune: float, batch: int, rounds: Sequence[int]) -> Iterator[Row]:
        """Train once, where the store does not have it, and attack every round. Raises RuntimeError for an error."""
        grids = [expand(self._request(rank, optimizer, prune, batch, r), self.plugins) for r in rounds]
        found = execute([row for grid in grids for row in grid.rows], grids[0].seeds, self.harness)
        for round, result in zip(rounds, found, strict=True):
            if result.status != "ok":
                raise RuntimeError(f"{result.status}: {result.note}")
            found = {figure.name: figure.value or 0.0 for figure in result.leakage}
            means = {k: found[name] for k, name in FIGURES.items()}
            base = {f"base_{k}": found[f"{name}:baseline"] for k, name in FIGURES.items()}
            yield Row(optimizer, prune, rank, batch, round, **means, **base)

    def _request(self, rank: int, optimizer: str, prune: float, batch: int, round: int) -> Request:
        options = self.options
        values: dict[str, object] = {
            "federation.silos": 6, "federation.rounds": 1 + max(options.rounds), "federation.local.steps": 1,
            "federation.local.batch": batch, "federation.local.optimizer": optimizer,
            "federation.local.lr": RATES[optimizer], "federation.lora.rank": rank, "federation.release": "none",
            "pool.candidates": 32, "pool.heldout": 4, "pool.validation": 0, "pool.population": 120,
            "pool.min_tokens": min(options.length, 24), "pool.max_tokens": options.length,
            f"{options.attack}.rounds": f"[{round}]",
        }  # fmt: skip
        if prune:
            values |= {"prune.start": 0, "prune.sparsity_start": prune, "prune.sparsity_end": prune}
        return Request(
            defense="prune" if prune else "fedavg",
            attack=options.attack,
            adversary="server",
            preset=options.preset,
            sets=tuple(f"{key}={value}" for key, value in values.items()),
        )


def grid(options: argparse.Namespace) -> Iterator[Row]:
    """All rows, those that ``--json`` holds already from there; models are loaded once per rank."""
    done = {}
    if options.json and options.json.exists():
        done = {(row := Row(**json.loads(line))).key: row for line in options.json.read_text().splitlines()}
    bench = Bench(options)
    cells = product(options.ranks, options.optimizers, options.prune, options.batches)
    for rank, optimizer, prune, batch in cells:
        keys = [(optimizer, prune, rank, batch, r) for r in options.rounds]
        missing = [key[-1] for key in keys if key not in done]
        for row in bench.board.rows(rank, optimizer, prune, batch, missing) if missing else ():
            done[row.key] = row
            if options.json:
                with options.json.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
        yield from (done[key] for key in keys)


def table(rows: Sequence[Row]) -> str:
    """Markdown: recall, precision, ROUGE-L and AUC, the baseline's in brackets."""
    lines = ["| optimiser | pruned | rank | batch | round | recall | precision | ROUGE-L | AUC |", "|---" * 9 + "|"]
    for r in rows:
        cells = [
            f"{getattr(r, k):.2f} ({getattr(r, 'base_' + k):.2f})" for k in ("recall", "precision", "rouge_l", "auc")
        ]
        lines.append(f"| {r.optimizer} | {r.prune:.0%} | {r.rank} | {r.batch} | {r.round} | {' | '.join(cells)} |")
    return "\n".join(lines)


COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a5aab", "#b08900")
WIDTH, HEIGHT, LEFT, TOP = 190, 130, 46, 34


def figure(rows: Sequence[Row]) -> str:
    """SVG: token recall against the batch, a panel for each optimiser and pruning, a colour for each rank, the first
    attacked round solid and later ones dashed, the baseline grey."""
    optimizers, prunes = list(dict.fromkeys(r.optimizer for r in rows)), sorted({r.prune for r in rows})
    ranks, batches = sorted({r.rank for r in rows}), sorted({r.batch for r in rows})
    rounds = sorted({r.round for r in rows})
    at = {b: i / max(len(batches) - 1, 1) * (WIDTH - 30) for i, b in enumerate(batches)}
    wide, high = LEFT + WIDTH * len(prunes) + 90, TOP + (HEIGHT + 34) * len(optimizers)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" '
             f'font-size="10"><rect width="{wide}" height="{high}" fill="#fff"/>']  # fmt: skip
    for (i, optimizer), (j, prune) in product(enumerate(optimizers), enumerate(prunes)):
        x0, y0 = LEFT + WIDTH * j, TOP + (HEIGHT + 34) * i
        parts.append(f'<text x="{x0}" y="{y0 - 8}">{optimizer}, {prune:.0%} pruned</text>')
        for level in (0, 0.5, 1):
            y = y0 + HEIGHT * (1 - level)
            parts.append(
                f'<path d="M{x0} {y}h{WIDTH - 30}" stroke="#ddd"/><text x="{x0 - 20}" y="{y + 3}">{level}</text>'
            )
        parts += [f'<text x="{x0 + at[b] - 3}" y="{y0 + HEIGHT + 12}">{b}</text>' for b in batches]
        mine = [r for r in rows if (r.optimizer, r.prune) == (optimizer, prune)]
        first = sorted((r for r in mine if (r.rank, r.round) == (ranks[0], rounds[0])), key=lambda r: r.batch)
        parts.append(_line([(x0 + at[r.batch], y0 + HEIGHT * (1 - r.base_recall)) for r in first], "#999", "1 2"))
        for (k, rank), (n, round) in product(enumerate(ranks), enumerate(rounds)):
            line = sorted((r for r in mine if (r.rank, r.round) == (rank, round)), key=lambda r: r.batch)
            points = [(x0 + at[r.batch], y0 + HEIGHT * (1 - r.recall)) for r in line]
            parts.append(_line(points, COLOURS[k % len(COLOURS)], "4 3" if n else ""))
    x = LEFT + WIDTH * len(prunes)
    parts += [f'<text x="{x}" y="{TOP + 14 * k}" fill="{COLOURS[k % len(COLOURS)]}">rank {rank}</text>'
              for k, rank in enumerate(ranks)]  # fmt: skip
    parts.append(f'<text x="{x}" y="{TOP + 14 * len(ranks)}" fill="#777">no update</text>')
    parts.append(f'<text x="{x}" y="{TOP + 14 * len(ranks) + 14}">dashed: round {rounds[-1]}</text>')
    parts.append('<text x="4" y="14">token recall, by records in the batch</text></svg>')
    return "\n".join(parts) + "\n"


def _line(points: Sequence[tuple[float, float]], colour: str, dash: str) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dash}"/>'


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def many(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
        return lambda text: [kind(part) for part in text.split(",")]

    parser.add_argument("--batches", type=many(int), default=[1, 2, 4, 8, 16])
    parser.add_argument("--ranks", type=many(int), default=[4, 16, 64])
    parser.add_argument("--prune", type=many(float), default=[0.0, 0.5, 0.9])
    parser.add_argument("--optimizers", type=many(str), default=["sgd", "adamw"])
    parser.add_argument("--rounds", type=many(int), default=[0, 2])
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--attack", default="inversion")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--store", type=Path, default=Path(".silobench"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args(words)
    rows = sorted(grid(options), key=lambda r: (r.optimizer != "sgd", r.prune, r.rank, r.round, r.batch))
    print(table(rows))
    if options.svg:
        options.svg.write_text(figure(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
