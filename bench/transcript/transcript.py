"""What was sent: a versioned directory that is written as the federation goes and read lazily afterwards.

    DIR/manifest.json                 format, version, Public, spec without seeds
    DIR/initial.npy                   the initial global adapter (public to the federation)
    DIR/rounds/NNNN/messages.jsonl    a line per message: round, stage, sender, receivers, frames
    DIR/rounds/NNNN/frames.bin        the frames' bytes (absent where thinned)
    DIR/rounds/NNNN/support.npy       the public support of the round's summands (absent where dense)
    DIR/secrets/NNNN/PARTY/KEY.npy    party states written in that round (optional; entries under keys/ are secrets)
    DIR/truth/NNNN/...                summands, the global adapter after the round, training.json (optional)

NNNN is the round + 1, so 0000 is set-up. A round is written to ``*.partial`` directories and committed by renaming
``rounds/NNNN`` last: what is not renamed never happened.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError, UsageError
from bench.core.files import opened, private_folder, writing
from bench.core.npy import save
from bench.defense.channel import MAX_FRAME
from bench.defense.public import Public
from bench.spec.foreign import read
from bench.transcript import manifest as files

#: what only the owner of a transcript can open
PRIVATE = ("secrets", "truth")


@dataclass(frozen=True)
class Frame:
    """Where a frame lies in ``frames.bin``: offset and length in bytes, and the SHA-256 of its contents."""

    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class StoredMessage:
    """A message on disk; satisfies ``bench.defense.channel.Message``."""

    round: int
    stage: str
    sender: str
    receivers: tuple[str, ...]
    index: tuple[Frame, ...]
    path: Path
    check: bool = True  # False for bytes that this very process has just written

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(frame.length for frame in self.index)

    @property
    def size(self) -> int:
        """Bytes of all frames, once."""
        return sum(self.lengths)

    @property
    def thinned(self) -> bool:
        """True where the bytes were dropped to hold the disk budget."""
        return not self.path.exists()

    def frame(self, index: int) -> bytes:
        """One frame's bytes. Raises SiloBenchError where thinned, cut short or altered."""
        entry = self.index[index]
        if self.thinned:
            raise SiloBenchError(f"the frames of round {self.round} were dropped to hold the disk budget")
        with self.path.open("rb") as file:
            return _read(file, entry, self.path, self.check)

    def frames(self) -> Iterator[bytes]:
        for i in range(len(self.index)):
            yield self.frame(i)


def _read(file: BinaryIO, entry: Frame, path: Path, check: bool) -> bytes:
    file.seek(entry.offset)
    data = file.read(entry.length)
    if len(data) != entry.length or (check and hashlib.sha256(data).hexdigest() != entry.sha256):
        raise SiloBenchError(f"{path} is damaged: a frame's length or SHA-256 does not match messages.jsonl")
    return data


def slot(round: int) -> str:
    """The directory name of a round (-1 is set-up)."""
    return f"{round + 1:04d}"


class RoundWriter:
    """One round being written. ``send`` stores a message's frames one by one as they are produced."""

    def __init__(self, root: Path, round: int) -> None:
        self.round = round
        self.parts = {name: root / name / f"{slot(round)}.partial" for name in ("rounds", "secrets", "truth")}
        for path in self.parts.values():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        for name in PRIVATE:
            private_folder(self.parts[name], root)
        self._frames = (self.parts["rounds"] / "frames.bin").open("wb")
        self._lines: list[dict[str, Any]] = []

    def send(self, stage: str, sender: str, receivers: Sequence[str], frames: Iterable[bytes]) -> StoredMessage:
        index: list[Frame] = []
        path = Path(self._frames.name)
        for frame in frames:
            if len(frame) > MAX_FRAME:
                raise SiloBenchError(
                    f"{sender} sent {len(frame)} bytes in a frame ('{stage}'); the most is {MAX_FRAME}"
                )
            index.append(Frame(self._frames.tell(), len(frame), hashlib.sha256(frame).hexdigest()))
            with writing(path):
                self._frames.write(frame)
                self._frames.flush()
        message = StoredMessage(self.round, stage, sender, tuple(receivers), tuple(index), path, check=False)
        self._lines.append(
            {
                "round": self.round,
                "stage": stage,
                "sender": sender,
                "receivers": list(receivers),
                "frames": [[f.offset, f.length, f.sha256] for f in index],
            }
        )
        return message

    def save_truth(self, name: str, values: NDArray[Any]) -> None:
        save(self.parts["truth"] / f"{name}.npy", values, private=True)

    def save_support(self, support: NDArray[np.int64]) -> None:
        save(self.parts["rounds"] / "support.npy", support)

    def save_note(self, name: str, value: dict[str, Any]) -> None:
        """Keep with the truth what the harness noted: "training", "sums" or "harness"."""
        with opened(self.parts["truth"] / f"{name}.json", private=True) as file:
            file.write(json.dumps(value).encode())

    def commit(self) -> None:
        """Make the round count: rename secrets and truth, then the messages."""
        with writing(Path(self._frames.name)):
            self._frames.close()
        with opened(self.parts["rounds"] / "messages.jsonl") as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in self._lines)
        for name in ("secrets", "truth", "rounds"):
            final = self.parts[name].with_suffix("")
            shutil.rmtree(final, ignore_errors=True)
            self.parts[name].rename(final)

    def abandon(self) -> None:
        self._frames.close()
        for path in self.parts.values():
            shutil.rmtree(path, ignore_errors=True)


