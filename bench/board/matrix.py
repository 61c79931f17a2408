"""Attacks against defenses, for every adversary: one short line per cell, and the table made from the lines.

leaderboards/matrix/<task>-<preset>.jsonl.gz   one cell a line, sorted by result id (``zcat`` shows them)
leaderboards/matrix/<task>-<preset>.md         made from it; equal cells give equal bytes

A cell keeps a result's headline with interval and baseline, where it came from and the SHA-256 of its scores, and no
more: thousands of full results with scores would not fit into a repository. Whoever doubts one runs it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, FiniteFloat

from bench.board.words import (
    COUNTED,
    STATUS,
    ability,
    escape,
    figure,
    preset,
    proportion,
    run_spec,
    table,
    with_interval,
)
from bench.core.errors import UsageError
from bench.core.files import folder_held, write_bytes, write_changed
from bench.core.held import sweep
from bench.games.catalog import GAMES
from bench.plugins.find import Plugins
from bench.plugins.versions import Versions, taking_part
from bench.spec.config import Config, canonical_json, later
from bench.spec.foreign import Foreign, Json, loads, parsed
from bench.spec.result import Result
from bench.store.committed import pack, read_packed

FOLDER = "matrix"
#: how files of cells end
CELLS = ".jsonl.gz"
#: hexadecimal digits that are kept of a digest
DIGITS = 16
HEADER = "<!-- Made by 'bench matrix' from the cells beside it. Edits are lost. -->"


class _Settings(Foreign):
    lr: FiniteFloat | None
    options: dict[str, dict[str, Json]]
    shadow: int


def _settings_text(text: str) -> str:
    try:
        parsed(_Settings, text, "it")
    except UsageError as error:
        raise ValueError(str(error).rstrip(".")) from None
    return text


def _game(name: str) -> str:
    if name not in GAMES:
        raise ValueError(f"no game is called so; there are {', '.join(GAMES)}")
    return name


Share = Annotated[FiniteFloat, Field(ge=-1, le=1)]


class Entry(Config):
    """One cell of one seed. ``value`` None where nothing was measured: ``status`` says why. ``settings``: canonical
    JSON of the training's spec without the defense's name; ``options``: the attack's configuration; ``scores_sha256``:
    its first ``DIGITS`` digits. ``versions``: as in ``bench.spec.result.Result``."""

    result: str
    run: str
    task: str
    preset: str
    defense: str
    settings: Annotated[str, AfterValidator(_settings_text)]
    attack: str
    options: dict[str, Json] = Field(default_factory=dict)
    adversary: str
    seed: int = Field(ge=0)
    game: Annotated[str, AfterValidator(_game)]
    status: str
    value: Share | None = None
    low: Share | None = None
    high: Share | None = None
    baseline: Share | None = None
    seconds: FiniteFloat | None = None
    fingerprint: str
    versions: dict[str, int] = later({})
    commit: str | None = None
    scores_sha256: str | None = None


#: what an entry has as its result has it
_ALIKE = ("result", "run", "task", "defense", "attack", "adversary", "seed", "status", "fingerprint", "versions")


def entry(result: Result, known: Mapping[str, str]) -> Entry:
    """The short line of a result. ``known``: the game that each attack plays."""
    game = known.get(result.attack, "membership")
    headline, beside = figure(result, GAMES[game].headline), figure(result, GAMES[game].baseline)
    spec = run_spec(result)
    return Entry(
        **{name: getattr(result, name) for name in _ALIKE},
        preset=preset(result),
        settings=_settings(spec),
        options=dict(result.spec.get("attack", {}).get("config", {})),
        game=game,
        **{end: _short(getattr(headline, end, None)) for end in ("value", "low", "high")},
        baseline=_short(beside.value if beside else None),
        seconds=result.cost.get("attack_s"),
        commit=result.provenance.get("commit"),
        scores_sha256=result.scores_sha256[:DIGITS] if result.scores_sha256 else None,
    )


def _short(value: float | None) -> float | None:
    """To a millionth: no interval is as narrow, and cells are many."""
    return None if value is None else round(value, 6)


def _settings(spec: Mapping[str, Any]) -> str:
    """What tells trainings of one defense apart, short: the canonical text of its options, and lr."""
    local = spec.get("federation", {}).get("local", {})
    parts = {d.get("name", ""): d.get("config", {}) for d in spec.get("defense", []) if isinstance(d, dict)}
    return canonical_json({"lr": local.get("lr"), "options": parts, "shadow": spec.get("shadow", 0)})


def path(folder: Path, task: str, name: str) -> Path:
    """The file of one task and preset."""
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{task}-{name}")
    return folder / FOLDER / f"{safe}{CELLS}"


def pages(folder: Path) -> list[str]:
    """The tables below ``folder`` (``leaderboards``) that have cells, by their path from there."""
    return [f"{FOLDER}/{page_of(file).name}" for file in files(folder)]


def files(folder: Path) -> list[Path]:
    """The files of cells below ``folder`` (``leaderboards``), sorted."""
    return sorted((folder / FOLDER).glob(f"*{CELLS}"))


def page_of(file: Path) -> Path:
    """The Markdown beside a file of cells."""
    return file.with_name(f"{file.name.removesuffix(CELLS)}.md")


def load(file: Path) -> dict[str, Entry]:
    """Cells by result id; none where there is no file. Raises UsageError naming the line that is malformed."""
    text = read_packed(file)
    found: dict[str, Entry] = {}
    for number, line in enumerate((text or "").split("\n"), 1):
        if not line.strip():
            continue
        one = parsed(Entry, line, f"{file} line {number}")
        found[one.result] = one
    return found


def stale(entries: Iterable[Entry], plugins: Plugins) -> frozenset[str]:
    """Result ids of the cells whose numbers would mean something else today (``bench.plugins.versions``)."""
    versions, current = Versions(plugins), dict[str, bool]()
    found = set()
    for one in entries:
        key = canonical_json([one.task, one.defense, one.attack, one.versions])
        if key not in current:
            current[key] = versions.are_current(one.versions, taking_part(one.task, one.defense, one.attack))
        if not current[key]:
            found.add(one.result)
    return frozenset(found)


def save(file: Path, entries: Mapping[str, Entry], plugins: Plugins) -> None:
    """Write the cells, and the Markdown beside them."""
    text = "".join(f"{canonical_json(entries[key])}\n" for key in sorted(entries))
    if read_packed(file) != text:
        write_bytes(file, pack(text))
    page = render(list(entries.values()), stale(entries.values(), plugins))
    write_changed(page_of(file), page.encode())


def add(folder: Path, results: Iterable[Result], known: Mapping[str, str], plugins: Plugins) -> dict[Path, int]:
    """Put the cells of ``results`` into their files; how many cells each now has. ``known``: the game of each attack,
    which a result without figures does not tell."""
    by_file: dict[Path, list[Entry]] = {}
    for result in results:
        one = entry(result, known)
        by_file.setdefault(path(folder, one.task, one.preset), []).append(one)
    counts = {}
    with folder_held(folder / FOLDER):  # another process may add cells to the same file
        sweep(folder / FOLDER)
        for file, entries in by_file.items():
            kept = load(file) | {one.result: one for one in entries}
            save(file, kept, plugins)
            counts[file] = len(kept)
    return counts


def render(entries: Sequence[Entry], old: Collection[str] = ()) -> str:
    """The Markdown of the cells of one task and preset: per adversary a table of defenses by attacks. ``old``: result
    ids of stale cells, which are counted."""
    if not entries:
        return f"{HEADER}\n\nNo cells yet.\n"
    first = entries[0]
    parts = [HEADER, f"# Attacks against defenses: {escape(first.task)}, {escape(first.preset)}", _LEGEND]
    if aged := sum(one.result in old for one in entries):
        parts.append(f"{_STALE}{aged} of {len(entries)} cells are of an older version, or from before there were any.")
    for adversary in sorted({e.adversary for e in entries}, key=ability):
        parts += [f"## {escape(adversary)}", _table([e for e in entries if e.adversary == adversary])]
    return "\n\n".join(parts) + "\n"


def agrees(page: str | None, rendered: str) -> bool:
    """Whether a committed page is what its cells give, but for how many are stale, which makes no figure false."""
    return page is not None and _without_stale(page) == _without_stale(rendered)


def _without_stale(page: str) -> str:
    return "\n\n".join(part for part in page.split("\n\n") if not part.startswith(_STALE))


#: begins the paragraph that counts stale cells
_STALE = "Stale: "
_LEGEND = """\
Each cell: the attack's headline (membership: AUC of its strongest score by cross-fitting; reconstruction: token recall;
source, participation: accuracy; property: similarity; extraction: share of secrets that 100 samples would hold), with
its 95% interval over records for one seed, over runs for several; *blind* is what a guesser without a view reaches,
mean over the column. —: nothing opened. n/a: no victim. The number of seeds stands behind a defense, and
behind a cell that has fewer."""


#: (game, heading)
Column = tuple[str, str]


def _table(entries: Sequence[Entry]) -> str:
    headings = _headings(entries)
    by_place: dict[tuple[str, str], dict[Column, list[Entry]]] = {}
    by_column: dict[Column, list[Entry]] = {}
    for one in entries:
        column = one.game, headings[_asked(one)]
        by_place.setdefault((one.defense, one.settings), {}).setdefault(column, []).append(one)
        by_column.setdefault(column, []).append(one)
    columns = sorted(by_column, key=lambda c: (list(GAMES).index(c[0]), c[1]))
    names = _names(list(by_place))
    body = []
    for key in sorted(by_place, key=lambda k: names[k]):
        mine = by_place[key]
        seeds = len({e.seed for held in mine.values() for e in held})
        cells = [_cell(mine.get(column, ()), seeds) for column in columns]
        body.append([f"{escape(names[key])} ({seeds})", *cells])
    blind = [_blind(by_column[column]) for column in columns]
    heads = ["defense", *(escape(column[1]) for column in columns)]
    return table([*body, ["*blind*", *blind]], heads, "pipe")


def _asked(one: Entry) -> tuple[str, str]:
    """The attack and its options, as one value."""
    return one.attack, canonical_json(one.options)


def _headings(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """Of what was asked: the attack's name, with those of its options in which the table's cells differ."""
    kinds = {_asked(one): one.options for one in entries}
    found = {}
    for (attack, options), mine in kinds.items():
        others = [theirs for (name, _), theirs in kinds.items() if name == attack]
        differing = sorted(k for k in mine if any(o.get(k) != mine[k] for o in others))
        found[attack, options] = " ".join([attack, *(f"{k}={mine[k]}" for k in differing)])
    return found


def _names(keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """A defense's name; where the table has it with several settings, what tells them apart."""
    found = {}
    for name, settings in keys:
        same = [loads(s) for n, s in keys if n == name]
        mine = loads(settings)
        told = [f"{k}={mine[k]}" for k in ("lr", "shadow") if len({canonical_json(s.get(k)) for s in same}) > 1]
        options = [s.get("options") for s in same]
        if any(o != mine.get("options") for o in options):
            told += [
                f"{k}={v}"
                for part, values in mine.get("options", {}).items()
                for k, v in values.items()
                if any((o or {}).get(part, {}).get(k) != v for o in options)
            ]
        found[name, settings] = name + (f" ({', '.join(told)})" if told else "")
    return found


def _cell(entries: Sequence[Entry], seeds: int) -> str:
    """``seeds``: of its row; a cell of fewer says of how many it is."""
    count = len({e.seed for e in entries})
    return _figure(entries) + (f" ({count})" if 0 < count < seeds else "")


def _figure(entries: Sequence[Entry]) -> str:
    known = [e for e in entries if e.status in COUNTED and e.value is not None]
    if not entries:
        return ""
    if not known:
        statuses = sorted({e.status for e in entries})
        return ", ".join(STATUS.get(status, status) for status in statuses)
    if len(known) == 1:
        return with_interval(known[0].value, known[0].low, known[0].high)
    from bench.stats import Interval, combine

    mean = combine([Interval(e.value, e.low, e.high) for e in known], minimum=0.0, maximum=1.0)
    return with_interval(mean.value, mean.low, mean.high)


def _blind(entries: Sequence[Entry]) -> str:
    known = [e.baseline for e in entries if e.baseline is not None]
    return proportion(sum(known) / len(known)) if known else ""
