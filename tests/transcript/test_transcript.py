"""The transcript: what is sent is read, rounds count whole or not at all, and damage is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Layout
from bench.defense.public import Layouts, Public, alike
from bench.spec.run import FederationSpec
from bench.transcript import transcript as module
from bench.transcript.transcript import RoundWriter, Transcript
from tests.federation.fakes import make_setup, run

LAYOUT = Layout(("a", "b"), ((2, 3), (4,)))
SILOS = ("silo-0", "silo-1")
PUBLIC = Public(alike(LAYOUT), SILOS, dict.fromkeys(SILOS, 1), 3, (SILOS,) * 3)
INITIAL = np.arange(10, dtype=np.float32)
FRAMES = (b"first", b"", b"third frame")


def create(root: Path) -> Transcript:
    return Transcript.create(root, PUBLIC, INITIAL, {"task": "notes"})


def fill(writer: RoundWriter) -> RoundWriter:
    """One message, one truth, one secret: something in each of the three folders."""
    writer.send("upload", "silo-0", ("server",), FRAMES)
    writer.send("sum", "server", (*SILOS, "public"), (b"sum %d" % writer.round,))
    writer.save_truth("adapter", INITIAL + writer.round)
    writer.save_note("training", {"silo-0": {"steps": 1, "tokens": 2, "losses": [float("nan")], "batches": [[0]]}})
    folder = writer.parts["secrets"] / "silo-0" / "keys"
    folder.mkdir(parents=True)
    np.save(folder / f"r{writer.round + 1}.npy", np.array([writer.round + 1], dtype=np.uint8))
    return writer


@pytest.fixture
def written(tmp_path: Path) -> Transcript:
    """Set-up and one round, committed."""
    transcript = create(tmp_path / "t")
    for round in (-1, 0):
        fill(transcript.begin(round)).commit()
    return transcript


def lines(transcript: Transcript, round: int = 0) -> Path:
    return transcript.root / "rounds" / module.slot(round) / "messages.jsonl"


def frames(transcript: Transcript, round: int = 0) -> Path:
    return transcript.root / "rounds" / module.slot(round) / "frames.bin"


# -- what is written is read ---------------------------------------------------------------------------------------


def test_what_was_sent_is_read_back(written: Transcript) -> None:
    again = Transcript(written.root)
    assert again.public == PUBLIC
    assert again.manifest["spec"] == {"task": "notes"}
    np.testing.assert_array_equal(again.initial_adapter(), INITIAL)
    assert again.committed() == 0
    sent = list(again.messages())
    assert [(m.round, m.stage, m.sender, m.receivers) for m in sent] == [
        (round, *rest)
        for round in (-1, 0)
        for rest in (("upload", "silo-0", ("server",)), ("sum", "server", (*SILOS, "public")))
    ]
    assert tuple(sent[2].frames()) == FRAMES
    assert sent[2].frame(2) == FRAMES[2]
    assert (sent[2].lengths, sent[2].size) == ((5, 0, 11), 16)
    assert [m.frame(0) for m in again.messages([0])] == [b"first", b"sum 0"]


def test_truth_and_secrets_are_read_back(written: Transcript) -> None:
    truth = written.truth(0, "adapter")
    assert isinstance(truth, np.memmap)  # mapped: what a header promises is not allocated
    np.testing.assert_array_equal(truth, INITIAL)
    assert written.truth(0, "silo-1") is None
    (note,) = written.training(0).values()  # whose losses are NaN: it diverged
    assert (note.steps, note.tokens, note.batches, note.mechanisms, note.bound) == (1, 2, ((0,),), (), None)
    assert written.training(7) == {}
    assert {name: list(value) for name, value in written.keys("silo-0").items()} == {"r0": [0], "r1": [1]}
    assert written.keys("silo-1") == {}
    np.testing.assert_array_equal(written.final_adapter(), INITIAL)


def test_a_transcript_without_secrets_and_truth_still_reads(written: Transcript) -> None:
    for name in ("secrets", "truth"):
        (written.root / name).rename(written.root.parent / name)
    again = Transcript(written.root)
    assert again.committed() == 0
    assert again.keys("silo-0") == {}
    assert again.truth(0, "adapter") is None
    assert len(list(again.messages())) == 4


@given(sent=st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_frames_survive(sent: list[list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> None:
    transcript = create(tmp_path_factory.mktemp("t"))
    writer = transcript.begin(-1)
    live = [writer.send("s", "silo-0", ("server",), iter(message)) for message in sent]
    assert [list(message.frames()) for message in live] == sent
    writer.commit()
    assert [list(message.frames()) for message in transcript.messages()] == sent


def test_frames_are_written_one_by_one(tmp_path: Path) -> None:
    writer = create(tmp_path / "t").begin(-1)
    path = writer.parts["rounds"] / "frames.bin"
    alive: list[int] = []

    def produce() -> Any:
        for number in range(3):
            writer._frames.flush()
            alive.append(path.stat().st_size)
            yield bytes(1000 * (number + 1))

    writer.send("upload", "silo-0", ("server",), produce())
    assert alive == [0, 1000, 3000]


def test_a_frame_may_not_exceed_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAME", 100)
    writer = create(tmp_path / "t").begin(-1)
    writer.send("upload", "silo-0", ("server",), (bytes(100),))
    with pytest.raises(SiloBenchError, match="silo-1 sent 101 bytes in a frame"):
        writer.send("upload", "silo-1", ("server",), (bytes(101),))


# -- a round counts whole or not at all ----------------------------------------------------------------------------


def test_a_round_that_was_not_committed_never_happened(written: Transcript) -> None:
    fill(written.begin(1))
    again = Transcript(written.root)
    assert again.committed() == 0
    assert len(list(again.messages())) == 4
    assert again.truth(1, "adapter") is None
    assert set(again.keys("silo-0")) == {"r0", "r1"}


def test_an_abandoned_round_leaves_nothing(written: Transcript) -> None:
    before = sorted(written.root.rglob("*"))
    fill(written.begin(1)).abandon()
    assert sorted(written.root.rglob("*")) == before


def test_a_round_begun_again_holds_nothing_of_the_first_attempt(written: Transcript) -> None:
    first = fill(written.begin(1))
    first.send("upload", "silo-1", ("server",), (b"of the first attempt",))
    first.save_truth("silo-1", INITIAL)
    second = fill(written.begin(1))
    second.commit()
    assert [m.sender for m in written.messages([1])] == ["silo-0", "server"]
    assert written.truth(1, "silo-1") is None
    assert b"first attempt" not in frames(written, 1).read_bytes()


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_interrupted_between_the_renames_the_round_does_not_count(
    written: Transcript, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    writer = fill(written.begin(1))
    done: list[Path] = []
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        writer.commit()
    monkeypatch.undo()
    again = Transcript(written.root)
    assert again.committed() == 0
    # keys of a round that never happened are nobody's
    assert set(again.keys("silo-0")) == {"r0", "r1"}
    np.testing.assert_array_equal(again.final_adapter(), INITIAL)
    fill(again.begin(1)).commit()
    assert again.committed() == 1
    np.testing.assert_array_equal(again.final_adapter(), INITIAL + 1)
    assert not list(written.root.rglob("*.partial"))


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from tests.transcript.test_transcript import fill
    from bench.transcript.transcript import Transcript
    left = int(sys.argv[2])

    def killing(call):
        def wrapped(*arguments, **named):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)
        return wrapped

    Path.rename, Path.mkdir, Path.write_text = map(killing, (Path.rename, Path.mkdir, Path.write_text))
    fill(Transcript(Path(sys.argv[1])).begin(1)).commit()
"""


