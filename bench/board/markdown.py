"""Rows as Markdown. What is not in the results is not in the text: no date, no machine, no order of files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bench.board.rows import Entry, Row, rows
from bench.board.words import (
    STATUS,
    Game,
    counts,
    duration,
    epsilon,
    escape,
    figure,
    interval,
    is_audit,
    organisations,
    preset,
    proportion,
    run_spec,
    size,
    table,
    utility_text,
)
from bench.core.parties import HOLDS
from bench.games.catalog import GAMES
from bench.spec.result import Leakage, Result

#: the first line of every file that is made here
HEADER = "<!-- Made by 'bench leaderboard' from results/*.jsonl. Edits are lost. -->"
AUDITS = """\
## Audits

Runs of their own, in which planted canaries were trained on by a fair coin each. Their leakage is of canaries, and no
figure above is taken from them. **proven ε ≥** holds with 95% confidence whatever the mechanism is; **at most** is what
it would have been with every guess right; **if Gaussian** is a bound for mechanisms that are Gaussian, and proves
nothing of others; **estimated** rests on scores being normal, and is no bound."""
#: a preset whose rows show that the code runs, not what a defense is worth
TESTS_ONLY = "smoke"
LEGEND = """\
## How to read this

- One table per adversary: what those who hold just this can learn about the others' records. Rows are not ranked: a
  defense that ruins the model leaks little. Read leakage beside utility, on the same preset.
- **utility**: of the final global adapter on held-out records, and of the base model. *Did not learn*: the
  gain on the records' text, over the base model, has no interval above zero, so low leakage says nothing.
- **membership AUC**: how well members are told from non-members (0.5 is guessing); the largest over the attacks that
  were run, **by** which. Brackets are 95% intervals: over records of this model for one seed, over runs for several;
  each is that attack's alone. **n**: members/non-members of one run.
- **no view**: the AUC of a baseline that sees the records and no view, in favour of whichever side it leans to.
- **TPR at 1% FPR**: of the same attack; *refused* where the non-members are too few to resolve it.
- **reconstruction**: the share of a batch's tokens that were named, the share of named tokens that were in it, and
  ROUGE-L of the recovered text.
