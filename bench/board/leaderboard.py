"""The leaderboard: committed results (one JSON object per line) and the Markdown made from them.

leaderboards/results/<task>-<preset>.jsonl   results, sorted by id
leaderboards/scores/<sha256>.json.gz       from which ``bench verify`` recomputes their leakage
leaderboards/plantings/<id>.json             the game's secret, so that new rows pair with these
leaderboards/README.md, <task>.md            made by ``bench leaderboard``; equal results give equal bytes
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bench.board.markdown import HEADER, index, page
from bench.board.words import is_audit, preset, run_spec
from bench.core.errors import UsageError
from bench.core.files import read_text, remove, write_changed
from bench.core.held import sweep
from bench.plugins.find import Plugins
from bench.plugins.versions import Versions
from bench.spec.canonical import sha256
from bench.spec.config import digest
from bench.spec.result import Result
from bench.spec.run import RunSpec
from bench.store.committed import pack, sheet_path
from bench.store.store import Store, same

_STALE = re.compile(r"(?:; )?stale(?: \(\d+ of \d+\))?")


@dataclass(frozen=True)
class Check:
    """``differing``: a sentence per file that must be made again. ``stale``: files of which only the stale marks
    differ, because versions changed; that makes no figure false, and fails nothing."""

    differing: tuple[str, ...]
    stale: tuple[str, ...]


def load(folder: Path) -> tuple[Result, ...]:
    """All results below ``folder`` (``leaderboards``), by id.

    Raises UsageError naming file and line where one is malformed, or where two lines hold the same result id and
    neither supersedes the other.
    """
    results, faults = load_sound(folder)
    if faults:
        raise faults[0]
    return results


def load_sound(folder: Path) -> tuple[tuple[Result, ...], tuple[UsageError, ...]]:
    """``load``, of what is sound, and an error for everything that is not."""
    found: dict[str, list[tuple[str, Result]]] = {}
    results, faults = [], []
    for path in _files(folder):
        try:
            for where, result in each_line(path):
                if isinstance(result, UsageError):
                    faults.append(result)
                else:
                    found.setdefault(result.result, []).append((where, result))
        except UsageError as error:
            faults.append(error)
    for key in sorted(found):
        try:
            results.append(_latest(found[key]))
        except UsageError as error:
            faults.append(error)
    return tuple(results), tuple(faults)


def read_lines(path: Path) -> list[tuple[str, Result]]:
    """The results of a jsonl file, each with its place (``FILE line N``). Raises UsageError naming the line."""
    found = []
    for where, result in each_line(path):
        if isinstance(result, UsageError):
            raise result
        found.append((where, result))
    return found


def each_line(path: Path) -> Iterator[tuple[str, Result | UsageError]]:
    """``read_lines``, with the error in the place of a result that is malformed. Raises UsageError where the file
    can't be read."""
    text = read_text(path)
    if text is None:
        raise UsageError(f"There is no file {path}.")
    # not splitlines: a text inside a result may hold a Unicode line separator
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path} line {number}"
        if line.strip():
            try:
                yield where, Result.from_json(line, where)
            except UsageError as error:
                yield where, error


def _latest(same_id: Sequence[tuple[str, Result]]) -> Result:
    """The one line that nothing supersedes, where every other one is superseded."""
    gone = {result.supersedes for _, result in same_id}
    kept = [(where, result) for where, result in same_id if sha256(result.to_json()) not in gone]
    if len(kept) != 1:
        places = " and ".join(where for where, _ in (kept or same_id))
        raise UsageError(
            f"{places} hold the same result {same_id[0][1].result}, and neither says that it supersedes the other: "
            "keep one of them."
        )
    return kept[0][1]


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "results").glob("*.jsonl"))


def stale_ids(results: Iterable[Result], plugins: Plugins) -> frozenset[str]:
    """Ids of results whose numbers would mean something else today: a plug-in or the harness has another version since,
    or the plug-in is not here, or there were no versions yet."""
    versions = Versions(plugins)
    return frozenset(result.result for result in results if not versions.current(result))


def render(results: Iterable[Result], stale: Collection[str] = (), matrices: Sequence[str] = ()) -> dict[str, str]:
    """File names and their Markdown, a pure function of the set of results, of which ids are ``stale``, and of the
    paths of ``matrices`` (``matrix.pages``)."""
    by_task: dict[str, list[Result]] = {}
    for result in results:
        by_task.setdefault(result.task, []).append(result)
    names = _page_names(by_task)
    pages = {names[task]: page(task, by_task[task], stale) for task in sorted(by_task)}
    tasks = {task: (names[task], by_task[task]) for task in sorted(by_task)}
    return {"README.md": index(tasks, matrices), **pages}


def _page_names(tasks: Iterable[str]) -> dict[str, str]:
    """A file name per task; tasks whose names would collide get a digest."""
    plain = {task: _slug(task) for task in tasks}
    taken = ["readme", *plain.values()]
    return {t: f"{s}.md" if taken.count(s) == 1 else f"{s}-{digest(t, 8)}.md" for t, s in plain.items()}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "task"


def check(folder: Path, rendered: Mapping[str, str]) -> Check:
    """Compare the committed Markdown with ``rendered``."""
    differing, stale = [], []
    for name in sorted({*rendered, *_made_here(folder)}):
        committed, expected = read_text(folder / name), rendered.get(name)
        if committed == expected:
            continue
        if committed is None:
            differing.append(f"{folder / name} is missing")
        elif expected is None:
            differing.append(f"{folder / name} belongs to no result any more")
        elif _without_stale(committed) == _without_stale(expected):
            stale.append(name)
        else:
            differing.append(f"{folder / name} differs from what the results give")
    return Check(tuple(differing), tuple(stale))


