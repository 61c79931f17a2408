"""Valid files of every kind: those of one small real run, and a few that are made by hand."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.board import matrix
from bench.cli.main import main
from bench.core.adversaries import Assignment
from bench.core.frames import encode_adapter, encode_integers
from bench.core.update import Form, Grid, Layout
from bench.games.audit_sheet import make_sheet as audit
from bench.games.reconstruction_grading import Grades
from bench.games.reconstruction_sheet import GradedTarget, arranged
from bench.games.trials import Trial
from bench.games.trials import make_sheet as trials
from bench.store.store import Store
from bench.transcript.transcript import Transcript
from bench.view.write import ViewWriter

SETS = (
    *("pool.candidates=8", "pool.validation=4", "pool.heldout=8", "pool.population=32", "pool.max_tokens=48"),
    *("federation.rounds=1", "federation.local.epochs=1", "clinical-notes.notes=200"),
)


@dataclass(frozen=True)
class World:
    """A folder with a store, the transcript of its one run, and a view of it."""

    folder: Path
    store: Store
    transcript: Path
    view: Path


def made(folder: Path) -> World:
    """Trains for some seconds."""
    words = [
        "run",
        "--preset",
        "smoke",
        "--defense",
        "dp-fedavg",
        "--attack",
        "mia",
        "--adversary",
        "server",
        "--quiet",
    ]
    words += ["--store", str(folder / "store"), *(part for value in SETS for part in ("--set", value))]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(words) == 0, err.getvalue()
    store = Store(folder / "store")
    (run,) = store.runs()
    transcript = Transcript(store.run_dir(run) / "transcript")
    whose = Assignment(frozenset({"server"}), transcript.public.silos)
    writer = ViewWriter(folder / "view", "server", whose, transcript.public, {"rounds": 1})
    values = np.linspace(-1, 1, transcript.public.layout.size).astype(np.float32)
    writer.set_initial(values)
    writer.add("upload", 0, frozenset({"silo-0"}), "raw", terms=((0, "silo-0", 1),), values=values, adapter=values)
    writer.commit()
    return World(folder, store, transcript.root, folder / "view")


def truth(world: World, name: str) -> list[bytes]:
    """What lies under that name with the truth."""
    return [path.read_bytes() for path in sorted(world.transcript.glob(f"truth/**/{name}"))]


def sheets(world: World) -> list[bytes]:
    """One of every kind of sheet."""
    rng = np.random.default_rng(0)
    member = np.arange(20) % 2 == 0
    scores = {"audit": rng.normal(size=20), "loss": rng.normal(size=20)}
    grades = [Grades(((1.0,) * 6, (0.0,) * 6), (0.0, 0.5)), Grades(((0.5, 0.0, 0.0, 0.0, 1.0, 0.0),), (0.25, 1.0))]
    targets = [GradedTarget(0, "a", 2, (7, 3), grades[0], None), GradedTarget(1, "b", 2, (7,), None, grades[1])]
    asked = [Trial(k // 2, "", {"accuracy": k % 2}, {"accuracy": 0.5}) for k in range(8)]
    found = [
        audit([f"c{k}" for k in range(20)], [0] * 20, member, scores, {"loss": scores["loss"]}, delta=1e-5),
        arranged(targets),
        trials("source", ("accuracy",), [*asked, Trial(9, "", None, {"accuracy": 0.25})]),
    ]
    kept = [path.read_bytes() for path in sorted((world.store.root / "scores").glob("*.json"))]
    return [*kept, *(sheet.to_json().encode() for sheet in found)]


def cells(world: World) -> list[bytes]:
    """Lines of the table of attacks."""
    lines = [matrix.entry(result, {}).model_dump_json() for result in world.store.results()]
    further = [json.loads(lines[0]) | {"result": f"{k}" * 16, "seed": k, "value": k / 9} for k in range(1, 3)]
    return ["\n".join([*lines, *map(json.dumps, further)]).encode()]


def frames() -> list[bytes]:
    values = np.linspace(-1, 1, 12)
    real = [frame for kind in ("float64", "float32", "bfloat16", "float16") for frame in encode_adapter(values, kind)]
    return [*real, *encode_integers(np.arange(-6, 6), 8)]


def headers() -> list[bytes]:
    layout, support = Layout(("a",), ((8,),)), np.array([1, 5])
    return [Form(layout).header(), Form(layout, Grid(8, 0.5), support).header()]
