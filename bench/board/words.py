"""Figures as text, the same on the leaderboard and after a run. Pure functions of results; no colour, no layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.games.catalog import GAMES
from bench.spec.result import GAIN, Claim, Leakage, Result, Utility
from bench.spec.run import ADVERSARIES

DASH = "—"
#: what statuses are called in tables
STATUS = {"nothing-opened": DASH, "not-applicable": "n/a"}
#: statuses under which a row's figures count
COUNTED = frozenset({"ok", "thinned"})
#: a game's name (``bench.games.catalog``)
Game = str


def figure(result: Result, name: str) -> Leakage | None:
    """The leakage figure called ``name``, or None."""
    return next((one for one in result.leakage if one.name == name), None)


def game(result: Result, known: Mapping[str, Game] | None = None) -> Game:
    """The game a result's attack plays: by its figures, else by ``known`` (attack: game), else membership."""
    for name, game in GAMES.items():
        if figure(result, game.headline) is not None:
            return name
    return (known or {}).get(result.attack, "membership")


def games(results: Iterable[Result]) -> dict[str, Game]:
    """Which game each attack plays, from the results that have figures."""
    return {r.attack: game(r) for r in results if any(figure(r, one.headline) for one in GAMES.values())}


def proportion(value: float) -> str:
    """A figure between 0 and 1, three decimals: ``0.930``. Never 0.000 or 1.000 for what is neither."""
    text = f"{value:.3f}"
    if (text == "1.000" and value < 1) or (text == "0.000" and value > 0):
        return ">0.999" if value > 0.5 else "<0.001"
    return text.replace("-0.000", "0.000")


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """``0.930 [0.890, 0.962]``; the value alone where there is no interval; ``refused`` where there is no value."""
    if value is None:
        return "refused"
    if low is None or high is None:
        return proportion(value)
    return f"{proportion(value)} [{proportion(low)}, {proportion(high)}]"


def interval(one: Leakage | None) -> str:
    """``with_interval`` of a figure; empty where there is none."""
    return with_interval(one.value, one.low, one.high) if one is not None else ""


def number(value: float) -> str:
    """Four significant digits, no exponent below a million: ``20.10``, ``0.4167``, ``1532``."""
    return f"{value:#.4g}".rstrip(".") if abs(value) < 10_000 or abs(value) >= 1e6 else f"{value:.0f}"


def utility_text(one: Utility) -> str:
    """``text-perplexity 20.13 [19.02, 21.31] (base 28.31)``; what is a difference from the base model stands alone."""
    interval = "" if one.low is None or one.high is None else f" [{number(one.low)}, {number(one.high)}]"
    base = "" if one.name == GAIN else f" (base {number(one.base)})"
    return f"{one.name} {number(one.value)}{interval}{base}"


def less_than_a_part(result: Result) -> bool:
    """Whether a coalition's row reports less, beyond the margin, than a part of the coalition alone: a fault."""
    return any(one.name.startswith("auc-over:") and one.high is not None and one.high < 0 for one in result.leakage)


def worse(result: Result) -> bool:
    """Whether a model guesses fewer labels of held-out records than the base model."""
    return any(one.name == "accuracy" and one.value < one.base for one in result.utility)


def counts(n: Mapping[str, int]) -> str:
    """``90/90`` members and non-members, else every count by name."""
    if "members" in n and "nonmembers" in n:
        return f"{n['members']}/{n['nonmembers']}"
    return ", ".join(f"{count} {name}" for name, count in sorted(n.items()))


def size(count: float) -> str:
    """Bytes in decimal units: ``1.84 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count / 1000:.3g} TB"


def duration(seconds: float) -> str:
    """``0.32 s``, ``12.4 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def epsilon(claims: Sequence[Claim | None]) -> str:
    """The largest epsilon of several runs of one row, with its delta and unit; the infinity sign where one is promised
    nothing."""
    finite = [claim for claim in claims if claim is not None and claim.epsilon is not None]
    if not finite or len(finite) < len(claims):
        return "∞"
    worst = max(finite, key=lambda claim: claim.epsilon or 0.0)
    terms = [f"δ {worst.delta:.3g}" if worst.delta is not None else "", worst.unit]
    detail = ", ".join(term for term in terms if term)
    return f"{worst.epsilon:.3g}" + (f" ({detail})" if detail else "")


