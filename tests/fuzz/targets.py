"""Every parser of bytes from others, with valid files that mutants are made of."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.assets import assets, cache
from bench.board import leaderboard, matrix
from bench.board.verify import Source, verify_all
from bench.cli import estimate, grid, presets
from bench.core.errors import SiloBenchError
from bench.core.frames import decode_adapter
from bench.core.update import Form, Layout
from bench.corpus.planting import Planting
from bench.corpus.task import Record
from bench.games import leakage, load
from bench.plugins.find import Plugins
from bench.plugins.outline import outline
from bench.spec.result import Result
from bench.spec.run import ModelSpec
from bench.store.committed import read_packed
from bench.training.origin import read_origin
from bench.transcript import manifest
from bench.transcript.notes import logged_mechanisms, opened_sums
from bench.transcript.transcript import Transcript
from bench.view.openers.containers import expand
from bench.view.view import View
from tests.fuzz import world as valid
from tests.fuzz.mutate import mutant
from tests.fuzz.world import World


@dataclass(frozen=True)
class Target:
    """``seeds``: valid files. ``run``: hands bytes to the parser. ``costly``: it takes tens of milliseconds."""

    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    costly: bool = False

    def bad(self, number: int) -> str:
        """What is wrong with the answer to the mutant of that number; empty where it was understood or refused."""
        data = mutant(self.seeds, number)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.run(data)
        except SiloBenchError as error:
            return "" if str(error).strip() else "a refusal without a sentence"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            return f"{type(error).__name__}: {str(error)[:200]} of {data[:300]!r}"
        return ""


@dataclass(frozen=True)
class Message:
    data: bytes

    @property
    def lengths(self) -> tuple[int, ...]:
        return (len(self.data),)

    def frame(self, index: int) -> bytes:
        return self.data


def targets(world: World) -> dict[str, Target]:
    """By name. They write below the world's folder."""
    return {**_transcripts(world), **_boards(world), **_others(world)}


def _transcripts(world: World) -> dict[str, Target]:
    def copied(name: str, of: Path = world.transcript) -> Path:
        return shutil.copytree(of, world.folder / f"copy-{name}", dirs_exist_ok=True)

    def note(name: str, use: Callable[[Transcript], object]) -> Target:
        root = copied(name)
        one = Transcript(root)
        return Target(valid.truth(world, name), _written(next(root.glob(f"truth/**/{name}")), lambda: use(one)))

    copy = copied("manifest")
    known = Transcript(world.transcript)
    head, lines, at = copy / "manifest.json", copy / "rounds" / "0001" / "messages.jsonl", copy / "any.npy"
    view, read = copied("view", world.view), copied("reading", world.view)
    reading = sorted(read.glob("readings/*"))[-1]
    return {
        "frames": Target(valid.frames(), lambda data: decode_adapter([data], 12)),
        "headers of sums": Target(valid.headers(), lambda data: Form.read(data, Layout(("a",), ((8,),)), None)),
        "containers": Target(
            [*valid.truth(world, "adapter.npy"), reading.read_bytes(), gzip.compress(reading.read_bytes())],
            lambda data: list(expand(Message(data), known.public.layout)),  # type: ignore[arg-type]
        ),
        "transcript manifest": _file(head, head, lambda: Transcript(copy)),
        "messages": _file(lines, lines, lambda: list(manifest.message_lines(lines, 0, known.public))),
        "training.json": note("training.json", logged_mechanisms),
        "sums.json": note("sums.json", opened_sums),
        "harness.json": note("harness.json", lambda transcript: transcript.harness_notes(0)),
        "origin.json": note("origin.json", read_origin),
        "npy": Target(valid.truth(world, "adapter.npy"), _written(at, lambda: manifest.array(at).sum())),
        "view": _file(view / "manifest.json", view / "manifest.json", lambda: View.load(view)),
        "reading": Target([reading.read_bytes()], _written(reading, lambda: View.load(read).readings[0].values)),
    }


