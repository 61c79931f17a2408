"""The harness's notes as what they are: bytes from somebody else. Each wrong field is one sentence that names it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UsageError
from bench.core.update import Layout
from bench.defense.public import Public, alike
from bench.transcript.transcript import Transcript

SILOS = ("silo-0", "silo-1")
DID = {"kind": "gaussian", "params": {"sigma": 1.5, "steps": 4}, "round": -1}
TRAINING: dict[str, Any] = {
    "silo-0": {"steps": 2, "tokens": 9, "losses": [0.5], "batches": [[0, 1], []], "mechanisms": [DID], "bound": 2.0}
}
SUMS: dict[str, Any] = {"sums": [{"round": 0, "silos": list(SILOS), "noise": DID}]}
HARNESS: dict[str, Any] = {
    "pending": {"server": [[0, 3]]},
    "phases": {"train": {"wall_s": 1.5, "process_s": 1.0, "calls": 2, "peak_bytes": 100}},
}
NOTES = {"training": TRAINING, "sums": SUMS, "harness": HARNESS}
#: JSON texts that are right nowhere in these files
WRONG = ("null", "true", "-7", "1e999", "NaN", "9" * 400, '"²"', "{}", "[[]]", '{"more": 1}')
#: ... but here: by the end of a place
RIGHT = {
    "bound": ("null", "-7"),
    "noise": ("null",),
    "losses.0": ("NaN", "1e999", "-7", "9" * 400),
    "batches": ("[[]]",),
    "params": ("{}", '{"more": 1}'),
    "sigma": ("-7",),
    "params.steps": ("-7",),
    "kind": ('"²"',),
    "pending": ("{}",),
    "phases": ("{}",),
    "silos.0": ('"²"',),
    "silos.1": ('"²"',),
}


#: a mechanism's own round is not used
DEFAULTED = (("mechanisms", 0, "round"), (0, "noise", "round"))


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*way, key)
        yield from places(item, (*way, key))


def at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Transcript:
    public = Public(alike(Layout(("a",), ((4,),))), SILOS, dict.fromkeys(SILOS, 1), 1, (SILOS,))
    made = Transcript.create(tmp_path_factory.mktemp("t"), public, np.zeros(4, np.float32), {})
    made.begin(0).commit()
    return made


def put(transcript: Transcript, name: str, text: str) -> None:
    (transcript.root / "truth" / "0001" / f"{name}.json").write_text(text)


def get(transcript: Transcript, name: str) -> Any:
    return {"training": transcript.training, "sums": transcript.sums, "harness": transcript.harness_notes}[name](0)


def test_notes_are_read_with_their_types(transcript: Transcript) -> None:
    for name, value in NOTES.items():
        put(transcript, name, json.dumps(value))
    (did,) = get(transcript, "training")["silo-0"].mechanisms
    assert [type(value) for value in did.params.values()] == [float, int]
    assert get(transcript, "sums")[0].silos == SILOS
    assert get(transcript, "harness") == {**HARNESS, "pending": {"server": ((0, 3),)}}


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, value in NOTES.items() for way in places(value)])
def test_a_wrong_value_is_named_with_its_file_and_place(
    transcript: Transcript, name: str, way: tuple[Any, ...]
) -> None:
    place = ".".join(map(str, way))
    right = next((texts for end, texts in RIGHT.items() if place.endswith(end)), ())
    for text in WRONG:
        if text in right:
            continue
        value = copy.deepcopy(NOTES[name])
        at(value, way[:-1])[way[-1]] = "@"
        put(transcript, name, json.dumps(value).replace('"@"', text))
        with pytest.raises(UsageError) as caught:
            get(transcript, name)
        said = str(caught.value)
        assert f"{name}.json is malformed: '{place}" in said, (text, said)
        assert len(said) < 400


NAMED = [
    (name, way)
    for name, value in NOTES.items()
    for way in places(value)
    if isinstance(way[-1], str) and way[-1] not in ("silo-0", "server", "train", "sigma") and "params" not in way[:-1]
]


@pytest.mark.parametrize(("name", "way"), NAMED)
def test_a_missing_field_is_named_where_it_has_no_default(
    transcript: Transcript, name: str, way: tuple[Any, ...]
) -> None:
    value = copy.deepcopy(NOTES[name])
    del at(value, way[:-1])[way[-1]]
    put(transcript, name, json.dumps(value))
    if way[-1] in ("mechanisms", "bound", "pending", "phases") or way[-3:] in DEFAULTED:
        assert get(transcript, name) is not None
    else:
        with pytest.raises(UsageError, match=f"'{'.'.join(map(str, way))}' is missing"):
            get(transcript, name)


@pytest.mark.parametrize("name", NOTES)
@pytest.mark.parametrize("text", ["", "[]", "7", "[" * 100_000, "9" * 5000, '{"a": "\\ud800"}', '{"\\u00b2": 1}'])
def test_a_file_that_holds_something_else_is_one_sentence(transcript: Transcript, name: str, text: str) -> None:
    put(transcript, name, text)
    with pytest.raises(UsageError, match=rf"{name}\.json is (malformed: |not valid JSON \().*\.$"):
        get(transcript, name)


def test_a_transcript_without_notes_has_none(tmp_path: Path, transcript: Transcript) -> None:
    assert (transcript.training(7), transcript.sums(7)) == ({}, ())
    assert transcript.harness_notes(7) == {"pending": {}, "phases": {}}
