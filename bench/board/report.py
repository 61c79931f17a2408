"""What a person sees after a run: a table per defense, its utility and cost, and one sentence of what it means."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

from bench.board import words
from bench.board.rows import Entry, Row, rows
from bench.core.shown import lines_shown
from bench.games.catalog import GAMES
from bench.spec.result import Leakage, Result

#: an adversary as the subject of a sentence
WHO = {
    "user": "anyone who can query the released model",
    "outsider": "anyone who holds the released adapter",
    "silo": "another silo",
    "server": "the server",
    "server+silo": "the server together with one silo",
    "all-but-one": "the server together with every silo but the victim",
}
_ASCII = str.maketrans({"—": "-", "∞": "infinite", "ε": "epsilon", "δ": "delta", "≥": ">=", "…": "..."})
_PLAIN_WIDTH = 132


def render(results: Sequence[Result], root: Path, *, color: bool | None = None, width: int | None = None) -> str:
    """The report of ``results`` as text, without a final newline. ``root``: the store that holds them.

    ``color`` None: only where standard output is a terminal. ``width``: columns, by default the terminal's, or 132.
    """
    terminal = sys.stdout.isatty() if color is None else color
    blocks = [_block(group, terminal, width) for group in _groups(results)]
    where = f"Results: {root / 'results'} ({len(results)}); 'bench verify' recomputes them."
    text = "\n\n".join([*blocks, "\n".join([where if results else "No results.", *_private(results, root)])])
    return text if (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8" else text.translate(_ASCII)


def _private(results: Sequence[Result], root: Path) -> list[str]:
    """Where the records' own texts lie, beside what was guessed of them, if they do."""
    names = {f"{result.scores_sha256}.json" for result in results if result.scores_sha256 is not None}
    kept = sum((root / "details" / name).exists() for name in names)
    return [f"Private, with the records' texts and what was guessed: {root / 'details'} ({kept})."] if kept else []


def _groups(results: Sequence[Result]) -> list[tuple[str, list[Row]]]:
    """Rows by task and training spec, with a title each."""
    found: dict[str, list[Row]] = {}
    for task in sorted({result.task for result in results}):
        of_task = [result for result in results if result.task == task]
        audits = [result for result in of_task if words.is_audit(result)]
        for row in [*rows((r for r in of_task if not words.is_audit(r)), audits), *rows(audits)]:
            settings = f", {', '.join(row.settings)}" if row.settings else ""
            settings += ", with canaries" if words.is_audit(row.results[0]) else ""
            seeds = ", ".join(map(str, row.seeds()))
            title = f"{row.defense} on {task} ({row.preset}{settings}), seed{'s' if ',' in seeds else ''} {seeds}"
            found.setdefault(title, []).append(row)
    return list(found.items())


def _block(group: tuple[str, list[Row]], terminal: bool, width: int | None) -> str:
    title, chosen = group
    lines = [
        *_organisations(chosen),
        *_data(chosen),
        *_utility(chosen),
        *_cost(chosen),
        *_power(chosen),
        *_runs(chosen),
    ]
    lines += [f"{word}: {text}" for word, text in _remarks(chosen)]
    lines = list(map(lines_shown, [*lines, "", meaning(chosen)]))
    return "\n".join([words.one_line(title, 400), _table(chosen, terminal, width), *lines])


def _table(chosen: Sequence[Row], terminal: bool, width: int | None) -> str:
    from rich.box import ASCII2, SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE if terminal else ASCII2, show_edge=False, pad_edge=False)
    for heading in ("adversary", "attack", "read", "leakage [95% interval]", "n", "no view", "epsilon", "status"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("adversary", "attack"))
    for row in chosen:
        for entry in row.entries:
            table.add_row(*(Text(words.one_line(cell, 300)) for cell in _cells(row, entry)))
    file = StringIO()
    shape = width if width is not None or terminal else _PLAIN_WIDTH
    Console(file=file, force_terminal=terminal, width=shape, no_color=not terminal, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines() if line.strip())


def _cells(row: Row, entry: Entry) -> tuple[str, ...]:
    read = dict.fromkeys(text for result in entry.results for text in result.reads)
    figure, beside = entry.headline, entry.baseline
    leakage = f"{GAMES[entry.game].label} {words.interval(figure)}" if figure else "—"
    return (
        row.adversary,
        entry.attack + entry.mark,
        "; ".join(read) or "nothing",
        leakage,
        words.counts(figure.n) if figure else "",
        words.proportion(beside.value) if beside is not None and beside.value is not None else "",
        row.epsilon(),
        ", ".join(f"{status} ({n})" if len(entry.results) > 1 else status for status, n in entry.statuses().items()),
    )


