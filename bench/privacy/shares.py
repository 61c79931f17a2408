"""Noise that is not the silo's own alone: what of it protects a silo's update from one adversary.

A silo's update may be covered by noise that it added itself (and that stands alone), by the shares that it and others
added so that they amount to enough in the sum, or by what the opener of the sum added. How much of that counts is no
property of the defense: it follows from what was opened, and to whom. The rule, for each round that the victim was in:

1. Noise of its own that stands alone is counted as it is.
2. Else, of shares: those of silos outside the coalition whose coefficients are the victim's in *everything* of that
   round that the adversary reads. All that it reads is then a function of the sum of these silos' contributions and of
   things independent of their noise. Read are: every sum that was opened (whoever holds the next adapter knows it), and
   what the adversary's view found; where the view is not known in full, the victim's upload alone. So a server that
   reads single uploads meets one share; a coalition that holds all but the victim too; and a silo that dropped out
   before the sum gives none.
3. Else the opener's own noise, measured in the norm bound that the victim's summand stated: only where the coalition
   does not hold the opener, and reads nothing of that round but what was made of the noisy sum.
4. Else nothing protects it, and there is no claim. A round of whose sums and readings it is no part costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.core.parties import SERVER
from bench.defense.parts import Mechanism
from bench.privacy.kinds import Refused

#: mechanisms whose unit is the silo
ALONE, SHARE, OPENER = "gaussian", "skellam-share", "opener-gaussian"
_SILO_LEVEL = frozenset({ALONE, SHARE, OPENER})

#: coefficients by silo of the summands of one round in one reading
Row = Mapping[str, int]


@dataclass(frozen=True)
class Sum:
    """One opened sum. ``bounds``: its silos, each with the norm bound that its summand stated (None: none).
    ``noise``: what the opener added, or None."""

    round: int
    bounds: Mapping[str, float | None]
    noise: Mechanism | None = None


@dataclass(frozen=True)
class Exposure:
    """What one coalition reads. ``rows``: by round, beyond the sums themselves; None: not known. ``blind``: rounds of
    which the view is incomplete."""

    coalition: Collection[str]
    sums: Sequence[Sum] = ()
    rows: Mapping[int, Sequence[Row]] | None = None
    blind: Collection[int] = ()

    def depends(self, logged: Iterable[Mechanism]) -> bool:
        """Whether ``rows`` matter to any claim about what was ``logged``."""
        return any(m.kind == SHARE for m in logged) or any(s.noise is not None for s in self.sums)

    def protecting(self, victim: str, logged: Mapping[str, Sequence[Mechanism]], unit: str) -> list[Mechanism]:
        """The mechanisms between ``victim`` and the coalition, for a promise of ``unit``. Raises Refused."""
        own = [m for m in logged.get(victim, ()) if (m.kind in _SILO_LEVEL) == (unit == "silo")]
        if unit != "silo":
            return own
        alone = [m for m in own if m.kind == ALONE]
        rounds = {m.round for m in own} | {s.round for s in self.sums if victim in s.bounds}
        found = list(alone)
        for round in sorted(rounds - {m.round for m in alone}):
            found += self._of_round(victim, round, logged)
        if not found and not rounds:
            raise Refused(f"nothing was noted of {victim}, so its promise can't be counted")
        return found

    def _of_round(self, victim: str, round: int, logged: Mapping[str, Sequence[Mechanism]]) -> list[Mechanism]:
        sums = [s for s in self.sums if s.round == round]
        read = self._read(victim, round)
        shares = {s: m for s, ms in logged.items() for m in ms if m.kind == SHARE and m.round == round}
        if not any(victim in row for row in (*read, *(s.bounds for s in sums))):
            return []
        if victim in shares:
            return [self._joined(victim, [*read, *(dict.fromkeys(s.bounds, 1) for s in sums)], shares)]
        if SERVER in self.coalition or any(victim in row for row in read):
            raise Refused(f"the adversary reads what {victim} sent in round {round}, and no noise is on it")
        return [_measured(victim, s) for s in sums if victim in s.bounds]

    def _read(self, victim: str, round: int) -> list[Row]:
        """Readings of the round beyond the opened sums; the victim's upload itself where that is not known."""
        if self.rows is None or round in self.blind:
            return [{victim: 1}]
        return [row for row in self.rows.get(round, ()) if row]

    def _joined(self, victim: str, rows: Sequence[Row], shares: Mapping[str, Mechanism]) -> Mechanism:
        """The noise of all silos that go with the victim wherever something of the round is read."""
        mine = [row.get(victim, 0) for row in rows]
        joint = [s for s in shares if s not in self.coalition and [row.get(s, 0) for row in rows] == mine]
        own = shares[victim]
        return Mechanism(
            "skellam",
            {**own.params, "variance": sum(float(shares[s].params["variance"]) for s in joint)},
            own.round,
        )


def _measured(victim: str, opened: Sum) -> Mechanism:
    """The opener's noise as a multiple of the victim's sensitivity."""
    bound, noise = opened.bounds[victim], opened.noise
    if noise is None:
        raise Refused(f"nothing was noted that protects {victim} in round {opened.round}")
    if not bound:
        raise Refused(f"the update of {victim} in round {opened.round} states no norm bound to measure noise in")
    params = {k: v for k, v in noise.params.items() if k != "deviation"}
    return Mechanism(ALONE, {**params, "sigma": float(noise.params["deviation"]) / bound}, opened.round)
