"""Results gathered into the rows of a leaderboard: one per adversary and training spec, over attacks and seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.board import words
from bench.games.catalog import GAMES
from bench.spec.config import canonical_json, digest
from bench.spec.result import GAIN, Leakage, Result, Utility


@dataclass(frozen=True)
class Entry:
    """One attack in one row: its results, by seed."""

    attack: str
    game: words.Game
    results: tuple[Result, ...]

    def figure(self, name: str) -> Leakage | None:
        """A leakage figure: of the one run as it stands, of several their mean with an interval over runs.

        None where no counted result has the figure. A figure that any run refuses is refused.
        """
        found = [(r, words.figure(r, name)) for r in self.results if r.status in words.COUNTED]
        known = [one for _, one in found if one is not None]
        if len(known) < 2:
            return known[0] if known else None
        refused = next((one for one in known if one.value is None), None)
        return refused or over_runs(known)

    @property
    def mark(self) -> str:
        """Said beside its figure where the attack knew no candidate."""
        return " (population)" if any(r.knows == "population" for r in self.results) else ""

    @property
    def headline(self) -> Leakage | None:
        return self.figure(GAMES[self.game].headline)

    @property
    def baseline(self) -> Leakage | None:
        return self.figure(GAMES[self.game].baseline)

    @property
    def strength(self) -> float | None:
        """What attacks of one game are compared by: the headline, of a reconstruction no more than its precision (an
        attack that names every token recalls them all)."""
        figures = [self.headline, *([self.figure("token_precision")] if self.game == "reconstruction" else [])]
        values = [one.value for one in figures if one is not None]
        known = [value for value in values if value is not None]
        return min(known) if known and len(known) == len(values) else None

    def statuses(self) -> dict[str, int]:
        """How many results have which status, the most frequent first."""
        return dict(sorted(Counter(r.status for r in self.results).items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Row:
    """All results of one training spec at one adversary. ``settings`` tell it from rows of the same name. ``audits``:
    results of the same training with canaries planted in it."""

    adversary: str
    defense: str
    preset: str
    settings: tuple[str, ...]
    entries: tuple[Entry, ...]
    audits: tuple[Result, ...] = ()

    @property
    def results(self) -> tuple[Result, ...]:
        return tuple(result for entry in self.entries for result in entry.results)

    def worst(self, kind: words.Game) -> Entry | None:
        """The strongest attack of a game; None where none has a figure."""
        scored = [(strength, entry) for entry in self.of(kind) if (strength := entry.strength) is not None]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def of(self, kind: words.Game) -> list[Entry]:
        return [entry for entry in self.entries if entry.game == kind]

    @property
    def runs(self) -> list[Result]:
        """One result per training, by seed: utility and cost are a training's, not an attack's."""
        first: dict[str, Result] = {}
        for result in sorted(self.results, key=lambda r: (r.seed, not r.utility, not r.cost, r.result)):
            first.setdefault(result.run, result)
        return list(first.values())

    def utility(self) -> list[Utility]:
        """Every metric; of several runs the mean, with an interval over runs."""
        runs = [run for run in self.runs if run.utility]
        names = dict.fromkeys(one.name for run in runs for one in run.utility)
        merged = []
        for name in names:
            found = [one for run in runs for one in run.utility if one.name == name]
            merged.append(found[0] if len(found) == 1 else _utility_over_runs(found))
        return merged

    def epsilon(self) -> str:
        """What is claimed, and what audits of the same training prove. Blank where nothing was computed because every
        result is an error or does not apply."""
        claims = [result.claim for result in self.results if result.claim is not None]
        if not claims and all(r.status in ("error", "not-applicable") for r in self.results):
            return ""
        return "; ".join(text for text in (words.epsilon(claims or [None]), words.audit_text(self.audits)) if text)

    def traffic(self) -> tuple[float, float] | None:
        """Mean bytes (up, down) per silo and round."""
        return _mean_pair([words.traffic(run.cost) for run in self.runs])

    def seconds(self) -> tuple[float, float] | None:
        """Mean wall seconds (training, channel) of a run."""
        return _mean_pair([words.seconds(run.cost) for run in self.runs])

    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({result.seed for result in self.results}))

    def marks(self, stale: Collection[str]) -> list[str]:
        """What a reader must know beside the figures."""
        results = self.results
        marks = ["did not learn"] if any(result.learned is False for result in results) else []
        marks += ["less than a part" for result in results if words.less_than_a_part(result)][:1]
        marks += ["accuracy below the base model's"] if any(words.worse(result) for result in results) else []
        marks += [f"simulated: {name}" for name in sorted({name for r in results for name in r.simulated})]
        marks += [name for name in ("adaptive", "active") if any(getattr(result, name) for result in results)]
        marks += ["audit"] if any(result.audit is not None for result in results) else []
        marks += ["uncommitted code"] if any(result.provenance.get("dirty") is True for result in results) else []
        old = sum(result.result in stale for result in results)
        if old:
            marks.append("stale" if old == len(results) else f"stale ({old} of {len(results)})")
        return marks


def rows(results: Iterable[Result], audits: Iterable[Result] = ()) -> list[Row]:
    """Rows of one task in a fixed order, whatever the order of ``results``: adversary, preset, defense, settings.

    ``audits``: results of runs with canaries; each is shown by the row of its adversary and training, if there is one.
    """
    ordered = sorted(results, key=lambda r: (r.adversary, words.preset(r), r.defense, r.attack, r.seed, r.result))
    known = words.games(ordered)
    settings = _settings(ordered)
    grouped: dict[tuple[str, str, str, tuple[str, ...], str], list[Result]] = {}
    for result in ordered:
        # the spec's digest keeps trainings apart whose settings read the same (one lacks a key that the other has)
        key = (
            result.adversary,
            words.preset(result),
            result.defense,
            settings[result.result],
            digest(words.run_spec(result)),
        )
        grouped.setdefault(key, []).append(result)
    keys = sorted(grouped, key=lambda key: (words.ability(key[0]), *key[1:]))
    audited: dict[tuple[str, str], list[Result]] = {}
    for audit in sorted(audits, key=lambda r: r.result):
        plain = {name: value for name, value in words.run_spec(audit).items() if name != "variant"}
        audited.setdefault((audit.adversary, digest(plain)), []).append(audit)
    return [
        Row(key[0], key[2], key[1], key[3], _entries(grouped[key], known), tuple(audited.get((key[0], key[4]), ())))
        for key in keys
    ]


def _entries(results: Sequence[Result], known: Mapping[str, words.Game]) -> tuple[Entry, ...]:
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.attack, canonical_json(result.spec.get("attack"))), []).append(result)
    return tuple(Entry(key[0], words.game(found[0], known), tuple(found)) for key, found in sorted(grouped.items()))


def _settings(results: Sequence[Result]) -> dict[str, tuple[str, ...]]:
    """For each result id the settings, as ``key=value``, in which results of its preset differ."""
    flat = {result.result: dict(flatten(words.run_spec(result))) for result in results}
    values: dict[tuple[str, str], set[str]] = {}
    for result in results:
        for key, value in flat[result.result].items():
            values.setdefault((words.preset(result), key), set()).add(value)
    return {
        r.result: tuple(f"{k}={v}" for k, v in sorted(flat[r.result].items()) if len(values[words.preset(r), k]) > 1)
        for r in results
    }


def flatten(spec: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Dotted keys and JSON values of a training's spec; a plug-in's options stand under its name."""
    for key, value in spec.items():
        if key in ("task", "defense"):
            for part in value if isinstance(value, list | tuple) else [value]:
                if isinstance(part, dict) and isinstance(part.get("config"), dict):
                    yield from _leaves(part["config"], str(part.get("name")))
        elif key != "schema_version":
            yield from _leaves(value, key)


