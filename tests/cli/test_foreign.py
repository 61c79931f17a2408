"""Files and words of others that once ended in an unexpected error, or blamed somebody else: one sentence each."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.assets.assets import Assets
from bench.cli.estimate import shape
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.model.loading import load_tokenizer, skeleton
from bench.spec.foreign import loads, parsed
from bench.spec.run import ModelSpec, PluginSpec, RunSpec
from bench.transcript import manifest

RUN = ("run", "--dry-run", "--preset", "smoke", "--attack", "mia", "--defense")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence of a command that can't be carried out."""
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "unexpected" not in line
    return line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("secagg", "--set", "secagg.clip=0"), "secagg.clip=0 is refused: it should be greater than 0"),
        (("secagg", "--set", "secagg.clip=-1"), "greater than 0"),
        (("quantize", "--set", "quantize.clip=-1"), "quantize.clip=-1 is refused"),
        (("fedavg", "--set", f"pool.candidates={'9' * 5000}"), "pool.candidates="),
        (("fedavg", "--set", "federation.local.lr=1e999"), "federation.local.lr="),
        (("fedavg", "--set", "federation.local.lr=NaN"), "federation.local.lr="),
        (("fedavg", "--seeds", "9" * 5000), "is no seed"),
        (("fedavg", "--secret-seed", "9" * 5000), "--secret-seed"),
    ],
)
def test_options(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str) -> None:
    assert says in refused(capsys, *RUN, *words)


@pytest.mark.parametrize("text", ["x = " + "-" * 100_000 + "1", "x = " + "(" * 100_000, "#" * (4 * 2**20 + 1)])
def test_a_plugin_that_no_parser_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "deep.py"
    path.write_text(text)
    assert str(path) in refused(capsys, "check", str(path))


CELL: dict[str, Any] = {
    "result": "a" * 16,
    "run": "b" * 16,
    "task": "t",
    "preset": "p",
    "defense": "d",
    "settings": '{"lr":0.1,"options":{"d":{}},"shadow":0}',
    "attack": "mia",
    "adversary": "silo",
    "seed": 0,
    "game": "membership",
    "status": "ok",
    "value": 0.5,
    "fingerprint": "f",
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"game": "chess"}, "'game' is refused: no game is called so"),
        ({"settings": "lr=1"}, "'settings' is refused"),
        ({"settings": "[]"}, "'settings' is refused"),
        ({"settings": '{"lr":0.1,"lr":0.2,"options":{},"shadow":0}'}, "a key twice"),
        ({"settings": '{"lr":0.1,"options":{"d":7},"shadow":0}'}, "'settings' is refused"),
        ({"value": 1e308}, "'value'"),
    ],
)
def test_a_cell_of_the_table_of_attacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str | None
) -> None:
    path = tmp_path / "matrix" / "t-p.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(json.dumps(CELL | change).encode()))
    words = ("matrix", "--check", "--folder", str(tmp_path))
    if says is None:
        assert main(list(words)) == 1  # there is no page yet
        assert "is not what its cells give" in capsys.readouterr().err
    else:
        line = refused(capsys, *words)
        assert f"{path} line 1" in line
        assert says in line


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '{"b": {"a": 1, "a": 2}}', "NaN", "1e999", "9" * 101, "[" * 10**5]
)
def test_json_that_readers_differ_about(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_a_key_that_stands_twice_is_refused_wherever_json_is_read() -> None:
    with pytest.raises(UsageError, match=r"x is not valid JSON \(it gives a key twice\)\."):
        parsed(dict[str, int], '{"a": 1, "a": 1}', "x")
    with pytest.raises(UsageError, match=r"x is not valid JSON \(it holds a whole number of more than 100 digits\)\."):
        parsed(dict[str, Any], f'{{"a": {"9" * 400}}}', "x")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10**10,)}",
        "{'descr': '<f4', 'fortran_order': 7, 'shape': (2,)}",
        "{'descr': [('a', '<f4'), ('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '" + "," * 500 + "', 'fortran_order': False, 'shape': (2,)}",
        "((((",
    ],
)
def test_a_broken_header_of_an_array(tmp_path: Path, header: str) -> None:
    path, text = tmp_path / "x.npy", header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + np.zeros(2, "<f4").tobytes())
    with pytest.raises(UsageError, match=r"x\.npy is no readable \.npy file"):
        manifest.array(path, (3,), np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = Assets(quiet=True).model(ModelSpec(name="tiny")).path
    return Path(shutil.copytree(source, tmp_path / "model"))


@pytest.mark.parametrize("text", ["{", '{"version": "1.0"}', "[]", "\x00"])
def test_a_foreign_tokenizer(model: Path, text: str) -> None:
    (model / "tokenizer.json").write_text(text)
    with pytest.raises(UsageError, match=r"holds no tokenizer that transformers can load"):
        load_tokenizer(model)


@pytest.mark.parametrize("key", ["merges", "vocab"])
def test_a_foreign_part_of_a_tokenizer(model: Path, key: str) -> None:
    value = json.loads((model / "tokenizer.json").read_text())
    value["model"][key] = 7
    (model / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"holds no tokenizer that transformers can load"):
        load_tokenizer(model)


@pytest.mark.parametrize("value", [{}, "x", None])
def test_a_foreign_setting_of_a_tokenizer(model: Path, value: object) -> None:
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": value}))
    if value is None:
        load_tokenizer(model)
    else:
        with pytest.raises(UsageError, match=r"holds no tokenizer that transformers can load"):
            load_tokenizer(model)


@pytest.mark.parametrize("change", [{"hidden_act": 7}, {"num_attention_heads": 0}, {"rope_parameters": []}])
def test_a_foreign_config(model: Path, change: dict[str, Any]) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=r"holds no causal language model that transformers can load"):
        skeleton(model)


def test_a_config_without_sizes_costs_an_estimate_nothing(model: Path) -> None:
    spec = RunSpec(task=PluginSpec(name="t"), defense=(PluginSpec(name="d"),), model=ModelSpec(name=str(model)))
    assert shape(spec).hidden == 128
    (model / "config.json").write_text('{"hidden_size": Infinity, "num_hidden_layers": 1e999, "vocab_size": 7}')
    assert shape(spec).hidden == 576