@pytest.mark.parametrize("operations", [0, 2, 5, 6, 7, 8])
def test_killed_at_any_moment_no_finished_round_is_lost(written: Transcript, operations: int) -> None:
    """SIGKILL before the n-th rename, mkdir or write of a round; the next process finds round 0 and does round 1."""
    before = [tuple(message.frames()) for message in written.messages()]
    repository = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(written.root), str(operations), repository]
    done = subprocess.run(command, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == -signal.SIGKILL
    again = Transcript(written.root)
    assert again.committed() == 0
    assert [tuple(message.frames()) for message in again.messages()] == before
    fill(again.begin(1)).commit()
    assert again.committed() == 1
    assert len(list(again.messages())) == 6


@pytest.mark.parametrize("part", ["secrets", "truth", "rounds"])
@pytest.mark.parametrize("round", [-1, 1])
def test_a_federation_killed_between_the_renames_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, round: int
) -> None:
    """The state that the killed round had already written counts no more than its messages do."""
    federation = FederationSpec(silos=2, rounds=3)
    expected = run(tmp_path / "whole", make_setup(federation)).final_adapter()
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.parent.name == part and self.name == f"{module.slot(round)}.partial":
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(Killed):
        run(tmp_path / "killed", make_setup(federation))
    monkeypatch.undo()
    assert Transcript(tmp_path / "killed").committed() == round - 1
    again = run(tmp_path / "killed", make_setup(federation))
    np.testing.assert_array_equal(again.final_adapter(), expected)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_the_manifest_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "t")
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"is no transcript: it has no manifest\.json"):
        Transcript(tmp_path / "t")
    assert create(tmp_path / "t").committed() == -2


# -- thinning ------------------------------------------------------------------------------------------------------


def test_a_thinned_round_keeps_lengths_and_says_that_its_bytes_are_gone(written: Transcript) -> None:
    assert written.frames_size(0) == 16 + len(b"sum 0")
    written.drop_frames(0)
    written.drop_frames(0)
    assert written.frames_size(0) == 0
    kept, thinned = list(written.messages([-1])), list(written.messages([0]))
    assert [m.thinned for m in (*kept, *thinned)] == [False, False, True, True]
    assert thinned[0].lengths == (5, 0, 11)
    with pytest.raises(SiloBenchError, match="round 0 were dropped to hold the disk budget"):
        thinned[0].frame(0)
    assert written.committed() == 0