- *(population)*: that attack knew texts of the same kind and none of the candidates; all others are handed them.
- **other games**: *source* (which silo held a record), *participation* (which of two organisations took part),
  *property* (the silo's label shares), *extraction* (secrets that 100 samples would hold), each beside a guesser that
  sees no view.
- **—**: nothing opened. That is what was found, not a proof of security. *n/a*: this adversary has no victim here.
  Blank: not run or not measured.
- **ε**: towards this adversary, computed from what was logged; ∞ where the defense promises it nothing. *audit ≥ a of
  at most b*: an audit of the same training with canaries proves that no smaller ε than a holds, with 95% confidence,
  and could not have shown more than b.
- **bytes** per silo and round, from the messages; **train / channel**: seconds of a whole run, all silos and rounds.
- *tests only*: a size that shows that the code runs, and nothing else. *simulated*: a part that was not really done.
  *stale*: a plug-in or the harness has another version since; stale is not false. *uncommitted code*: made by code that
  no commit holds.
"""


def page(task: str, results: Sequence[Result], stale: Collection[str]) -> str:
    """The Markdown of one task. ``stale``: ids of results to mark so."""
    parts = [HEADER, f"# {escape(task)}", _settings(results)]
    audits = [result for result in results if is_audit(result)]
    table_rows = rows((result for result in results if not is_audit(result)), audits)
    for adversary in dict.fromkeys(row.adversary for row in table_rows):
        chosen = [row for row in table_rows if row.adversary == adversary]
        holds = f": {HOLDS[adversary]}" if adversary in HOLDS else ""
        parts += [f"## {escape(adversary)}{holds}", table([_cells(row, stale) for row in chosen], "keys", "pipe")]
        remarks = _remarks(chosen)
        parts += [remarks] if remarks else []
    parts += _audits(audits, stale)
    return "\n\n".join([*parts, LEGEND])


def _audits(audits: Sequence[Result], stale: Collection[str]) -> list[str]:
    """The table of runs with canaries: a line for every result, as bounds have no mean."""
    found = rows(audits)
    if not found:
        return []
    lines = [_audit_cells(row, result, stale) for row in found for result in row.results]
    remarks = _remarks(found)
    return [AUDITS, table(lines, "keys", "pipe"), *([remarks] if remarks else [])]


def _audit_cells(row: Row, result: Result, stale: Collection[str]) -> dict[str, str]:
    said = result.audit or {}
    unit = str(said.get("unit", ""))
    settings = f" ({', '.join(row.settings)})" if row.settings else ""
    count = str(said["canaries"]) if isinstance(said.get("canaries"), int) else ""
    alone = Row(row.adversary, row.defense, row.preset, row.settings, (Entry(result.attack, "audit", (result,)),))
    return {
        "adversary": escape(result.adversary),
        "defense": escape(row.defense + settings),
        "preset": escape(_preset_text(row.preset)),
        "canaries": escape(count + (f", {unit}" if unit not in ("", "record") else "")),
        "ε claimed": escape(epsilon([result.claim])) + ("" if said.get("compared") is not False else ", not compared"),
        "proven ε ≥": _number(figure(result, "epsilon")),
        "at most": _number(figure(result, "epsilon_limit")),
        "if Gaussian ε ≥": _number(figure(result, "epsilon_gdp")),
        "estimated ε": _number(figure(result, "epsilon_gaussian")),
        "AUC of canaries": interval(figure(result, "canary_auc")),
        "seed": str(result.seed),
        "status": "; ".join([_status(alone), *(escape(mark) for mark in alone.marks(stale) if mark != "audit")]),
    }


def _number(one: Leakage | None) -> str:
    return "" if one is None or one.value is None else f"{one.value:.3g}"


def index(tasks: Mapping[str, tuple[str, Sequence[Result]]], matrices: Sequence[str] = ()) -> str:
    """``README.md``: one line per task; ``tasks`` maps its name to (file name, results). ``matrices``: pages of attacks
    against defenses, by their path from here."""
    cells = [
        [
            f"[{escape(task)}]({name})",
            ", ".join(escape(p) for p in sorted({_preset_text(preset(r)) for r in results})),
            ", ".join(escape(d) for d in sorted({r.defense for r in results})),
            ", ".join(escape(a) for a in sorted({r.attack for r in results})),
            str(len(results)),
        ]
        for task, (name, results) in tasks.items()
    ]
    heads = ("task", "presets", "defenses", "attacks", "results")
    made = table(cells, heads, "pipe") if cells else "No results yet."
    links = ", ".join(f"[{escape(name.rpartition('/')[2].removesuffix('.md'))}]({name})" for name in matrices)
    crossed = [f"Every attack against every defense, for every adversary: {links}."] if matrices else []
    return "\n\n".join([HEADER, "# Leaderboards", made, *crossed, _HOW])


_HOW = """\
Every figure here can be recomputed: `bench verify leaderboards/results/*.jsonl` does so from the committed scores. To
add results of your own: `bench run ...`, `bench leaderboard --add RUN`, `bench leaderboard`. To challenge a row, run a
stronger attack on the same defense: the worst leakage over attacks counts.
"""


def _settings(results: Sequence[Result]) -> str:
    """One line per preset: what its runs have in common."""
    lines = []
    for name in sorted({preset(result) for result in results}):
        specs = [run_spec(result) for result in results if preset(result) == name]
        shown = [text for text in (_shared(specs, *item) for item in _SHOWN) if text]
        lines.append(f"- {escape(_preset_text(name))}: {', '.join(shown) or 'no settings recorded'}")
    named = dict.fromkeys(text for result in results if (text := organisations(result, escape)))
    return "\n".join([*lines, *(f"- organisations: {text}" for text in named)])


_SHOWN = (
    ("model", "name", "base model {}"),
    ("federation", "silos", "{} silos"),
    ("federation", "rounds", "{} rounds"),
    ("federation", "release", "release {}"),
    ("pool", "candidates", "{} candidates a silo"),
    ("pool", "max_tokens", "at most {} tokens a record"),
)


def _shared(specs: Sequence[Mapping[str, object]], section: str, key: str, text: str) -> str:
    found = set()
    for spec in specs:
        part = spec.get(section)
        found.add(str(part[key]) if isinstance(part, dict) and key in part else "")
    return "" if found == {""} else text.format(" or ".join(escape(value) for value in sorted(found) if value))


def _preset_text(name: str) -> str:
    return f"{name} (tests only)" if name == TESTS_ONLY else name


def _cells(row: Row, stale: Collection[str]) -> dict[str, str]:
    settings = f" ({', '.join(row.settings)})" if row.settings else ""
    best = row.worst("membership")
    auc = best.headline if best else None
    transfer, time = row.traffic(), row.seconds()
    return {
        "defense": escape(row.defense + settings),
        "preset": escape(_preset_text(row.preset)),
        "utility (base model)": "; ".join(
            utility_text(one.model_copy(update={"name": escape(one.name)})) for one in row.utility()
        ),
        "membership AUC": _leakage(row, "membership"),
        "by": escape(best.attack) + best.mark if best else "",
        "n": counts(auc.n) if auc else "",
        "no view": interval(best.baseline) if best else "",
        "TPR at 1% FPR": interval(best.figure("tpr@1%")) if best else "",
        "reconstruction": _leakage(row, "reconstruction"),
        "other games": _others(row),
        "ε": escape(row.epsilon()),
        "bytes up / down": " / ".join(size(count) for count in transfer) if transfer else "",
        "train / channel": " / ".join(duration(spent) for spent in time) if time else "",
        "seeds": str(len(row.seeds())),
        "status": "; ".join([_status(row), *(escape(mark) for mark in row.marks(stale))]),
    }


def _leakage(row: Row, kind: Game) -> str:
    """The figure of a game's strongest attack; where there is none, the word for why."""
    entry = row.worst(kind)
    if entry is None:
        statuses = {status for one in row.of(kind) for status in one.statuses()}
        refused = "refused" if any(one.headline is not None for one in row.of(kind)) else ""
        return next((STATUS.get(status, status) for status in _GRAVEST_FIRST if status in statuses), refused)
    if kind == "membership":
        return interval(entry.headline)
    further = ((name, entry.figure(key)) for name, key in (("precision", "token_precision"), ("ROUGE-L", "rouge_l")))
    texts = (f"{name} {proportion(one.value)}" for name, one in further if one is not None and one.value is not None)
    return ", ".join([f"recall {interval(entry.headline)}{entry.mark}", *texts])


def _others(row: Row) -> str:
    """The strongest attack of every further game, beside the figure of a guesser that sees no view."""
    texts = []
    for name, game in GAMES.items():
        entry = row.worst(name) if name not in ("membership", "reconstruction") else None
        if entry is None:
            continue
        blind = entry.baseline
        beside = f" (no view {proportion(blind.value)})" if blind is not None and blind.value is not None else ""
        texts.append(f"{name}{entry.mark}: {game.label} {interval(entry.headline)}{beside}")
    return "; ".join(texts)


_GRAVEST_FIRST = ("error", "void", "refused", "nothing-opened", "not-applicable")


def _status(row: Row) -> str:
    """``ok``, or what became of each attack, with the number of runs where they differ."""
    if {result.status for result in row.results} == {"ok"}:
        return "ok"
    texts = []
    for entry in row.entries:
        found = entry.statuses()
        words = [STATUS.get(status, status) + (f" ({n})" if len(found) > 1 else "") for status, n in found.items()]
        texts.append(f"{escape(entry.attack)}{entry.mark} {', '.join(words)}")
    return ", ".join(texts)


def _remarks(chosen: Sequence[Row]) -> str:
    """A line for every result whose status needs a reason, so that none is lost in a mean."""
    return "\n".join(
        f"- {escape(row.defense)}, {escape(preset(result))}, {escape(result.attack)}, seed {result.seed}: "
        f"{result.status}: {escape(result.note) or 'no reason recorded'}"
        for row in chosen
        for result in row.results
        if result.status not in ("ok", "nothing-opened", "not-applicable")
    )