def traffic(cost: Mapping[str, Any]) -> tuple[float, float] | None:
    """Bytes (up, down) per silo and round, or None where they were not measured."""
    up, down = _real(cost.get("up_per_silo_round")), _real(cost.get("down_per_silo_round"))
    return None if up is None or down is None else (up, down)


def seconds(cost: Mapping[str, Any]) -> tuple[float, float] | None:
    """Wall seconds of the whole run (training, channel), over all silos and rounds; None where not measured."""
    phases = cost.get("phases")
    if not isinstance(phases, Mapping) or "train" not in phases:
        return None
    walls = {name: _real(phase.get("wall_s")) or 0.0 for name, phase in phases.items() if isinstance(phase, Mapping)}
    return walls.get("train", 0.0), sum(wall for name, wall in walls.items() if name.startswith("channel:"))


def _real(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def preset(result: Result) -> str:
    """The preset a result was asked with, or ``custom``."""
    name = result.provenance.get("preset")
    return name if isinstance(name, str) and name else "custom"


def run_spec(result: Result) -> dict[str, Any]:
    """The training's spec in a result: all that decides a run but its seed."""
    inner = result.spec.get("run")
    return inner if isinstance(inner, dict) else result.spec


def is_audit(result: Result) -> bool:
    """True for a run of its own in which canaries were planted: what leaks is of canaries, and nobody uses its
    model."""
    variant = run_spec(result).get("variant")
    return isinstance(variant, Mapping) and variant.get("name") == "audit"


def audit_text(results: Sequence[Result]) -> str:
    """What audits of one training prove of a single record's epsilon, and what they could have: ``audit ≥ 0.31 of at
    most 3.1``, the largest of several. Empty where none says anything of a single record under the row's claim."""
    known = []
    for result in results:
        said = result.audit if result.status in COUNTED else None
        bound, limit = (_real((said or {}).get(key)) for key in ("epsilon", "limit"))
        claimed = result.claim is not None and result.claim.epsilon is not None
        if said is not None and bound is not None and limit is not None and said.get("unit") == "record":
            known += [(bound, limit)] if said.get("compared") is True or not claimed else []
    if not known:
        return ""
    bound, limit = max(known)
    several = f", the largest of {len(known)}" if len(known) > 1 else ""
    return f"audit ≥ {bound:.2g} of at most {limit:.2g}{several}"


def ability(adversary: str) -> tuple[int, str]:
    """A sort key: adversaries from the least able to the most, unknown ones last by name."""
    known = adversary in ADVERSARIES
    return (ADVERSARIES.index(adversary) if known else len(ADVERSARIES), adversary)


def one_line(text: str, most: int = 200) -> str:
    """``text`` without line breaks and control characters, cut at ``most`` characters."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def escape(text: str) -> str:
    """Text from a file as one line of Markdown: nothing in it is markup, and it can't leave its table cell."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", one_line(text)).replace("&", "&amp;").replace("<", "&lt;")


def organisations(result: Result, shown: Callable[[str], str], most: int = 12) -> str:
    """``Klinik Nord (silo-0, 64 records), ...``; empty where the records name none. ``shown``: makes a name safe."""
    found = [f"{shown(one.name)} ({shown(one.silo)}, {one.records} records)" for one in result.organisations]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def table(cells: Iterable[Any], heads: Sequence[str] | str, style: str = "simple") -> str:
    """A plain table; numbers stand as they are written. ``heads``: of the columns, or "keys" where cells are dicts."""
    from tabulate import tabulate

    return tabulate(cells, headers=heads, tablefmt=style, disable_numparse=True)