def write(folder: Path, rendered: Mapping[str, str]) -> tuple[str, ...]:
    """Write what changed and remove pages of tasks that are gone. Returns the names written or removed."""
    changed = [name for name in sorted(rendered) if write_changed(folder / name, rendered[name].encode())]
    gone = sorted(set(_made_here(folder)) - set(rendered))
    for name in gone:
        remove(folder / name)
    return (*changed, *gone)


def _made_here(folder: Path) -> list[str]:
    """Markdown files in ``folder`` that an earlier ``bench leaderboard`` made."""
    return [path.name for path in folder.glob("*.md") if (read_text(path) or "").startswith(HEADER)]


def _without_stale(text: str) -> str:
    """``text`` without stale marks, and without the widths that tables have because of them."""
    return re.sub(r"-{2,}", "--", re.sub(r" +", " ", _STALE.sub("", text)))


def add(store: Store, result_ids: Iterable[str], folder: Path) -> tuple[Result, ...]:
    """Copy stored results, their scores and plantings into ``folder``. Returns those that were new or changed.

    A committed result of the same id is replaced, and the new one says that it supersedes it. Nothing is written unless
    all can be: raises UsageError on an id that the store has no result for, on missing scores, and on a planting that
    differs from the committed one; and on scores that this SiloBench can't read.
    """
    for name in ("", "results", "scores", "plantings"):
        sweep(folder / name)
    committed = {result.result: result for result in load(folder)}
    companions: dict[Path, bytes] = {}
    changed = []
    for result_id in dict.fromkeys(result_ids):
        result = stored(store, result_id)
        former = committed.get(result_id)
        if former is not None and same(former, result):
            continue
        if former is not None:
            result = result.model_copy(update={"supersedes": sha256(former.to_json())})
        companions |= _companions(store, result, folder)
        changed.append(result)
    for path, data in companions.items():
        write_changed(path, data)
    replace(folder, changed)
    return tuple(changed)


def replace(folder: Path, results: Iterable[Result]) -> None:
    """Write results below ``folder`` in place of the committed ones of their ids; sheets that no result has any more
    go."""
    committed = {result.result: result for result in load(folder)}
    files = {path: {r.result: r for _, r in read_lines(path) if r == committed[r.result]} for path in _files(folder)}
    replaced = []
    for result in results:
        for lines in files.values():
            replaced += [lines.pop(result.result)] if result.result in lines else []
        path = folder / "results" / f"{_slug(result.task)}-{_slug(preset(result))}.jsonl"
        files.setdefault(path, {})[result.result] = result
    for path, lines in files.items():
        if lines:
            write_changed(path, "".join(f"{lines[key].to_json()}\n" for key in sorted(lines)).encode())
        else:
            remove(path)
    _drop_sheets(folder, replaced, files)


def _drop_sheets(folder: Path, replaced: Iterable[Result], files: Mapping[Path, Mapping[str, Result]]) -> None:
    """Remove the sheets of replaced results that no other result has."""
    used = {result.scores_sha256 for lines in files.values() for result in lines.values()}
    for unused in {r.scores_sha256 for r in replaced} - used - {None}:
        remove(sheet_path(folder, str(unused)))


def stored(store: Store, result_id: str) -> Result:
    """A result of the store. Raises UsageError where it has none of that id."""
    result = store.result(result_id)
    if result is None:
        raise UsageError(f"The store {store.root} has no result {result_id}: run it first, or name its store.")
    return result


def _companions(store: Store, result: Result, folder: Path) -> dict[Path, bytes]:
    """The scores and the planting that go with a result: path and contents."""
    from bench.games.sheet import load as load_sheet

    found: dict[Path, bytes] = {}
    if result.scores_sha256 is not None:
        scores = store.scores(result.scores_sha256)
        if scores is None:
            raise UsageError(
                f"The scores of result {result.result} are not in the store {store.root}, so nobody could verify it: "
                "run it again with --refresh."
            )
        load_sheet(scores)  # what can't be read can't be verified, and an old one may hold records' texts
        found[sheet_path(folder, result.scores_sha256)] = pack(scores)
    # an audit's coins are tossed afresh wherever it is run: whoever guesses must not find them here
    planting_id = None if is_audit(result) else planting_of(result)
    planting = store.planting(planting_id) if planting_id is not None else None
    if planting is not None:
        path = folder / "plantings" / f"{planting_id}.json"
        if read_text(path) not in (None, planting):
            raise UsageError(
                f"Result {result.result} was made on another planting than the committed {path}, so its row can't be "
                "paired with the others: run it in a new store, which takes the committed one."
            )
        found[path] = planting.encode()
    return found


def planting_of(result: Result) -> str | None:
    """The id of the planting behind a result, or None where its spec is not one of this silobench. A run of its own
    draws another secret, and says which."""
    try:
        spec = RunSpec.model_validate(run_spec(result))
    except ValidationError:
        return None
    if spec.variant is None:
        return spec.planting_id(result.seed)
    named = result.provenance.get("planting")
    return named if isinstance(named, str) and re.fullmatch(r"[0-9a-f]{8,64}", named) else None