def _boards(world: World) -> dict[str, Target]:
    table, packed = world.folder / "cells.jsonl.gz", world.folder / "packed.gz"
    results = [result.to_json().encode() for result in world.store.results()]
    sheets = valid.sheets(world)

    def show(data: bytes) -> None:
        result = Result.from_json(data.decode(errors="replace"))
        leaderboard.render([result])
        verify_all([Source(result, lambda _: None)])

    def verify(data: bytes) -> None:
        text = data.decode(errors="replace")
        digest = hashlib.sha256(text.encode()).hexdigest()
        result = Result.from_json(results[0].decode()).model_copy(update={"scores_sha256": digest})
        verify_all([Source(result, lambda _: text)])
        leakage(load(text))

    def tabulate(data: bytes) -> None:
        table.write_bytes(gzip.compress(data, 1))
        matrix.render(list(matrix.load(table).values()))

    return {
        "results": Target(results, show),
        "sheets": Target(sheets, verify),
        "matrix cells": Target(valid.cells(world), tabulate),
        "packed texts": Target([gzip.compress(sheets[0])], _written(packed, lambda: read_packed(packed))),
        "plantings": Target(
            [path.read_bytes() for path in (world.store.root / "plantings").glob("*.json")],
            lambda data: Planting.from_json(data.decode(errors="replace")),
        ),
    }


def _others(world: World) -> dict[str, Target]:
    from tasks.jsonl import parse

    plugin, preset, made = (world.folder / name for name in ("plugin.py", "preset.toml", "made"))
    made.mkdir(exist_ok=True)
    tiny = assets.Assets(quiet=True).model(ModelSpec(name="tiny")).path
    plugins = Plugins()

    def option(data: bytes) -> None:
        words = data.decode(errors="replace").split("\n")
        grid.expand(grid.Request("secagg", "mia", preset="smoke", seeds=words[0], sets=tuple(words[1:])), plugins)

    def local(name: str, use: Callable[[Path], object]) -> Target:
        copy = world.folder / f"model-{name}"
        shutil.copytree(tiny, copy, dirs_exist_ok=True)
        return _file(tiny / name, copy / name, lambda: use(copy), costly=True)

    options = b'0,3-5\npool.candidates=30\nsecagg.clip=0.5\nfederation.local.lr=0.1\nfederation.lora.targets=["q_proj"]'
    record = b'{"size": 5, "mtime_ns": 17, "sha256": "ab"}'
    listed = b'{"version": 1, "files": {"config.json": "ab"}}'
    notes = (
        b'{"text": "a b c", "id": "1", "label": "x", "secrets": ["b"]}\n{"prompt": "p", "response": "r", "label": "y"}'
    )
    config = made / "config.json"
    return {
        "options": Target([options, b'0\nmodel.name="tiny"\nsecagg.bits=8'], option),
        "jsonl task": Target([notes], lambda data: parse(data, "x")),
        "plug-in": _file(Path(grid.__file__), plugin, lambda: outline(plugin).summary),
        "preset": _file(plugins.presets()["smoke"], preset, lambda: presets.load(preset)),
        "cache manifest": Target([listed], _written(made / "manifest.json", lambda: assets._read_manifest(made))),
        "cache record": Target([record], _written(made / "record", lambda: cache._read_record(made / "record"))),
        "size of a model": Target(
            [(tiny / "config.json").read_bytes()], _written(config, lambda: estimate.shape(_named(made)))
        ),
        **{name: local(name, _loaded) for name in ("config.json", "tokenizer.json", "tokenizer_config.json")},
    }


def _named(folder: Path):  # type: ignore[no-untyped-def]
    from types import SimpleNamespace

    return SimpleNamespace(model=SimpleNamespace(name=str(folder)))


def _loaded(folder: Path) -> None:
    from bench.model.lora import LoraModel
    from bench.spec.run import LoraSpec

    model = LoraModel.load(folder, ModelSpec(name=str(folder)), LoraSpec(rank=1), "cpu")
    with contextlib.suppress(SiloBenchError):
        model.encode([Record(id="r", text="A patient.")], 8)


def _file(seed: Path, path: Path, use: Callable[[], object], costly: bool = False) -> Target:
    return Target([seed.read_bytes()], _written(path, use), costly)


def _written(path: Path, use: Callable[[], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        path.write_bytes(data)
        return use()

    return run
