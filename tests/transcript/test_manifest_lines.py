"""The lines of a transcript's messages as what they are: bytes from somebody else (``bench.transcript.manifest``)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.core.update import Layout
from bench.defense.channel import MAX_FRAME
from bench.defense.public import Public, alike
from bench.transcript import manifest
from bench.transcript.manifest import Line, message_lines

LAYOUT = Layout(("a", "b"), ((2, 3), (4,)))
SILOS = ("silo-0", "silo-1")
PUBLIC = Public(alike(LAYOUT), SILOS, {"silo-0": 1, "silo-1": 7}, 3, (SILOS, ("silo-1",), ()), 5)


FIRST = hashlib.sha256(b"first").hexdigest()


def message_of(**changes: Any) -> bytes:
    value = {"round": 0, "stage": "upload", "sender": "silo-0", "receivers": ["server"], "frames": [[0, 5, FIRST]]}
    return json.dumps({**value, **changes}).encode()


def line_of(round: int, stage: str, sender: str, receivers: tuple[str, ...], frames: Any) -> Line:
    return Line(round=round, stage=stage, sender=sender, receivers=receivers, frames=frames)


def read(path: Path, content: bytes, round: int = 0) -> list[Line]:
    path.write_bytes(content)
    return list(message_lines(path, round, PUBLIC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "messages.jsonl"


def test_lines_are_read_in_order(path: Path) -> None:
    more = message_of(stage="sum", sender="server", receivers=["silo-1", "public"], frames=[[5, 0, "x"], [5, 9, "y"]])
    assert read(path, message_of() + b"\n" + more) == [
        line_of(0, "upload", "silo-0", ("server",), ((0, 5, FIRST),)),
        line_of(0, "sum", "server", ("silo-1", "public"), ((5, 0, "x"), (5, 9, "y"))),
    ]
    assert read(path, message_of(round=-1, sender="dealer", frames=[]), -1) == [
        line_of(-1, "upload", "dealer", ("server",), ())
    ]
    assert read(path, b"") == []


def test_lines_are_read_one_at_a_time(path: Path) -> None:
    path.write_bytes(message_of() + b"\nno JSON")
    found = message_lines(path, 0, PUBLIC)
    assert next(found).sender == "silo-0"
    with pytest.raises(UsageError, match="line 2"):
        next(found)


def test_bounds_themselves_are_accepted(path: Path) -> None:
    (line,) = read(path, message_of(frames=[[manifest.MAX_OFFSET, MAX_FRAME, ""]]))
    assert line.frames == ((2**43, 64 * 2**20, ""),)


def test_a_file_that_cannot_be_read_is_a_sentence(path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        list(message_lines(path, 0, PUBLIC))
    assert str(caught.value) == f"{path} can't be read (No such file or directory)."


HOSTILE_LINES = {
    "no JSON": b"{",
    "no UTF-8": b'{"round": "\xff"}',
    "no object": b"[]",
    "a number": b"7",
    "too deep": b"[" * 100_000,
    "empty": b"{}",
    "a blank line": b"\n" + message_of(),
    "another round": message_of(round=1),
    "a round that is no number": message_of(round="0"),
    "an infinite round": message_of(round=float("inf")),
    "a huge round": message_of(round=10**300),
    "an unknown sender": message_of(sender="silo-2"),
    "a sender that is a path": message_of(sender="../../etc"),
    "a sender that is a list": message_of(sender=["silo-0"]),
    "a public sender": message_of(sender="public"),
    "an unknown receiver": message_of(receivers=["server", "mallory"]),
    "a receiver twice": message_of(receivers=["server", "server"]),
    "receivers that are no list": message_of(receivers=5),
    "receivers that are lists": message_of(receivers=[["server"]]),
    "a stage that is no string": message_of(stage=3),
    "frames that are a string": message_of(frames="abc"),
    "frames that are an object": message_of(frames={"abc": 1}),
    "frames that are an empty object": message_of(frames={}),
    "no field": json.dumps({"round": 0, "stage": "upload", "sender": "silo-0", "receivers": []}).encode(),
    "an unknown field": message_of(size=5),
    "a party by another name": message_of(sender="silo-00"),
    "a party in another script": message_of(sender="silo-\u00b2"),
    "a round out of range": message_of().replace(b'"round": 0', b'"round": 1e999'),
    "a round of 5,000 digits": message_of().replace(b'"round": 0', b'"round": ' + b"9" * 5000),
    "half a surrogate pair": message_of(stage="\ud800"),
    "a frame of two fields": message_of(frames=[[0, 5]]),
    "a negative offset": message_of(frames=[[-1, 5, ""]]),
    "an offset past all files": message_of(frames=[[2**63 - 1, 5, ""]]),
    "an infinite offset": message_of(frames=[[float("inf"), 5, ""]]),
    "a fractional length": message_of(frames=[[0, 0.5, ""]]),
    "a true length": message_of(frames=[[0, True, ""]]),
    "a negative length": message_of(frames=[[0, -5, ""]]),
    "a length past the bound": message_of(frames=[[0, MAX_FRAME + 1, ""]]),
}


@pytest.mark.parametrize("line", HOSTILE_LINES.values(), ids=HOSTILE_LINES.keys())
def test_a_hostile_message_is_refused_with_its_line(path: Path, line: bytes) -> None:
    with pytest.raises(UsageError, match=r"messages\.jsonl line 2 is (malformed|not valid JSON)") as caught:
        read(path, message_of() + b"\n" + line + b"\n")
    assert len(str(caught.value)) < 1000


def test_a_message_of_another_round_is_refused_with_both(path: Path) -> None:
    says = r"line 1 is malformed: 'round' is 1, and the folder is that of round 0\.$"
    with pytest.raises(UsageError, match=says):
        read(path, message_of(round=1))


def test_more_frames_than_a_message_may_have_are_refused(path: Path) -> None:
    most = manifest.MAX_FRAMES_PER_MESSAGE
    frames = b",".join([b'[0,0,""]'] * (most + 1))
    line = message_of(frames=["all"]).replace(b'"all"', frames)
    says = rf"line 1 is malformed: 'frames' should have at most {most} items, not "
    with pytest.raises(UsageError, match=says):
        read(path, line)


def test_a_line_of_more_bytes_than_any_message_needs_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = message_of(stage="s" * 50) + b"\n"
    monkeypatch.setattr(manifest, "MAX_LINE", len(long))
    assert len(read(path, message_of() + b"\n" + long)) == 2
    monkeypatch.setattr(manifest, "MAX_LINE", len(long) - 1)
    with pytest.raises(UsageError, match=f"line 2 is malformed: the line has more than {len(long) - 1} bytes"):
        read(path, message_of() + b"\n" + long)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from(["round", "stage", "sender", "receivers", "frames"]), value=json_values)
@settings(max_examples=60, deadline=None)
def test_any_field_of_a_message_may_be_hostile(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.jsonl"
    try:
        found = read(path, message_of(**{field: value}))
    except UsageError:
        return
    assert all(isinstance(line, Line) and line.round == 0 for line in found)
    assert {party for m in found for party in (m.sender, *m.receivers)} <= {*SILOS, "server", "dealer", "public"}
