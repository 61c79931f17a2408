"""An audit's sheet: canaries, the coins that were tossed for them, and the scores that guesses are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.core.errors import SiloBenchError
from bench.spec import canonical as form
from bench.spec.canonical import SHEET
from bench.spec.foreign import Integer

GAME = "audit"
VERSION = 1
#: the score that guesses are made from; whatever else an attack returns is for information
COUNTED = "audit"
#: shares of a coalition's canaries that are guessed, half of them "in", half "out": fixed beforehand, all corrected for
SHARES = (0.1, 0.3, 1.0)
SIGNIFICANCE = 0.05
#: of a score: sums of squares of as many as a sheet holds stay finite
LARGEST = 1e150

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AuditSheet:
    """n canaries, sorted by coalition and id. ``coalitions``: the number of the coalition that guessed. ``member``:
    (n,) bool, the coins. ``scores``, ``baseline``: name to (n,); ``scores`` has ``COUNTED``.

    ``delta`` at which epsilon is bounded; ``significance`` of every bound; ``shares`` of canaries that were guessed;
    ``repeat``: how often a canary that is in stands among its silo's records. Above 1 the bounds are of groups of that
    size.
    """

    game: ClassVar[str] = GAME

    ids: tuple[str, ...]
    coalitions: tuple[int, ...]
    member: NDArray[np.bool_]
    scores: Mapping[str, Floats]
    baseline: Mapping[str, Floats]
    delta: float
    significance: float = SIGNIFICANCE
    shares: tuple[float, ...] = SHARES
    repeat: int = 1

    def to_json(self) -> str:
        """Canonical text: the same whatever order the canaries came in."""
        rows = zip(self.ids, self.coalitions, (int(m) for m in self.member), strict=True)
        tables = {"scores": self.scores, "baseline": self.baseline}
        return form.write(
            {
                "format": SHEET,
                "version": VERSION,
                "game": GAME,
                "delta": float(self.delta),
                "significance": float(self.significance),
                "shares": [float(share) for share in self.shares],
                "repeat": self.repeat,
                "canaries": [list(row) for row in rows],
                **{key: {name: v.tolist() for name, v in table.items()} for key, table in tables.items()},
            }
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of ``to_json()`` in hexadecimal: the name of the committed scores."""
        return form.sha256(self.to_json())

    @classmethod
    def from_json(cls, text: str) -> AuditSheet:
        """Parse text from anybody. Raises UsageError on anything that ``to_json`` does not write."""
        return form.read(_Text, text, SHEET, _understood)


class _Text(form.SheetText):
    version: Literal[1]
    canaries: form.Many[tuple[form.Label, Integer, Literal[0, 1]]]
    scores: form.Table
    baseline: form.Table
    delta: float
    significance: float
    shares: tuple[float, ...]
    repeat: Integer


def _understood(value: _Text) -> AuditSheet:
    ids, coalitions, member = form.columns(value.canaries, 3)
    settings = {name: getattr(value, name) for name in ("delta", "significance", "shares", "repeat")}
    return make_sheet(ids, coalitions, member, value.scores, value.baseline, **settings)


def make_sheet(
    ids: Sequence[str],
    coalitions: Sequence[int],
    member: Sequence[bool] | NDArray[np.bool_],
    scores: Mapping[str, ArrayLike],
    baseline: Mapping[str, ArrayLike] = MappingProxyType({}),
    *,
    delta: float,
    significance: float = SIGNIFICANCE,
    shares: Sequence[float] = SHARES,
    repeat: int = 1,
) -> AuditSheet:
    """The sheet of canaries (parallel sequences of length n, any order) and of an attack's named scores, each (n,).

    Raises SiloBenchError for what an attack did wrong (no score called ``COUNTED``, a score that is not one finite
    number per canary), a canary that stands twice with one coalition or with two coins, and levels out of range.
    """
    if not len(ids) == len(coalitions) == len(member):
        raise ValueError("ids, coalitions and member must have the same length")
    if not ids:
        raise SiloBenchError("there is no canary")
    pairs = list(zip((int(c) for c in coalitions), ids, strict=True))
    if len(set(pairs)) < len(pairs):
        raise SiloBenchError("a canary stands twice")
    coins = dict(zip(ids, (bool(m) for m in member), strict=True))
    if any(coins[i] != bool(m) for i, m in zip(ids, member, strict=True)):
        raise SiloBenchError("a canary has two coins")
    if COUNTED not in scores:
        raise SiloBenchError(f"the attack returned no score called '{COUNTED}', from which guesses are made")
    if not (0 <= delta < 1 and 0 < significance < 1):
        raise SiloBenchError(f"delta {delta:g} or significance {significance:g} is out of range")
    if not 0 < len(shares) <= 20 or len(set(shares)) < len(shares) or not all(0 < s <= 1 for s in shares):
        raise SiloBenchError("the shares to guess must be 1 to 20 distinct numbers in (0, 1]")
    if not 1 <= repeat <= 10_000:
        raise SiloBenchError(f"a canary can't stand {repeat} times")
    order = sorted(range(len(ids)), key=lambda i: pairs[i])
    return AuditSheet(
        tuple(ids[i] for i in order),
        tuple(pairs[i][0] for i in order),
        np.asarray(member, dtype=np.bool_)[order],
        _table(scores, order),
        _table(baseline, order),
        delta=float(delta),
        significance=float(significance),
        shares=tuple(float(s) for s in shares),
        repeat=repeat,
    )


def _table(table: Mapping[str, ArrayLike], order: Sequence[int]) -> dict[str, Floats]:
    return {name: _column(name, table[name], order) for name in sorted(table)}


def _column(name: str, values: ArrayLike, order: Sequence[int]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not name or not name.isprintable() or len(name) > form.MAX_NAME or ":" in name:
        raise SiloBenchError(f"a score can't be called '{name:.80}'")
    if array.shape != (len(order),):
        raise SiloBenchError(f"score '{name}' has shape {array.shape}, expected one number for each of {len(order)}")
    if bad := int((~(np.abs(array) <= LARGEST)).sum()):
        raise SiloBenchError(f"score '{name}' is NaN, infinite or beyond {LARGEST:g} for {bad} canaries")
    column: Floats = array[list(order)]
    return column
