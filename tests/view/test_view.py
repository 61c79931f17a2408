"""What a view answers, and what loading one refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.adversaries import Assignment
from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Layout
from bench.defense.defaults.plain import PlainChannel
from bench.defense.public import Public, alike
from bench.view.view import Kind, Reading, View, adapter_handle
from bench.view.write import ViewWriter, without_seeds
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]


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
        ({"format": "silobench-transcript"}, "is no silobench-view: its 'format' is"),
        ({"version": 2}, "version 2, and this silobench reads version 1: upgrade"),
        ({"readings": [{"kind": "upload"}]}, "'readings.0.round' is missing"),
        ({"readings": 3}, "'readings' should be a valid array, not 3"),
        ({"public": {}}, "'public.layout' is missing"),
        ({"thinned": [[1]]}, "'thinned.0.1' is missing"),
        ({"initial": -1}, "'initial' should be greater than or equal to 0, not -1"),
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


def test_a_reading_of_a_kind_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    folder = small(tmp_path)
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"kind": "adapter"', '"kind": "gossip"'))
    with pytest.raises(UsageError, match=r"'readings\.0\.kind' should be 'query', .*, not \"gossip\""):
        View.load(folder)


def test_a_handle_is_the_sha_256_of_little_endian_float32() -> None:
    known = "2ce4bdb6b34a50ac7092eb9fee94337a27498e9eb9bae44192f15b88831b2422"  # of 1, -2, 0.5
    for values in (
        np.array([1, -2, 0.5], np.float32),
        np.array([1, -2, 0.5], ">f8"),
        np.array([1, 9, -2, 9, 0.5], np.float32)[::2],
    ):
        assert adapter_handle(values) == known
    assert adapter_handle(np.array([1, -2, 0.25])) != known


def view_of(*readings: Reading) -> View:
    layout = Layout(("a.lora_A",), ((3,),))
    public = Public(alike(layout), ("silo-0", "silo-1"), {"silo-0": 1, "silo-1": 1}, 2, ((), ()))
    return View("server", frozenset({"server"}), public.silos, public, {}, readings, (), Path("nowhere"))


def reading(kind: Kind, round: int, *silos: str, handle: str = "") -> Reading:
    return Reading(kind, round, frozenset(silos), "told", handle=handle)


def test_uploads_are_asked_for_by_silo_and_round() -> None:
    first, second = reading("upload", 0, "silo-0"), reading("upload", 1, "silo-0")
    other, both = reading("upload", 1, "silo-1"), reading("sum", 1, "silo-0", "silo-1")
    view = view_of(first, second, other, both, reading("adapter", 0))
    assert view.uploads() == (first, second, other)
    assert view.uploads("silo-0") == (first, second)
    assert view.uploads(round=1) == (second, other)
    assert view.uploads("silo-1", 0) == ()
    assert view.adapters() == (reading("adapter", 0),)


def test_the_last_adapter_of_a_victim_is_its_own_then_the_global_one_then_the_query() -> None:
    query, shared = reading("query", 1, handle="q"), [reading("adapter", r, handle="g") for r in (0, 1)]
    own = [reading("upload", 0, "silo-0", handle="a"), reading("upload", 1, "silo-0")]  # the start of 1 is not known
    assert view_of(query, *shared, *own).last_adapter("silo-0") == own[0]
    assert view_of(query, *shared, *own).last_adapter("silo-1") == shared[1]
    assert view_of(query, own[1]).last_adapter("silo-0") == query
    assert view_of(own[1]).last_adapter("silo-0") is None


def test_a_reading_gives_only_what_its_kind_holds(tmp_path: Path) -> None:
    public = Synthetic(tmp_path / "run", PlainChannel(), rounds=1).public
    writer = ViewWriter(tmp_path / "view", "server", Assignment(frozenset({"server"}), ("silo-0",)), public, {})
    silo, values, adapter, support = frozenset({"silo-0"}), np.ones(3, np.float32), np.full(3, 2.0), np.array([0, 2])
    start = writer.set_initial(np.zeros(3))
    for kind in ("upload", "partial", "sum"):
        writer.add(kind, 0, silo, "told", values=values, adapter=adapter, support=support, before=start)  # type: ignore[arg-type]
    writer.add("adapter", 0, frozenset(), "told", adapter=adapter)
    view = writer.commit()
    upload, partial, whole, shared = view.readings
    assert [r.support is not None for r in view.readings] == [False, True, False, False]
    assert [r.adapter is not None for r in view.readings] == [True, False, False, True]
    assert [r.before is not None for r in view.readings] == [True, True, True, False]
    np.testing.assert_array_equal(partial.support, support)
    np.testing.assert_array_equal(upload.adapter, adapter)
    np.testing.assert_array_equal(shared.values, adapter)
    np.testing.assert_array_equal(whole.before, np.zeros(3))
    np.testing.assert_array_equal(view.initial, np.zeros(3))
