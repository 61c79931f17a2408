"""What a view's directory holds, and what loading one refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.adversaries import Assignment
from bench.core.errors import SiloBenchError, UsageError
from bench.defense.defaults.plain import PlainChannel
from bench.view.view import View
from bench.view.write import ViewWriter, without_seeds
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]


def test_it_holds_neither_seed_nor_truth_nor_a_key(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), release="none")
    secrets = [value.tobytes() for state in run.states.values() for key, value in state.items() if "keys/" in key]
    truths = [run.summand(r, s).tobytes()[:64] for r, s in run.updates]
    assert secrets
    for adversary, coalition in (("outsider", ()), ("server", ("server",)), ("silo", ("silo-0",))):
        view = run.view(tmp_path / adversary, adversary, *coalition)
        files = [p for p in view.directory.rglob("*") if p.is_file()]
        assert {p.parent.name for p in files} <= {adversary, "readings"}
        content = b"".join(p.read_bytes() for p in files)
        assert not any(secret in content for secret in secrets)
        assert not any(truth in content for truth in truths)
        manifest = json.loads((view.directory / "manifest.json").read_text())
        assert "seed" not in json.dumps(manifest)
        assert manifest["spec"] == {"federation": {"x": 1}}


def test_seeds_are_taken_out_of_a_spec_at_any_depth() -> None:
    spec = {"seed": 1, "a": [{"secret_seed": 2, "seedling": 3}], "b": {"seeds": (1, 2), "c": (4,)}}
    assert without_seeds(spec) == {"a": [{"seedling": 3}], "b": {"c": [4]}}


def test_a_loaded_view_is_the_one_that_was_built(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    built = run.view(tmp_path / "view", "server", "server")
    assert View.load(tmp_path / "view") == built
    assert built.public == run.public
    assert built.coalition == {"server"}
    assert built.victims == run.public.silos
    assert not list((tmp_path / "view").glob("**/*.npy"))


def test_building_again_replaces_the_view(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    first = run.view(tmp_path / "view", "server", "server")
    second = run.view(tmp_path / "view", "outsider")
    assert first.readings != second.readings
    assert View.load(tmp_path / "view").adversary == "outsider"
    assert len(list((tmp_path / "view" / "readings").iterdir())) == 1
    assert [p.name for p in tmp_path.glob("view*")] == ["view"]


def test_thinned_messages_are_named_and_nothing_breaks(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel(), rounds=3)
    run.transcript.drop_frames(1)
    server = run.view(tmp_path / "server", "server", "server")
    assert set(server.thinned) == {(1, "broadcast", "server"), *((1, "upload", s) for s in run.public.silos)}
    assert {r.round for r in server.uploads()} == {0, 2}
    # the sum of round 0 that the server opens gives the adapter that the dropped broadcast would have shown
    assert [r.round for r in server.adapters()] == [0, 1, 2]
    silo = run.view(tmp_path / "silo", "silo", "silo-0")
    assert set(silo.thinned) == {(1, "broadcast", "server"), (1, "upload", "silo-0")}
    assert [r.round for r in silo.adapters()] == [1, 2]
    assert run.view(tmp_path / "outsider", "outsider").thinned == ()


def test_damaged_frames_are_an_error(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    path = next((run.transcript.root / "rounds").glob("0001/frames.bin"))
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(SiloBenchError, match="damaged"):
        run.view(tmp_path / "view", "server", "server")


def test_an_imported_transcript_without_truth_is_read_and_marked(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.ForgetsAndDenies(), truth=False, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert {(r.round, *r.silos) for r in view.uploads()} == set(run.updates)
    for reading in view.uploads():
        assert reading.unchecked
        np.testing.assert_array_equal(reading.values, run.summand(reading.round, *reading.silos))
    assert all(r.unchecked for r in view.adapters())
    assert [r.round for r in view.adapters()] == [0, 1]


def test_an_imported_transcript_that_seals_shows_nothing(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), truth=False, release="none")
    assert run.view(tmp_path / "view", "server", "server").readings == ()


def small(tmp_path: Path, **changes: Any) -> Path:
    public = Synthetic(tmp_path / "run", PlainChannel(), rounds=1).public
    writer = ViewWriter(tmp_path / "view", "server", Assignment(frozenset({"server"}), ("silo-0",)), public, {})
    writer.add("adapter", 0, frozenset(), "made by hand", adapter=np.arange(300, dtype=np.float32))
    writer.commit()
    path = tmp_path / "view" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, **changes}))
    return tmp_path / "view"


def test_a_view_made_by_hand_loads(tmp_path: Path) -> None:
    view = View.load(small(tmp_path))
    np.testing.assert_array_equal(view.adapters()[0].values, np.arange(300))
    assert view.initial is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "silobench-transcript"}, "no manifest of a view"),
        ({"version": 2}, "version 2; this silobench reads version 1"),
        ({"readings": [{"kind": "upload"}]}, "malformed: KeyError"),
        ({"readings": 3}, "malformed: TypeError"),
        ({"public": {}}, "malformed: KeyError"),
        ({"thinned": [[1]]}, "malformed: ValueError"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        View.load(small(tmp_path, **changes))


@pytest.mark.parametrize("number", ["../../secret", -1, True, 1.5, 10**9])
def test_a_manifest_cannot_point_outside_its_directory(tmp_path: Path, number: object) -> None:
    folder = small(tmp_path)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["readings"][0]["file"] = number
    path.write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="malformed"):
        View.load(folder)


def test_no_directory_and_no_json_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no view"):
        View.load(tmp_path / "nowhere")
    folder = small(tmp_path)
    (folder / "manifest.json").write_text("[[[")
    with pytest.raises(UsageError, match="not valid JSON"):
        View.load(folder)


def test_a_damaged_reading_is_an_error_when_it_is_asked_for(tmp_path: Path) -> None:
    view = View.load(small(tmp_path))
    reading = view.adapters()[0]
    assert reading.path is not None
    reading.path.write_bytes(b"not safetensors")
    with pytest.raises(SiloBenchError, match="can't be read"):
        _ = reading.values


def test_a_query_has_no_values(federate: Federate, tmp_path: Path) -> None:
    query = federate(PlainChannel()).view(tmp_path / "view", "user").readings[0]
    with pytest.raises(SiloBenchError, match="kind 'query' holds no values"):
        _ = query.values
