"""A view's manifest as what it is: bytes from somebody else. Each wrong field is one sentence that names it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.adversaries import Assignment
from bench.core.errors import UsageError
from bench.defense.defaults.plain import PlainChannel
from bench.view.view import View
from bench.view.write import ViewWriter
from tests.view.synthetic import Synthetic

PLACES: dict[str, tuple[str, ...]] = {
    "adversary": ("1", "null"),
    "coalition": ("1", '"server"', "[1]"),
    "victims": ("null", "[true]"),
    "public": ("null", "[]"),
    "public.layout": ("null", '{"names": ["a"], "shapes": [[1e999]]}', '{"names": ["a"], "shapes": [[0]]}'),
    "public.silos": ("[]", "7", '["silo-00"]'),
    "public.weights": ("[]", '{"silo-0": 0}'),
    "public.rounds": ("true", "1e999", "-1", "9" * 400, '"²"'),
    "public.participants": ("null", '["silo-0"]', '[["silo-0", "silo-0"]]'),
    "public.nonce": ("-1", "1.0", "null"),
    "spec": ("[]", '{"a": [1e999]}', '{"a": NaN}'),
    "initial": ("-1", "true", '"../x"', "1e999"),
    "thinned": ("7", "[[0]]", '[[0, "upload", 3]]'),
    "lost": ("7", "[[0]]", "[[0, 1]]"),
    "readings": ("7", "[7]", "{}"),
    "readings.0.kind": ('"gossip"', '["adapter"]', "null"),
    "readings.0.round": ("10001", "-2", "true", "0.5", "9" * 400),
    "readings.0.silos": ('"silo-0"', "[0]", "null"),
    "readings.0.how": ("null",),
    "readings.0.terms": ("[[0]]", '[[0, "silo-0", 1e999]]', f'[[0, "silo-0", {2**53 + 1}]]'),
    "readings.0.handle": ("0",),
    "readings.0.unchecked": ("0", '"no"', "null"),
    "readings.0.file": ('"../../secret"', "-1", "true", "1.5", str(10**9)),
    "readings.0.before": ("[]", "-1"),
}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("v")
    public = Synthetic(folder / "run", PlainChannel(), rounds=1).public
    writer = ViewWriter(folder / "view", "server", Assignment(frozenset({"server"}), ("silo-0",)), public, {})
    writer.add("adapter", 0, frozenset(), "made by hand", adapter=np.zeros(300, np.float32), terms=((0, "silo-0", 1),))
    writer.commit()
    return folder / "view", json.loads((folder / "view" / "manifest.json").read_text())


def refused(folder: Path, text: str) -> str:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        View.load(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder / 'manifest.json'} is ")
    assert len(said) < 500
    return said


def holder(value: Any, place: str) -> tuple[Any, str]:
    *way, last = place.split(".")
    for key in way:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value, last


@pytest.mark.parametrize(("place", "text"), [(place, text) for place, texts in PLACES.items() for text in texts])
def test_a_wrong_value_is_named_with_its_place(view: tuple[Path, dict[str, Any]], place: str, text: str) -> None:
    folder, value = view[0], copy.deepcopy(view[1])
    inside, last = holder(value, place)
    inside[last] = "@"
    said = refused(folder, json.dumps(value).replace('"@"', text))
    # what contradicts another field of 'public' is named in the sentence
    assert f"malformed: '{place}" in said or ("malformed: 'public' is refused: " in said and f"'{last}'" in said)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_missing_is_named(view: tuple[Path, dict[str, Any]], place: str) -> None:
    folder, value = view[0], copy.deepcopy(view[1])
    inside, last = holder(value, place)
    del inside[last]
    if place in ("public.nonce", "lost"):
        (folder / "manifest.json").write_text(json.dumps(value))
        assert (View.load(folder).public.nonce, View.load(folder).lost) == (0, ())
    elif last != "readings":
        assert f"'{place}' is missing" in refused(folder, json.dumps(value))


@pytest.mark.parametrize("place", ["seed", "public.seed", "readings.0.seed"])
def test_a_field_that_nobody_writes_is_refused(view: tuple[Path, dict[str, Any]], place: str) -> None:
    folder, value = view[0], copy.deepcopy(view[1])
    inside, last = holder(value, place)
    inside[last] = 7
    assert f"'{place}' is no field that is known here" in refused(folder, json.dumps(value))


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '{"initial": ' + "9" * 5000 + "}", '{"a": "\\udc00"}'])
def test_what_is_no_json_is_refused(view: tuple[Path, dict[str, Any]], text: str) -> None:
    assert "is not valid JSON (" in refused(view[0], text)
