"""The origin of a transcript as what it is: bytes from somebody else."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest

from bench.core.errors import UsageError
from bench.corpus.planting import Planting
from bench.spec.run import PluginSpec, RunSpec
from bench.training.origin import read_origin, save_origin
from bench.transcript.transcript import Transcript

ASKED = Planting("p", MappingProxyType({"silo-0": ("a",)}), MappingProxyType({"silo-0": ("b",)}))
TRAINED = Planting("q", MappingProxyType({"silo-0": ("c",)}), MappingProxyType({"silo-0": ()}))
SPEC = RunSpec(task=PluginSpec(name="t", config={"x": 1.5}), defense=(PluginSpec(name="d"),))


@pytest.fixture
def transcript(tmp_path: Path) -> Transcript:
    return cast(Transcript, SimpleNamespace(root=tmp_path))


def test_what_was_saved_is_read(transcript: Transcript) -> None:
    save_origin(transcript, SPEC, 4, (TRAINED, ASKED))
    assert read_origin(transcript) == (SPEC, 4, (TRAINED, ASKED))


def test_where_one_planting_is_both_it_is_written_once(transcript: Transcript) -> None:
    save_origin(transcript, SPEC, 4, (ASKED, ASKED))
    assert "trained" not in json.loads((transcript.root / "truth" / "origin.json").read_text())
    assert read_origin(transcript) == (SPEC, 4, (ASKED, ASKED))


def test_where_there_is_none_it_is_said_what_for(transcript: Transcript) -> None:
    with pytest.raises(UsageError, match=r"has no truth/origin\.json \(spec, seed, planting\)"):
        read_origin(transcript)


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("seed", "null", "'seed' should be a valid integer, not null."),
        ("seed", "true", "'seed' should be a valid integer, not true."),
        ("seed", "1e999", "'seed' should be a valid integer, not Infinity."),
        ("seed", '"²"', "'seed' should be a valid integer, not "),
        ("spec", "[]", "'spec' should be "),
        ("spec", "{}", "'spec.task' is missing."),
        ("spec.pool.share", "1e999", "'spec.pool.share' should be "),
        ("spec.pool.candidates", '"8"', "'spec.pool.candidates' should be a valid integer, not \"8\"."),
        ("spec.more", "1", "'spec.more' is no field that is known here."),
        ("spec.task.config.x", "1e999", "'spec' is refused: it holds NaN, or a number out of range."),
        ("spec.federation.dropouts", '[{"round": 9, "silo": 0}]', "'spec' is refused: federation.dropouts names"),
        ("planting", "{}", "'planting' should be a valid string, not {}."),
        ("planting", '"x"', "The silobench-planting is not valid JSON ("),
        ("trained", '"{}"', "The silobench-planting is malformed: 'format' is missing."),
        ("more", "1", "'more' is no field that is known here."),
    ],
)
def test_a_wrong_field_is_named_with_its_file(transcript: Transcript, field: str, text: str, says: str) -> None:
    save_origin(transcript, SPEC, 4, (ASKED, ASKED))
    path = transcript.root / "truth" / "origin.json"
    value: Any = json.loads(path.read_text())
    *way, last = field.split(".")
    inside = value
    for key in way:
        inside = inside[key]
    inside[last] = "@"
    path.write_text(json.dumps(value).replace('"@"', text))
    with pytest.raises(UsageError) as caught:
        read_origin(transcript)
    assert str(caught.value).startswith(f"{path} is malformed: {says}")
    assert str(caught.value).endswith(".")