def _data(chosen: Sequence[Row]) -> list[str]:
    """What became of the records, of the run in which most was lost."""
    known = [result.data for row in chosen for result in row.results if result.data is not None]
    if not known:
        return []
    data = max(known, key=lambda one: (one.cut, one.secrets_cut, sum(one.left_out.values())))
    lost = [f"{data.cut / max(data.used, 1):.0%} of them cut at pool.max_tokens"] if data.cut else []
    lost += [f"{n} left out ({words.one_line(why)})" for why, n in sorted(data.left_out.items())]
    lost += [f"{data.undecided} undecided after the records part, and not asked about"] if data.undecided else []
    lost += [f"{data.secrets_cut} of {data.secrets} secrets cut off and not asked for"] if data.secrets_cut else []
    return ["; ".join([f"records: {data.used} of {data.given} used", *lost])]


def _organisations(chosen: Sequence[Row]) -> list[str]:
    text = words.organisations(chosen[0].results[0], words.one_line)
    return [f"organisations: {text}"] if text else []


def _utility(chosen: Sequence[Row]) -> list[str]:
    """The utility of the group's trainings; the row with most of it speaks for all (they share their trainings)."""
    row = max(chosen, key=lambda one: len(one.utility()))
    texts = "; ".join(words.utility_text(one) for one in row.utility())
    learned = " - the model did not learn" if _did_not_learn(chosen) else ""
    worse = any(words.worse(result) for row in chosen for result in row.results)
    below = " - its accuracy is below the base model's" if worse else ""
    return [f"utility: {texts}{learned}{below}"] if texts else []


def _runs(chosen: Sequence[Row]) -> list[str]:
    """The ids of the group's trainings, for 'bench attack' and 'bench leaderboard --add', one for each seed."""
    runs = dict.fromkeys(result.run for row in chosen for result in sorted(row.results, key=lambda r: r.seed))
    return [f"run{'s' if len(runs) > 1 else ''}: {', '.join(runs)}"]


def _power(chosen: Sequence[Row]) -> list[str]:
    """What the smallest membership rows could have shown, so that nobody reads a small sample as safety."""
    from bench.stats import least_auc

    found = []
    for row in chosen:
        entry = row.worst("membership")
        n = entry.headline.n if entry is not None and entry.headline is not None else {}
        if "members" in n and "nonmembers" in n:
            found.append((n["members"], n["nonmembers"]))
    if not found:
        return []
    members, others = min(found)
    least = least_auc(members, others)
    if least is None:
        return [f"power: with {members}/{others} records no AUC could be told from guessing"]
    return [f"power: with {members}/{others} records an AUC under {least:.2f} is hardly told from guessing (80%)"]


def _did_not_learn(chosen: Iterable[Row]) -> bool:
    return any(result.learned is False for row in chosen for result in row.results)


def _cost(chosen: Sequence[Row]) -> list[str]:
    row = chosen[0]
    parts = []
    transfer, time = row.traffic(), row.seconds()
    if transfer is not None:
        parts.append(f"{words.size(transfer[0])} up and {words.size(transfer[1])} down per silo and round")
    if time is not None:
        parts.append(f"training {words.duration(time[0])}, channel {words.duration(time[1])}")
    cost = row.runs[0].cost
    if isinstance(cost.get("peak_bytes"), int):
        parts.append(f"peak memory {words.size(cost['peak_bytes'])}")
    if isinstance(cost.get("tokens_per_second"), int | float):
        parts.append(f"{words.number(cost['tokens_per_second'])} trained tokens/s")
    return [f"cost: {'; '.join(parts)}"] if parts else []


def _remarks(chosen: Sequence[Row]) -> list[tuple[str, str]]:
    """Reasons: of every row that is not plainly ok, once each."""
    found = {}
    for row in chosen:
        for result in row.results:
            if result.note and result.status not in ("ok", "nothing-opened"):
                found[f"{result.status} ({result.adversary}, {result.attack}, seed {result.seed})"] = words.one_line(
                    result.note
                )
    simulated = sorted({name for row in chosen for result in row.results for name in result.simulated})
    return [*found.items(), *(("simulated", name) for name in simulated)]


def meaning(chosen: Sequence[Row]) -> str:
    """One or two careful sentences on the rows of one training, composed from their figures."""
    closed = [row.adversary for row in chosen if {r.status for r in row.results} == {"nothing-opened"}]
    telling = _telling(chosen)
    if telling is not None:
        main = _says(*telling)
        if closed:
            main = f"Against {_all(closed)} nothing opened here, but {main}; hiding uploads does not change that"
        elif _server_reads_no_more(chosen):
            main = f"The server read nothing but what is released, yet {main}"
    elif best := _strongest(chosen, "membership"):
        main = _no_better(best[0], best[2])
        if closed:
            main = f"Against {_all(closed)} nothing opened here, and {main}"
    elif closed:
        main = f"Against {_all(closed)} nothing opened here: that is what was found, not a proof of security"
    else:
        main = ""
    sentences = [
        f"{text[:1].upper()}{text[1:]}."
        for text in (main, _rebuilt(chosen), *_others(chosen), _audited(chosen), _unlearned(chosen), _failed(chosen))
        if text
    ]
    return " ".join(sentences) or "No figure was measured here."