class Transcript:
    """A transcript directory, complete or growing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        manifest = files.read_manifest(root)
        self.manifest, self.public = dict(manifest), manifest.public.public()

    @classmethod
    def create(cls, root: Path, public: Public, initial: NDArray[np.float32], spec: dict[str, Any]) -> Transcript:
        """Start an empty transcript. ``spec`` must hold no seed."""
        root.mkdir(parents=True, exist_ok=True)
        save(root / "initial.npy", initial)
        manifest = {"format": files.FORMAT, "version": files.VERSION, "public": files.public_json(public), "spec": spec}
        temporary = root / "manifest.json.partial"
        with opened(temporary) as file:
            file.write(json.dumps(manifest, indent=1).encode())
        temporary.rename(root / "manifest.json")
        return cls(root)

    def initial_adapter(self) -> NDArray[np.float32]:
        return np.array(files.array(self.root / "initial.npy", (self.public.state.size,), np.float32))

    def committed(self) -> int:
        """Index of the last committed round: -1 after set-up only, -2 where nothing was committed."""
        last = -2
        while (self.root / "rounds" / slot(last + 1) / "messages.jsonl").exists():
            last += 1
        return last

    def discard_uncommitted(self) -> None:
        """Remove what a killed process left of a round that does not count, its secrets and truth included."""
        counted = {slot(round) for round in range(-1, self.committed() + 1)}
        for part in ("rounds", "secrets", "truth"):
            for path in list((self.root / part).glob("[0-9]*")):
                if path.name not in counted:
                    shutil.rmtree(path)

    def begin(self, round: int) -> RoundWriter:
        return RoundWriter(self.root, round)

    def messages(self, rounds: Iterable[int] | None = None) -> Iterator[StoredMessage]:
        """All committed messages in the order they were sent."""
        for round in rounds if rounds is not None else range(-1, self.committed() + 1):
            directory = self.root / "rounds" / slot(round)
            for line in files.message_lines(directory / "messages.jsonl", round, self.public):
                index = tuple(Frame(*entry) for entry in line.frames)
                frames = directory / "frames.bin"
                yield StoredMessage(line.round, line.stage, line.sender, line.receivers, index, frames)

    def keys(self, party: str) -> dict[str, NDArray[np.uint8]]:
        """A party's secrets of committed rounds (state entries under ``keys/``), names without the prefix."""
        found: dict[str, NDArray[np.uint8]] = {}
        for round in range(-1, self.committed() + 1):
            base = self.root / "secrets" / slot(round) / party / "keys"
            for path in sorted(base.rglob("*.npy")):
                found[path.relative_to(base).with_suffix("").as_posix()] = files.array(path)
        return found

    def support(self, round: int) -> NDArray[np.int64] | None:
        """The public support of a round's summands (sorted indices into their layout), or None where they are dense.
        Raises UsageError where the file holds anything else."""
        path = self.root / "rounds" / slot(round) / "support.npy"
        if not path.exists():
            return None
        found = np.array(files.array(path, dtype=np.int64))
        if found.ndim != 1 or (np.diff(found) <= 0).any() or found.min(initial=0) < 0:
            raise UsageError(f"{path} holds no sorted indices.")
        if found.max(initial=-1) >= self.public.layout.size:
            raise UsageError(f"{path} points outside a summand's {self.public.layout.size} values.")
        return found

    def truth(self, round: int, name: str) -> NDArray[Any] | None:
        """``"adapter"``: the global adapter after the round; a silo's name: its summand; ``"own-"`` and its name: the
        adapter that it trained, where some of its values are its own. None where not stored."""
        path = self.root / "truth" / slot(round) / f"{name}.npy"
        if not path.exists():
            return None
        layout = self.public.state if name == "adapter" else self.public.layout
        return files.array(path, ((self.public.adapter if name.startswith("own-") else layout).size,))

    def training(self, round: int) -> dict[str, files.TrainingNote]:
        """Per silo what its trainer did in this round. Empty where not stored."""
        return read(dict[str, files.TrainingNote], self._note(round, "training")) or {}

    def sums(self, round: int) -> tuple[files.SumNote, ...]:
        """The sums that were opened in this round (or late, of an earlier one). Empty where not stored."""
        return (read(files.SumNotes, self._note(round, "sums")) or files.SumNotes(sums=())).sums

    def harness_notes(self, round: int) -> dict[str, Any]:
        """What the harness must know to go on after this round: undelivered messages, phases measured so far."""
        return (read(files.HarnessNotes, self._note(round, "harness")) or files.HarnessNotes()).model_dump()

    def _note(self, round: int, name: str) -> Path:
        return self.root / "truth" / slot(round) / f"{name}.json"

    def frames_size(self, round: int) -> int:
        """Bytes of the round's frames on disk; 0 where thinned."""
        path = self.root / "rounds" / slot(round) / "frames.bin"
        return path.stat().st_size if path.exists() else 0

    def drop_frames(self, round: int) -> None:
        """Thin a round: its messages' headers and lengths stay, their bytes go."""
        (self.root / "rounds" / slot(round) / "frames.bin").unlink(missing_ok=True)

    def final_adapter(self) -> NDArray[np.float32]:
        """The global adapter after the last committed round (truth)."""
        last = self.committed()
        values = self.truth(last, "adapter") if last >= 0 else None
        return self.initial_adapter() if values is None else np.asarray(values)
