"""In which order the tokens stood: a search over prefixes that the deeper projections' row spaces admit.

What a deeper projection reads at position t depends on the tokens up to t. A prefix is admitted where the input at its
last position lies in the row spaces; prefixes are grown token by token from the tokens already identified, so records
come out as the longest admitted prefixes. A record's last token carries no gradient and is not among them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from attacks.rowspace.algebra import TOLERANCES, Floats, combine
from attacks.rowspace.constraints import Change, Constraint, constraints, judge, largest_rank
from attacks.rowspace.probe import Probe
from bench.core.tokens import Tokens

#: expected number of prefixes admitted by mistake in one step of the search
FALSE_PREFIXES = 0.01
#: records of the population from which the spread of deeper inputs is taken
SAMPLE = 32

Prefix = tuple[int, ...]


class Deeper:
    """The row spaces of the groups after the first, for one update. The model holds the adapter before it."""

    def __init__(self, probe: Probe, change: Mapping[str, Change], groups: int, moments: list[Floats]) -> None:
        self.probe = probe
        self.change = change
        self.groups = min(groups, len(probe.groups))
        self.moments = moments
        self._cache: dict[float, dict[int, list[Constraint]]] = {}

    def constraints(self, tolerance: float) -> dict[int, list[Constraint]]:
        """All constraints of each deeper group of which one can be used."""
        if tolerance not in self._cache:
            found = {
                g: constraints(self.probe.groups[g], self.change, self.moments[g], tolerance)
                for g in range(1, self.groups)
            }
            self._cache[tolerance] = {g: cs for g, cs in found.items() if any(c.usable for c in cs)}
        return self._cache[tolerance]

    def confirm_first(self, tokens: NDArray[np.int64], tolerance: float) -> Floats | None:
        """(n,) log-chance of each token as a record's first; None where nothing can be told."""
        if not any(largest_rank(found)[1] for found in self.constraints(tolerance).values()):
            return None
        return self._log_chance(tokens[:, None], tolerance)

    def positions(self, tolerance: float) -> int:
        """Number of distinct positions that carry gradient, or 0 where no row space tells."""
        return max((largest_rank(found)[0] for found in self.constraints(tolerance).values()), default=0)

    def prefixes(self, tokens: NDArray[np.int64], tolerance: float, records: int) -> list[Prefix]:
        """The longest admitted prefixes over ``tokens``, longest first; empty where no row space tells the order.

        Several local steps blur deeper inputs more than tokens, so ranks are read at ``tolerance`` and then at looser
        ones, until as many prefixes as ``records``, or fewer, account for every position; else the tolerance counts at
        which the ``records`` longest are longest, and the others fewest.
        """
        best: tuple[int, int, list[Prefix]] = (0, 0, [])
        for looser in (t for t in TOLERANCES if t >= tolerance):
            found, complete = self._search(tokens, looser)
            found.sort(key=lambda p: (-len(p), p))
            best = max(best, (sum(map(len, found[:records])), -len(found), found), key=lambda b: b[:2])
            if complete and len(found) <= records:
                return found
        return best[2]

    def _search(self, tokens: NDArray[np.int64], tolerance: float) -> tuple[list[Prefix], bool]:
        """Leaves of the tree of admitted prefixes, and True where it has as many nodes as there are positions.

        A record's first token repeated reads the same everywhere as that token alone, since all its keys and values are
        the same: such runs are followed, for a record may begin so, but they are no further positions and, unless
        nothing follows, no further leaves.
        """
        positions = self.positions(tolerance)
        first = self.confirm_first(tokens, tolerance) if len(tokens) else None
        if first is None:
            return [], False
        level = _admitted([(int(t),) for t in tokens], first, positions)
        leaves: list[Prefix] = []
        count = len(level)
        for _ in range(positions):
            children = [(*prefix, int(t)) for prefix in level for t in tokens]
            if not children or count > positions:
                break
            grown = _admitted(children, self._log_chance(np.array(children), tolerance), positions)
            parents = {child[:-1] for child in grown}
            leaves += [prefix for prefix in level if prefix not in parents]
            level = grown
            count += sum(not _is_run(prefix) for prefix in grown)
        leaves += level
        begun = {prefix[0] for prefix in leaves if not _is_run(prefix)}
        runs = {prefix[:1] for prefix in leaves if _is_run(prefix) and prefix[0] not in begun}
        return [prefix for prefix in leaves if not _is_run(prefix)] + sorted(runs), count == positions

    def _log_chance(self, ids: NDArray[np.integer], tolerance: float) -> Floats:
        """(n,) for the last position of ``ids``; 0 (certain) where it fits none of the groups' row spaces."""
        found = self.constraints(tolerance)
        inputs = self.probe.last_inputs(ids, max(found) + 1)
        chances = [judge(cs, [c.vectors(inputs[g]) for c in cs]) for g, cs in found.items()]
        fits = np.all([chance < 0 for chance in chances], axis=0)
        return np.asarray(np.where(fits, combine(chances), 0.0))


def _is_run(prefix: Prefix) -> bool:
    return len(prefix) > 1 and len(set(prefix)) == 1


def _admitted(prefixes: list[Prefix], chance: Floats, most: int) -> list[Prefix]:
    limit = np.log(FALSE_PREFIXES / len(prefixes))
    order = [i for i in np.argsort(chance, kind="stable") if chance[i] < limit]
    return [prefixes[i] for i in order[: max(most, 1)]]


def input_moments(probe: Probe, population: Tokens, groups: int) -> list[Floats]:
    """Second moments (width, width) of what each group reads, over some of the population; identity without one."""
    rows = [population.ids[i, : population.lengths[i]][None] for i in range(min(SAMPLE, len(population)))]
    rows = rows or [np.array([[0, 1]])]
    total: list[Floats] = []
    count = 0
    for ids in rows:
        inputs = [x[0, 1:].astype(np.float64) for x in probe.inputs(ids, groups)]
        count += ids.shape[1] - 1
        total = [x.T @ x + (total[g] if total else 0.0) for g, x in enumerate(inputs)]
    if not len(population):
        return [np.eye(len(moment)) for moment in total]
    # A small sample does not span the inputs' space: what it leaves out must not count as impossible.
    return [t / count + 1e-3 * np.trace(t) / count / len(t) * np.eye(len(t)) for t in total]