def _telling(chosen: Sequence[Row]) -> tuple[Row, Leakage] | None:
    """The least able adversary that does as well as the best one can't be told from, where that beats guessing."""
    found = []
    for row in chosen:
        entry = row.worst("membership")
        figure = entry.headline if entry else None
        if figure and figure.value is not None and figure.low is not None and figure.low > 0.5:
            found.append((row, figure, figure.value, figure.low))
    if not found:
        return None
    floor = max(found, key=lambda item: item[2])[3]
    return next((row, figure) for row, figure, value, _ in found if value >= floor)


def _server_reads_no_more(chosen: Sequence[Row]) -> bool:
    """True where the server's readings were the outsider's: the uploads stayed closed to it, the release did not."""
    reads = {row.adversary: {text for r in row.results for text in r.reads} for row in chosen}
    return bool(reads.get("server")) and reads["server"] == reads.get("outsider")


def _strongest(chosen: Sequence[Row], game: str) -> tuple[Row, Entry, Leakage] | None:
    """The strongest attack of a game over the rows, with its row and headline; None where none has a figure."""
    found = [(row, entry, figure) for row in chosen if (entry := row.worst(game)) and (figure := entry.headline)]
    return max(found, key=lambda item: item[1].strength or 0.0, default=None)


def _says(row: Row, figure: Leakage) -> str:
    n = f" (n={words.counts(figure.n)})" if figure.n else ""
    return f"{_who(row.adversary)} tells members from non-members with AUC {words.interval(figure)}{n}"


def _no_better(row: Row, figure: Leakage) -> str:
    return (
        "no adversary that was tried tells members from non-members better than guessing can explain (the largest AUC "
        f"is {words.interval(figure)}, of {_who(row.adversary)}): that is what these attacks found, not a proof of "
        "privacy"
    )


def _rebuilt(chosen: Sequence[Row]) -> str:
    """The strongest reconstruction, where there is one, with its precision and the baseline's recall."""
    found = _strongest(chosen, "reconstruction")
    if found is None or not found[1].strength:
        return ""
    row, entry, figure = found
    precision, baseline = entry.figure("token_precision"), entry.baseline
    parts = [f"{_who(row.adversary)} recovers {words.interval(figure)} of the tokens of a training batch"]
    if precision is not None and precision.value is not None:
        parts.append(f"{words.proportion(precision.value)} of the tokens that it names are right")
    if baseline is not None and baseline.value is not None:
        parts.append(f"a baseline that sees no update recovers {words.proportion(baseline.value)}")
    return "; ".join(parts)


def _others(chosen: Sequence[Row]) -> list[str]:
    """Of every further game the strongest figure, beside what a guesser without a view reaches."""
    texts = []
    for name, game in GAMES.items():
        found = _strongest(chosen, name) if name not in ("membership", "reconstruction", "audit") else None
        if found is not None:
            row, entry, figure = found
            blind = entry.baseline
            beside = f" (without a view {words.proportion(blind.value)})" if blind and blind.value is not None else ""
            reached = f"{game.label} {words.interval(figure)}{beside}"
            texts.append(f"in the {name} game {_who(row.adversary)} reaches {reached}")
    return texts


def _audited(chosen: Sequence[Row]) -> str:
    """The largest proven bound, beside the claim and what could have been shown."""
    found = [
        (f.value, row, result) for row in chosen for result in row.results if (f := words.figure(result, "epsilon"))
    ]
    known = [(value, row, result) for value, row, result in found if value is not None and words.is_audit(result)]
    if not known:
        return ""
    value, row, result = max(known, key=lambda item: item[0])
    said, limit = result.audit or {}, words.figure(result, "epsilon_limit")
    most = f" (every guess right would have shown {limit.value:.2g})" if limit and limit.value is not None else ""
    who = _who(row.adversary)
    if value == 0:
        proof = f"the audit proves nothing of what {who} learns{most}, which is no proof of privacy"
    else:
        unit = words.one_line(str(said.get("unit", "record")))
        proof = f"the audit proves, at 95%, that a {unit}'s epsilon towards {who} is at least {value:.2g}{most}"
    claim = result.claim.epsilon if result.claim is not None else None
    if claim is None:
        return f"{proof}; nothing finite is claimed"
    if said.get("compared") is not True:
        return f"{proof}; that is not comparable with the claim"
    return f"{proof}; {claim:.3g} is claimed" + (", which is refuted at that confidence" if value > claim else "")


def _unlearned(chosen: Sequence[Row]) -> str:
    says = "the model is no better than the base model, so low leakage here says nothing for the defense"
    return says if _did_not_learn(chosen) else ""


def _failed(chosen: Sequence[Row]) -> str:
    results = [result for row in chosen for result in row.results]
    lost = [
        r for r in results if r.status not in words.COUNTED and r.status not in ("nothing-opened", "not-applicable")
    ]
    return f"of {len(results)} results {len(lost)} could not be had, and nothing follows for them" if lost else ""


def _all(adversaries: Sequence[str]) -> str:
    names = [_who(name) for name in sorted(adversaries, key=words.ability)]
    return " or ".join(names) if len(names) < 3 else ", ".join(names[:-1]) + f" or {names[-1]}"


def _who(adversary: str) -> str:
    return WHO.get(adversary, adversary)