def _leaves(value: Any, prefix: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}")
    else:
        yield prefix, value if isinstance(value, str) else canonical_json(value)


def _mean_pair(pairs: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return None
    return sum(a for a, _ in known) / len(known), sum(b for _, b in known) / len(known)


def over_runs(figures: Sequence[Leakage]) -> Leakage:
    """Mean of one figure over runs, with its 95% interval over runs (``bench.stats.combine``, which takes the runs' own
    limits in) within its range: [-1, 1] for an advantage, else [0, 1]. It speaks of further runs like these.

    Bounds on epsilon have no mean: the largest stands for all, and says of how many.
    """
    from bench.stats import Interval, combine

    n = {key: count for key, count in figures[0].n.items() if all(one.n.get(key) == count for one in figures)}
    n["runs"] = len(figures)
    if figures[0].name.startswith("epsilon"):
        largest = max(figures, key=lambda one: -math.inf if one.value is None else one.value)
        note = f"the largest of {len(figures)} runs, each by itself"
        return largest.model_copy(update={"n": n, "over": "runs", "note": note})
    least = -1.0 if figures[0].name.startswith("advantage") else 0.0
    known = [Interval(one.value, one.low, one.high) for one in figures if one.value is not None]
    found = combine(known, minimum=least, maximum=1.0)
    ends = {"value": found.value, "low": found.low, "high": found.high}
    return Leakage(name=figures[0].name, **ends, n=n, over="runs")


def _utility_over_runs(figures: Sequence[Utility]) -> Utility:
    from bench.stats import Interval, combine

    # a figure whose runs' own intervals all lie in [0, 1] is a share, and so is its mean
    ends = [x for one in figures for x in (one.base, one.value, one.low, one.high) if x is not None]
    share = figures[0].name != GAIN and all(0 <= x <= 1 for x in ends)
    least, most = (0.0, 1.0) if share and figures[0].better == "higher" else (-math.inf, math.inf)
    found = combine([Interval(one.value, one.low, one.high) for one in figures], minimum=least, maximum=most)
    base = sum(one.base for one in figures) / len(figures)
    known = {"value": found.value, "low": found.low, "high": found.high, "base": base}
    return figures[0].model_copy(update={**known, "curve": ()})