# -- damaged and hostile -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 4, 5, 15])
def test_an_altered_byte_is_noticed(written: Transcript, where: int) -> None:
    data = bytearray(frames(written).read_bytes())
    data[where] ^= 1
    frames(written).write_bytes(data)
    (message, _) = written.messages([0])
    with pytest.raises(SiloBenchError, match=r"frames\.bin is damaged"):
        list(message.frames())


def test_cut_short_is_noticed(written: Transcript) -> None:
    frames(written).write_bytes(frames(written).read_bytes()[:10])
    message = next(iter(written.messages([0])))
    assert message.frame(0) == b"first"
    with pytest.raises(SiloBenchError, match="is damaged"):
        message.frame(2)


def test_a_frame_that_lies_in_another_place_is_noticed(written: Transcript) -> None:
    value = [json.loads(line) for line in lines(written).read_text().splitlines()]
    value[0]["frames"][0][0], value[0]["frames"][2][0] = 11, 0
    lines(written).write_text("\n".join(map(json.dumps, value)))
    with pytest.raises(SiloBenchError, match="is damaged"):
        next(iter(written.messages([0]))).frame(0)


def test_an_offset_past_the_end_is_damage_not_a_crash(written: Transcript) -> None:
    value = json.loads(lines(written).read_text().splitlines()[0])
    value["frames"] = [[2**43, 5, "0" * 64], [2**40, 0, "0" * 64]]
    lines(written).write_text(json.dumps(value))
    (message,) = written.messages([0])
    for index in (0, 1):
        with pytest.raises(SiloBenchError, match="is damaged"):
            message.frame(index)


def test_layouts_of_summand_adapter_and_state_come_back(tmp_path: Path) -> None:
    adapter = Layout(("a", "b"), ((2,), (3,)))
    summand, state = Layout(("s",), ((7, 2),)), Layout(("a", "b", "c"), ((2,), (3,), (4,)))
    public = Public(Layouts(adapter, summand, state), SILOS, dict.fromkeys(SILOS, 1), 1, (SILOS,))
    transcript = Transcript.create(tmp_path, public, np.zeros(9, np.float32), {})
    assert Transcript(tmp_path).public == public
    writer = transcript.begin(-1)
    for name, size in (("adapter", 9), ("silo-0", 14), ("own-silo-0", 5)):
        writer.save_truth(name, np.zeros(size, np.float32))
    writer.save_truth("silo-1", np.zeros(9, np.float32))
    writer.commit()
    found = {name: transcript.truth(-1, name) for name in ("adapter", "silo-0", "own-silo-0")}
    assert {name: values is not None and len(values) for name, values in found.items()} == {
        "adapter": 9,
        "silo-0": 14,
        "own-silo-0": 5,
    }
    with pytest.raises(UsageError):
        transcript.truth(-1, "silo-1")  # a state's size, and no summand's


def test_a_malformed_file_is_refused_where_it_is_read(written: Transcript) -> None:
    """What is malformed in each is the business of ``test_manifest``."""
    lines(written).write_bytes(lines(written).read_bytes() + b"{}\n")
    with pytest.raises(UsageError, match=r"messages\.jsonl line 3 is malformed"):
        list(written.messages())
    (written.root / "initial.npy").write_bytes(b"")
    (written.root / "truth" / module.slot(0) / "adapter.npy").write_bytes(b"")
    with pytest.raises(UsageError, match=r"initial\.npy"):
        written.initial_adapter()
    with pytest.raises(UsageError, match=r"adapter\.npy"):
        written.truth(0, "adapter")
    (written.root / "manifest.json").write_bytes(b"{}")
    with pytest.raises(UsageError, match=r"manifest\.json"):
        Transcript(written.root)


@pytest.mark.parametrize("bad", [[3, 2], [0, 0], [-1, 2], [0, LAYOUT.size], [[1, 2]]])
def test_a_stored_support_is_checked(written: Transcript, bad: Any) -> None:
    path = written.root / "rounds" / module.slot(0) / "support.npy"
    assert written.support(0) is None
    np.save(path, np.array([0, LAYOUT.size - 1]))
    assert [0, LAYOUT.size - 1] == list(written.support(0))  # type: ignore[arg-type]
    np.save(path, np.array(bad, dtype=np.int64))
    with pytest.raises(UsageError, match=r"support\.npy"):
        written.support(0)


def test_the_initial_adapter_is_float32(written: Transcript) -> None:
    np.save(written.root / "initial.npy", INITIAL.astype(np.float64))
    with pytest.raises(UsageError, match=r"holds float64 \(10,\), expected float32 \(10,\)"):
        written.initial_adapter()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_hostile_training_notes_are_refused(written: Transcript, content: bytes) -> None:
    (written.root / "truth" / module.slot(0) / "training.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"training\.json"):
        written.training(0)
