"""The sums, differences and single summands that a coalition has, and what follows from them linearly.

Every reading is a linear combination of summands (round, silo). The coalition's own are taken out of each; what is left
of several is combined by Gaussian elimination, so that sums that differ by one silo give that silo, and a sum with the
differences between its parts gives every part. Values lie on disk and are combined one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.files import private_folder
from bench.core.npy import save
from bench.core.update import Terms
from bench.view.elimination import ZERO, Unknown, components, eliminate
from bench.view.openers.base import Guess
from bench.view.truth import Truth, Verdict

Key = Unknown
Own = Callable[[int, str], NDArray[np.floating] | None]


@dataclass(frozen=True)
class Row:
    """One reading: its terms, where its values lie, how it was got, and its error (absolute, L2). ``improvable``: the
    channel gave it with a loss, and the harness may do better."""

    terms: Terms
    path: Path
    how: str
    error: float = 0.0
    unchecked: bool = False
    xor: bool = False
    improvable: bool = False
    support: Path | None = None

    def load(self) -> NDArray[Any]:
        return np.asarray(np.load(self.path, allow_pickle=False, mmap_mode="r"))

    @property
    def coefficients(self) -> dict[Key, int]:
        return {(round, silo): c for round, silo, c in self.terms}


class Ledger:
    """Rows by their terms. ``own`` gives the coalition's own summands."""

    def __init__(self, folder: Path, truth: Truth, coalition: frozenset[str], own: Own) -> None:
        private_folder(folder)
        self.rows: dict[Terms, Row] = {}
        #: some coordinates of a sum or summand; nothing is combined of them
        self.partial: dict[Terms, Row] = {}
        self._folder, self._truth, self._coalition, self._own = folder, truth, coalition, own
        self._tried: set[tuple[Terms, tuple[str, ...]]] = set()
        self._written = 0
        #: what was worked out already: rows that hang together, with the unknowns that were left in them
        self._solved: set[tuple[frozenset[str], frozenset[Key]]] = set()

    def has(self, terms: Terms) -> bool:
        """Whether ``terms``, less the coalition's own, are read as well as they can be."""
        rest = self._others(terms)
        row = self.rows.get(rest)
        return not rest or (row is not None and not row.improvable)

    def _others(self, terms: Terms) -> Terms:
        """The terms of others; -x is stored as x."""
        rest = tuple(term for term in terms if term[1] not in self._coalition)
        if all(coefficient == -1 for _, _, coefficient in rest):
            return tuple((round, silo, 1) for round, silo, _ in rest)
        return rest

    def single(self, round: int, silo: str) -> NDArray[np.floating] | None:
        """One summand: the coalition's own, or an opened one. None where neither."""
        if silo in self._coalition:
            return self._own(round, silo)
        row = self.rows.get(((round, silo, 1),))
        return None if row is None else row.load()

    def add(self, guess: Guess, loss: float = 0.0, improvable: bool = False) -> bool:
        """Keep ``guess`` if it agrees with what was sent. True where the ledger grew.

        ``loss``: absolute L2 error that its origin explains. ``improvable``: keep looking unless it is exact.
        """
        if guess.form == "xor":
            return self._add_xor(guess)
        if guess.support is not None:
            return self._add_partial(guess, guess.support)
        verdict = self._truth.judge(guess.terms, guess.values, loss, guess.rough, guess.factor)
        if not verdict.agrees:
            return False
        values = guess.values
        if verdict.factor != 1.0:
            values = values.astype(np.float64) * verdict.factor
        return self._store(guess.terms, values, guess.how, verdict, improvable)

    def _store(
        self, terms: Terms, values: NDArray[np.floating], how: str, verdict: Verdict, improvable: bool = False
    ) -> bool:
        """Take the coalition's own part out of a judged row, and store what is left unless it is read already."""
        if any(silo in self._coalition for _, silo, _ in terms):
            return self._without_own(terms, values, how, verdict)
        held = self.rows.get(terms)
        if held is not None and not (held.improvable and verdict.error < held.error / 2):
            return False
        improvable = improvable and not verdict.exact
        self.rows[terms] = Row(terms, self._save(values), how, verdict.error, verdict.unchecked, improvable=improvable)
        if held is not None:
            held.path.unlink()
        return True

    def _without_own(self, terms: Terms, values: NDArray[np.floating], how: str, verdict: Verdict) -> bool:
        rest = self._others(terms)
        if not rest or rest in self.rows:
            return False
        left = values.astype(np.float64)
        for round, silo, coefficient in terms:
            if silo in self._coalition:
                summand = self._own(round, silo)
                if summand is None:
                    return False
                left -= coefficient * summand
        if not set(rest) <= set(terms):
            left = -left
        return self._add_derived(rest, left, f"{how}, less its own part", verdict.error + _rounding(values), verdict)

    def _add_derived(self, terms: Terms, values: NDArray[np.floating], how: str, loss: float, of: Verdict) -> bool:
        """Judge what follows from a row that was judged as ``of``."""
        verdict = self._truth.judge(terms, values, loss)
        verdict = replace(verdict, unchecked=verdict.unchecked or of.unchecked)
        return verdict.agrees and self._store(terms, values, how, verdict)

    def _add_partial(self, guess: Guess, support: NDArray[np.int64]) -> bool:
        """What is true at some coordinates only, about others only."""
        terms = guess.terms
        if terms in self.partial or self.has(terms) or any(silo in self._coalition for _, silo, _ in terms):
            return False
        verdict = self._truth.judge(terms, guess.values, rough=guess.rough, factor=guess.factor, support=support)
        if verdict.agrees:
            values = np.zeros(len(guess.values))
            values[support] = guess.values[support] * verdict.factor
            paths = self._save(values), self._save(support)
            self.partial[terms] = Row(terms, paths[0], guess.how, verdict.error, verdict.unchecked, support=paths[1])
        return verdict.agrees

    def _add_xor(self, guess: Guess) -> bool:
        if guess.terms in self.rows or any(s in self._coalition for _, s, _ in guess.terms):
            return False
        verdict = self._truth.judge_xor(guess.terms, guess.values)
        if verdict.agrees:
            path = self._save(guess.values)
            self.rows[guess.terms] = Row(guess.terms, path, guess.how, 0.0, verdict.unchecked, xor=True)
        return verdict.agrees

    def _save(self, values: NDArray[Any]) -> Path:
        self._written += 1
        path = self._folder / f"{self._written:06d}.npy"
        save(path, values, private=True)
        return path

    def rows_of(self, round: int, silos: Sequence[str]) -> list[Row] | None:
        """The rows that give the sum of the others' summands among ``silos``: one, or one by one. None where none
        do."""
        others = tuple(sorted((round, silo, 1) for silo in silos if silo not in self._coalition))
        row = self.rows.get(others)
        rows = [row] if row is not None else [self.rows[(term,)] for term in others if (term,) in self.rows]
        return rows if row is not None or len(rows) == len(others) else None

    def total(self, round: int, silos: Sequence[str]) -> tuple[NDArray[np.float64], bool] | None:
        """(sum, unchecked) of ``silos``' summands in ``round``, from a known sum of the others and the coalition's own,
        or one by one. None where it does not follow."""
        rows = self.rows_of(round, silos)
        if rows is None:
            return None
        found: NDArray[np.float64] | None = None
        unchecked = False
        for part in rows:
            values = part.load()
            found = values.astype(np.float64) if found is None else found + values
            unchecked = unchecked or part.unchecked
        for silo in silos:
            if silo in self._coalition:
                summand = self._own(round, silo)
                if summand is None:
                    return None
                found = summand.astype(np.float64) if found is None else found + summand
        return None if found is None else (found, unchecked)

    def settle(self) -> bool:
        """Add what follows from the rows by elimination. True where the ledger grew. Rows that were worked out already
        and of which nothing more is known are not worked out again."""
        rows = [row for row in self.rows.values() if len(row.terms) > 1 and not row.xor]
        unknown = [
            {key: float(c) for key, c in row.coefficients.items() if ((*key, 1),) not in self.rows} for row in rows
        ]
        grew = False
        for numbers in components(unknown):
            names = frozenset(rows[n].path.name for n in numbers)
            problem = names, frozenset(key for n in numbers for key in unknown[n])
            if problem in self._solved:
                continue
            self._solved.add(problem)
            for found in eliminate({n: unknown[n] for n in numbers}):
                terms = _plain_sum(found.terms)
                if terms is not None and not self.has(terms):
                    used = [(n, weight) for n, weight in found.weights.items() if abs(weight) > ZERO]
                    parts = [(rows[n], rows[n].coefficients.keys() - unknown[n].keys(), weight) for n, weight in used]
                    grew |= self._combine(terms, parts)
        return grew

    def _combine(self, terms: Terms, parts: Sequence[tuple[Row, set[Key], float]]) -> bool:
        """Add the weighted sum of rows, each less its known single summands."""
        attempt = (terms, tuple(sorted(row.path.name for row, _, _ in parts)))
        if attempt in self._tried:
            return False
        self._tried.add(attempt)
        values = np.zeros(parts[0][0].load().shape)
        loss = 0.0
        for row, known, weight in parts:
            part = row.load()
            values += weight * part
            loss += abs(weight) * (row.error + _rounding(part))
            for key in known:
                single = self.single(*key)
                if single is not None:
                    values -= weight * row.coefficients[key] * single
                loss += abs(weight) * self._error_of(key)
        how = " and ".join(dict.fromkeys(row.how for row, _, _ in parts))
        unchecked = any(row.unchecked for row, _, _ in parts)
        return self._add_derived(terms, values, f"combined: {how}", loss, Verdict(True, unchecked=unchecked))

    def _error_of(self, key: Key) -> float:
        row = self.rows.get(((*key, 1),))
        return 0.0 if row is None else row.error


def _plain_sum(combination: Mapping[Key, float]) -> Terms | None:
    """The terms of a combination whose coefficients are all 1, in one round."""
    if any(abs(c - 1.0) > ZERO for c in combination.values()) or len({round for round, _ in combination}) > 1:
        return None
    return tuple(sorted((round, silo, 1) for round, silo in combination))


def _rounding(values: NDArray[np.floating]) -> float:
    """What float32 keeps of values this large, as an absolute L2 error."""
    return 2.0**-24 * float(np.linalg.norm(values))
