"""The store: run directories, the game's plantings, results and their scores, in one folder.

    ROOT/store.json            which layout this is
    ROOT/runs/<run>/           spec.json (and what made it), run.json (utility, cost), transcript/, views/
    ROOT/plantings/<id>.json   the game's secret, drawn once per task, partition and seed
    ROOT/results/<id>.json     one Result each; results/old/ keeps what a later one superseded
    ROOT/scores/<sha256>.json  canonical scores, from which ``bench verify`` recomputes the leakage
    ROOT/details/<sha256>.json private, for the scores of that name: the texts of a reconstruction's records and guesses
    ROOT/sources/<sha256>.json the parts of a result's fingerprint, by that name: they say what changed since
    ROOT/locks/                ``bench.store.locks``

Every file is written whole (``bench.core.files``), so a killed process leaves the old file or the new one. Nothing is
created before the first write.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bench.core.errors import UsageError
from bench.core.files import read_bytes, read_text, write_text, writing
from bench.core.held import sweep
from bench.spec.canonical import sha256
from bench.spec.config import canonical_json
from bench.spec.foreign import Foreign, Json, parsed
from bench.spec.result import NewerSchema, Result
from bench.store.locks import Holder, Locks

T = TypeVar("T")
DEFAULT = Path(".silobench")
#: raised when what is written below is not what was before; 1 had no marker
LAYOUT = 2
_MARKER = "store.json"
_COMPUTING = Holder("computing it")
_ID = re.compile(r"[0-9a-f]{8,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Store:
    """A store at ``root``, else at ``$SILOBENCH_STORE``, else at ``./.silobench``.

    Every method raises UsageError, naming the file, where the disk is full, a folder is unusable or a file is damaged,
    and on an id that is not lower-case hexadecimal (before any path is touched).
    """

    def __init__(self, root: Path | None = None, *, any_layout: bool = False) -> None:
        """``any_layout``: don't refuse a store of another layout, to look at it only (``refuse_other_layouts``)."""
        self.root = Path(root or os.environ.get("SILOBENCH_STORE") or DEFAULT)
        self._swept = False
        self._locks = Locks(self.root / "locks")
        if not any_layout:
            self.refuse_other_layouts()

    def refuse_other_layouts(self) -> None:
        """Raises UsageError where this store is not of ``LAYOUT``: an earlier one has no marker, a later one another
        number."""
        known = _read(_Marker, self.root / _MARKER, self.root)
        if known is None and not any((self.root / name).is_dir() for name in ("runs", "results")):
            return
        found = 1 if known is None else known.layout
        if found != LAYOUT:
            what = "an earlier" if found < LAYOUT else "a later"
            todo = "move it away and run again" if found < LAYOUT else "upgrade silobench"
            raise UsageError(
                f"The store {self.root} is of {what} layout ({found!r:.20}; this silobench keeps {LAYOUT}): {todo}, or "
                "name another store with --store."
            )

    def _mark(self) -> None:
        """Say which layout this is, before anything else is written; and once, remove what killed processes left."""
        if not self._swept:
            self._swept = True
            for name in ("runs", "plantings", "results", "results/old", "scores", "details", "sources", "locks"):
                sweep(self.root / name)
        if not (self.root / _MARKER).exists():
            write_text(self.root / _MARKER, canonical_json({"format": "silobench-store", "layout": LAYOUT}))

    # -- runs ------------------------------------------------------------------------------------------------------

    def run_dir(self, run_id: str) -> Path:
        """The directory of one run (not created)."""
        return self.root / "runs" / _valid(run_id)

    def runs(self) -> Iterator[str]:
        """Ids of all runs, sorted."""
        folder = self.root / "runs"
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        return (name for name in names if _ID.fullmatch(name))

    @contextmanager
    def lock(
        self,
        run_id: str,
        holder: Holder = _COMPUTING,
        waiting: Callable[[Holder | None], None] | None = None,
    ) -> Iterator[Path]:
        """Hold a run alone, and get its directory (created).

        Raises Taken, naming the run and its holder, where another process has it and ``waiting`` is None; else
        ``waiting`` is told for whom, and whoever calls waits and must hold no other lock.
        """
        taken = f"Run {_valid(run_id)} in the store {self.root} is held by another process"
        self._mark()
        with self._locks.held(run_id, holder, taken, waiting):
            directory = self.run_dir(run_id)
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            yield directory

    @contextmanager
    def _planting_held(self, planting_id: str) -> Iterator[None]:
        name = f"planting-{_valid(planting_id)}"
        self._mark()
        with self._locks.held(name, Holder("drawing a planting"), "", lambda holder: None):
            yield

    def discard_run(self, run_id: str) -> None:
        """Remove a run's directory, for ``--refresh``; the caller holds its lock. It goes at once, by a rename."""
        directory = self.run_dir(run_id)
        with writing(directory):
            if directory.exists():
                directory.rename(directory.with_name(f"{run_id}.{secrets.token_hex(4)}.partial"))
            for gone in directory.parent.glob(f"{run_id}.*.partial"):
                shutil.rmtree(gone, ignore_errors=True)  # another process may be sweeping it

    def save_spec(self, run_id: str, value: Mapping[str, Any]) -> None:
        """Write ``spec.json`` of a run; anything that ``canonical_json`` takes."""
        write_text(self.run_dir(run_id) / "spec.json", canonical_json(value))

    def spec(self, run_id: str) -> dict[str, Any] | None:
        return self._object(self.run_dir(run_id) / "spec.json")

    def save_summary(self, run_id: str, value: Mapping[str, Any]) -> None:
        """Write ``run.json``: utility, cost and training of a finished run."""
        write_text(self.run_dir(run_id) / "run.json", canonical_json(value))

    def summary(self, run_id: str) -> dict[str, Any] | None:
        """``run.json``, or None where the run has not finished."""
        return self._object(self.run_dir(run_id) / "run.json")

    def discard_summary(self, run_id: str) -> None:
        """Forget ``run.json``, so that the finished training is measured again; the caller holds the run's lock."""
        (self.run_dir(run_id) / "run.json").unlink(missing_ok=True)

    def _object(self, path: Path) -> dict[str, Any] | None:
        return _read(dict[str, Json], path, path.parent)

    # -- plantings -------------------------------------------------------------------------------------------------

    def planting(self, planting_id: str) -> str | None:
        """The text of a planting, or None."""
        return read_text(self._planting(planting_id))

    def save_planting(self, planting_id: str, text: str) -> None:
        """Keep a planting. Raises UsageError where another one has that id: a planting is never drawn twice."""
        with self._planting_held(planting_id):
            self._keep_planting(planting_id, text, "it was drawn a second time")

    def draw_planting(self, planting_id: str, draw: Callable[[], str]) -> str:
        """The stored planting; where there is none, the one that ``draw`` returns, kept. One caller at a time draws."""
        with self._planting_held(planting_id):
            text = self.planting(planting_id)
            if text is None:
                text = draw()
                self._keep_planting(planting_id, text, "")
            return text

    def adopt(self, folder: Path, planting_ids: Iterable[str] | None = None) -> tuple[str, ...]:
        """Take over committed plantings (``leaderboards/plantings``), so that new rows pair with committed ones.

        Returns the ids that were new here. ``planting_ids``: only these. Raises UsageError where the store has drawn a
        different planting under one of the ids.
        """
        known = sorted(path.stem for path in folder.glob("*.json") if _ID.fullmatch(path.stem))
        wanted = known if planting_ids is None else sorted(set(known) & {_valid(i) for i in planting_ids})
        adopted = []
        for planting_id in wanted:
            text = read_text(folder / f"{planting_id}.json")
            if text is None or text == self.planting(planting_id):
                continue
            with self._planting_held(planting_id):
                self._keep_planting(
                    planting_id, text, f"{folder} holds another one, and rows of the two can't be paired"
                )
            adopted.append(planting_id)
        return tuple(adopted)

    def _planting(self, planting_id: str) -> Path:
        return self.root / "plantings" / f"{_valid(planting_id)}.json"

    def _keep_planting(self, planting_id: str, text: str, reason: str) -> None:
        path, former = self._planting(planting_id), self.planting(planting_id)
        if former is None:
            write_text(path, text, private=True)
        elif former != text:
            raise UsageError(f"{path} is kept as it is ({reason}): choose another store with --store.")

    # -- results and scores ----------------------------------------------------------------------------------------

    def save_result(self, result: Result) -> Result:
        """Keep a result, and return it as it is stored.

        Where its id has a result with other contents, the new one says which it ``supersedes`` (SHA-256 of the former's
        canonical text), and the former is kept in ``results/old``.
        """
        path = self._result(result.result)
        self._mark()
        former = self.result(result.result)
        if former is not None:
            if same(former, result):
                return former
            replaced = sha256(former.to_json())
            result = result.model_copy(update={"supersedes": replaced})
            write_text(path.parent / "old" / f"{result.result}-{replaced[:16]}.json", former.to_json())
        write_text(path, result.to_json())
        return result

    def result(self, result_id: str) -> Result | None:
        """One result, or None where it was not computed yet."""
        path = self._result(result_id)
        text = read_text(path)
        if text is None:
            return None
        with _damaged(path):
            result = Result.from_json(text, str(path))
        if result.result != result_id:
            raise UsageError(f"{path} is damaged: it holds result {result.result[:64]!r}; remove it and run again.")
        return result

    def results(self) -> Iterator[Result]:
        """All results, in the order of their ids."""
        found = map(self.result, self.result_ids())
        return (result for result in found if result is not None)

    def result_ids(self) -> list[str]:
        """Ids of all results, sorted."""
        return sorted(path.stem for path in (self.root / "results").glob("*.json") if _ID.fullmatch(path.stem))

    def _result(self, result_id: str) -> Path:
        return self.root / "results" / f"{_valid(result_id)}.json"

    def save_sources(self, fingerprint: str, parts: Mapping[str, str]) -> None:
        """Keep the parts of a fingerprint."""
        path = self._sources(fingerprint)
        if not path.exists():
            write_text(path, canonical_json(dict(parts)))

    def sources(self, fingerprint: str) -> dict[str, str]:
        """The parts of a fingerprint; none where they were not kept."""
        path = self._sources(fingerprint)
        return _read(dict[str, str], path, path) or {}

    def _sources(self, fingerprint: str) -> Path:
        return self.root / "sources" / f"{_valid(fingerprint)}.json"

    def save_scores(self, text: str, details: str | None = None) -> str:
        """Keep a canonical scores file, and return its SHA-256. ``details``: what lies behind it and must stay private;
        only the file's owner may open it, and nothing here reads it."""
        digest = sha256(text)
        path = self.scores_path(digest)
        if details is not None:
            write_text(self.details_path(digest), details, private=True)
        if not path.exists():
            write_text(path, text)
        return digest

    def scores(self, digest: str) -> str | None:
        """The scores with that SHA-256, or None. Raises UsageError where the file's contents no longer match it."""
        path = self.scores_path(digest)
        text = read_text(path)
        if text is not None and sha256(text) != digest:
            raise UsageError(f"{path} is damaged: its SHA-256 is not its name; remove it and run again with --refresh.")
        return text

    def scores_path(self, digest: str) -> Path:
        if not _SHA256.fullmatch(digest):
            raise UsageError(f"{digest[:80]!r} is no SHA-256: one has 64 lower-case hexadecimal digits.")
        return self.root / "scores" / f"{digest}.json"

    def details_path(self, digest: str) -> Path:
        return self.root / "details" / self.scores_path(digest).name


def same(one: Result, other: Result) -> bool:
    """True where two results differ in nothing but what they supersede."""
    return other.model_copy(update={"supersedes": one.supersedes}).to_json() == one.to_json()


def _read(kind: type[T], path: Path, remove: Path) -> T | None:
    raw = read_bytes(path)
    with _damaged(remove):
        return None if raw is None else parsed(kind, raw, path)


@contextmanager
def _damaged(remove: Path) -> Iterator[None]:
    """Have a UsageError say what to remove; what is newer than this silobench is not damaged."""
    try:
        yield
    except NewerSchema:
        raise
    except UsageError as error:
        raise UsageError(f"{error} Remove {remove} and run again.") from None


class _Marker(Foreign, extra="ignore"):
    layout: int


def _valid(identifier: str) -> str:
    if not _ID.fullmatch(identifier):
        raise UsageError(f"{identifier[:80]!r} is no id: one has 8 to 64 lower-case hexadecimal digits.")
    return identifier
