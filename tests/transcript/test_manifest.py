"""A transcript's manifest, arrays and notes as what they are: bytes from somebody else."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UsageError
from bench.core.update import Layout
from bench.defense.public import Public, alike
from bench.transcript import manifest
from bench.transcript.manifest import array, read_manifest

LAYOUT = Layout(("a", "b"), ((2, 3), (4,)))
SILOS = ("silo-0", "silo-1")
PUBLIC = Public(alike(LAYOUT), SILOS, {"silo-0": 1, "silo-1": 7}, 3, (SILOS, ("silo-1",), ()), 5)


# -- the manifest --------------------------------------------------------------------------------------------------


def written(root: Path, inside: Any = None, **changes: Any) -> Path:
    """A folder with a manifest: that of ``PUBLIC``, or with something else in it or ``inside`` its 'public'."""
    own = {
        "layout": {"names": ["a", "b"], "shapes": [[2, 3], [4]]},
        "silos": ["silo-0", "silo-1"],
        "weights": {"silo-0": 1, "silo-1": 7},
        "rounds": 3,
        "participants": [["silo-0", "silo-1"], ["silo-1"], []],
        "nonce": 5,
    }
    own.update(inside or {})
    value = {"format": "silobench-transcript", "version": 1, "public": own, "spec": {"task": "notes"}, **changes}
    (root / "manifest.json").write_text(json.dumps(value))
    return root


def known(root: Path) -> Public:
    return read_manifest(root).public.public()


def test_a_manifest_is_what_every_party_knows(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path)).spec == {"task": "notes"}
    public = known(tmp_path)
    assert public == PUBLIC
    assert (public.adapter, public.state) == (LAYOUT, LAYOUT)


def test_a_manifest_from_before_there_was_a_nonce_has_0(tmp_path: Path) -> None:
    written(tmp_path)
    value = json.loads((tmp_path / "manifest.json").read_text())
    del value["public"]["nonce"]
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    assert known(tmp_path).nonce == 0


def test_layouts_of_adapter_and_state_are_read_where_they_are_others(tmp_path: Path) -> None:
    layouts = {
        "adapter": {"names": ["x"], "shapes": [[2]]},
        "state": {"names": ["x", "y"], "shapes": [[2], [3]]},
    }
    public = known(written(tmp_path, layouts))
    assert (public.layout, public.adapter) == (LAYOUT, Layout(("x",), ((2,),)))
    assert public.state == Layout(("x", "y"), ((2,), (3,)))
    public = known(written(tmp_path, {"adapter": layouts["adapter"], "state": layouts["adapter"]}))
    assert public.adapter == public.state == Layout(("x",), ((2,),))


def test_sizes_and_names_are_read_where_they_stand(tmp_path: Path) -> None:
    about = {"sizes": {"silo-0": 3, "silo-1": 40}, "names": {"silo-0": "Süd", "silo-1": "N" * 200}}
    public = known(written(tmp_path, about))
    assert {"sizes": public.sizes, "names": public.names} == about
    assert manifest.public_json(public)["names"] == about["names"]
    assert "names" not in manifest.public_json(PUBLIC)


def test_bounds_themselves_are_accepted(tmp_path: Path) -> None:
    public = known(written(tmp_path, {"nonce": 2**64, "weights": {"silo-0": 2**62, "silo-1": 1}}))
    assert (public.nonce, public.weights["silo-0"]) == (2**64, 2**62)
    public = known(written(tmp_path, {"rounds": 0, "participants": []}))
    assert public.rounds == 0
    layout = {"names": ["a", "b"], "shapes": [[2**35], [2**34, 2]]}
    assert known(written(tmp_path, {"layout": layout})).layout.size == manifest.MAX_VALUES


HOSTILE_MANIFESTS: dict[str, dict[str, Any]] = {
    "no public": {"public": None},
    "public is a list": {"public": []},
    "silos with paths": {"silos": ["../../a", "silo-1"]},
    "silos out of order": {"silos": ["silo-1", "silo-0"]},
    "no silos": {"silos": []},
    "silos that are a number": {"silos": 2},
    "weights of others": {"weights": {"silo-0": 1, "silo-2": 1}},
    "weights that are a list": {"weights": [1, 1]},
    "a weight of zero": {"weights": {"silo-0": 0, "silo-1": 1}},
    "an infinite weight": {"weights": {"silo-0": float("inf"), "silo-1": 1}},
    "more rounds than there can be": {"rounds": 10**9},
    "rounds that are text": {"rounds": "3"},
    "rounds that are true": {"rounds": True, "participants": [["silo-0"]]},
    "a nonce of more than 64 bits": {"nonce": 2**64 + 1},
    "a weight of more than 62 bits": {"weights": {"silo-0": 2**62 + 1, "silo-1": 1}},
    "a layout of too many values": {"layout": {"names": ["a", "b"], "shapes": [[2**36], [1]]}},
    "more silos than there can be": {"silos": [f"silo-{i}" for i in range(10_001)]},
    "participants of fewer rounds": {"participants": [["silo-0"]]},
    "participants that stand twice": {"participants": [["silo-0", "silo-0"], [], []]},
    "a weight that is null": {"weights": {"silo-0": None, "silo-1": 1}},
    "a weight that is true": {"weights": {"silo-0": True, "silo-1": 1}},
    "a size that is missing": {"sizes": {"silo-0": 3}},
    "a size of zero": {"sizes": {"silo-0": 3, "silo-1": 0}},
    "names of others": {"names": {"silo-0": "a", "silo-2": "b"}},
    "a name without end": {"names": {"silo-0": "a" * 201, "silo-1": "b"}},
    "an adapter that is null": {"adapter": None},
    "an unknown field": {"seed": 3},
    "an unknown field of a layout": {"layout": {"names": ["a"], "shapes": [[2]], "size": 2}},
    "a shape of very many sizes": {"layout": {"names": ["a"], "shapes": [[2**35] * 100_000]}},
    "participants from elsewhere": {"participants": [["silo-9"]] * 3},
    "no layout": {"layout": None},
    "a layout with a name too many": {"layout": {"names": ["a", "b"], "shapes": [[2]]}},
    "a layout with a negative size": {"layout": {"names": ["a"], "shapes": [[-2, 3]]}},
    "a layout with a fraction": {"layout": {"names": ["a"], "shapes": [[2.5]]}},
    "a layout that overflows": {"layout": {"names": ["a"], "shapes": [[2**32, 2**32]]}},
    "an empty layout": {"layout": {"names": [], "shapes": []}},
    "an adapter that is no layout": {"adapter": [4]},
    "a state that does not begin with the adapter": {"state": {"names": ["other"], "shapes": [[4, 4]]}},
    "a state that is less than the adapter": {"adapter": {"names": ["a", "b"], "shapes": [[2], [3]]}},
    "a state of other names": {
        "adapter": {"names": ["a"], "shapes": [[2]]},
        "state": {"names": ["b"], "shapes": [[2]]},
    },
    "a state of other shapes": {
        "adapter": {"names": ["a"], "shapes": [[2]]},
        "state": {"names": ["a", "b"], "shapes": [[3], [2]]},
    },
}


@pytest.mark.parametrize("change", HOSTILE_MANIFESTS.values(), ids=HOSTILE_MANIFESTS.keys())
def test_a_hostile_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    written(tmp_path, **change) if "public" in change else written(tmp_path, change)
    with pytest.raises(UsageError, match=r"manifest\.json is malformed: 'public.*\.$"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "is malformed: it should be an object"),
        (b"{}", "is malformed: 'format' is missing"),
        (b'{"format": "x"}', "is no silobench-transcript: its 'format' is \"x\""),
        (b'{"format": "silobench-transcript"}', "'version' is missing"),
        (
            b'{"format": "silobench-transcript", "version": 2}',
            "has version 2, .* reads version 1: upgrade",
        ),
        (b'{"format": "silobench-transcript", "version": 1}', "is malformed: 'public' is missing"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_manifest(tmp_path)


def test_a_folder_that_is_no_transcript_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError) as caught:
            read_manifest(folder)
        assert str(caught.value) == f"{folder} is no transcript: it has no manifest.json."


# -- arrays ----------------------------------------------------------------------------------------------------------


def npy(header: dict[str, Any], body: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + body


def raw(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(40)


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("a.npy", b"")
    return file.getvalue()


HOSTILE_ARRAYS = {
    "empty": b"",
    "text": b"hello",
    "a pickle": b"\x80\x04N.",
    "an archive": archive(),
    "cut short": npy({"descr": "<f4", "fortran_order": False, "shape": (10,)}, bytes(39)),
    "promises a terabyte": npy({"descr": "<f4", "fortran_order": False, "shape": (2**38,)}, bytes(40)),
    "objects": npy({"descr": "|O", "fortran_order": False, "shape": (10,)}, bytes(80)),
    "a negative shape": npy({"descr": "<f4", "fortran_order": False, "shape": (-10,)}, bytes(40)),
    "an open bracket": raw(b"{'descr': '<f4', 'fortran_order': False, 'shape': (10,"),
    "a type that is a tuple": raw(b"{'descr': ('<f4',), 'fortran_order': False, 'shape': (10,)}"),
    "a shape that is text": raw(b"{'descr': '<f4', 'fortran_order': False, 'shape': ('10',)}"),
    "a shape of 400 digits": raw(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,)}" % (b"9" * 400)),
    "brackets": raw(b"(" * 9000),
    "a version that nobody knows": b"\x93NUMPY\x09\x00" + bytes(100),
    "more than it promises": npy({"descr": "<f4", "fortran_order": False, "shape": (10,)}, bytes(44)),
    "another shape": npy({"descr": "<f4", "fortran_order": False, "shape": (2, 5)}, bytes(40)),
}


def test_an_array_is_mapped_and_can_t_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6, dtype=np.float32).reshape(2, 3))
    found = array(path, (2, 3), np.float32)
    assert isinstance(found, np.memmap)  # what a header promises is not allocated
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert array(path).shape == (2, 3)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


@pytest.mark.parametrize(
    ("shape", "dtype", "wanted"),
    [
        ((3, 2), None, "values (3, 2)"),
        (None, np.int64, "int64"),
        ((2, 3), np.float64, "float64 (2, 3)"),
        ((), None, "values ()"),
    ],
)
def test_another_array_than_is_expected_is_named_with_both(tmp_path: Path, shape: Any, dtype: Any, wanted: str) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError) as caught:
        array(path, shape, dtype)
    assert str(caught.value) == f"{path} holds float32 (2, 3), expected {wanted}."


@pytest.mark.parametrize("content", HOSTILE_ARRAYS.values(), ids=HOSTILE_ARRAYS.keys())
def test_a_hostile_array_is_refused_before_anything_is_allocated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"a\.npy .*\.$") as caught:
        array(path, (10,), np.float32)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    assert len(str(caught.value)) < 500


def test_an_array_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.npy is no readable \.npy file \("):
        array(tmp_path / "a.npy")
