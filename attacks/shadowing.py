"""What attacks with shadow federations read: each candidate's likelihood under the target and under every shadow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.attack.attack import Candidates, Shadow, Tools
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.stats import midranks

if TYPE_CHECKING:
    from bench.view.view import Reading, View

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: likelihoods are taken as at least this: a token of probability 0 must not make two ratios incomparable
TINY = 1e-300


@dataclass(frozen=True)
class Models:
    """What was opened of one silo: the target's reading, and a reading of the same kind of each shadow."""

    rows: NDArray[np.int64]
    target: Reading
    references: tuple[Reading, ...]


@dataclass(frozen=True)
class Evidence:
    """``models``: one entry for each silo of which something opened. ``member``: (n, shadows), which of all candidates
    each shadow that is used trained on."""

    models: tuple[Models, ...]
    member: Bools
    reads: tuple[str, ...]


def by_silo(candidates: Candidates) -> dict[str, NDArray[np.int64]]:
    """Rows of each silo's candidates, in an order that depends on their tokens alone: whoever asks about the same
    candidates of a silo, in whatever order, shares the forward passes."""
    ids, silos = candidates.tokens.ids, np.array(candidates.silos)
    order = np.array(sorted(range(len(ids)), key=lambda i: ids[i].tolist()), dtype=np.int64)
    return {str(silo): order[silos[order] == silo] for silo in np.unique(silos)}


def describe(reading: Reading) -> str:
    """What was read, for the result: "upload of silo-1, round 2"."""
    if reading.kind == "upload":
        return f"upload of {', '.join(sorted(reading.silos))}, round {reading.round}"
    return "queries of the released model" if reading.kind == "query" else f"adapter after round {reading.round}"


def gather(name: str, view: View, candidates: Candidates, shadows: Sequence[Shadow]) -> Evidence:
    """The target's and the shadows' last readings of each silo.

    A shadow is used where of every silo that the target's view opens it opens a reading of the same kind: likelihoods
    under an upload and under a global adapter don't compare. Raises SiloBenchError where no shadow can be used.
    """
    if not shadows:
        raise SiloBenchError(f"{name} needs shadow federations, and was handed none")
    rows = by_silo(candidates)
    targets = {silo: reading for silo in rows if (reading := view.last_adapter(silo)) is not None}
    usable, found = [], []
    for shadow in shadows:
        if np.shape(shadow.member) != (len(candidates.ids),):
            raise SiloBenchError(f"{name} was handed a shadow that knows {np.shape(shadow.member)} candidates")
        readings = {silo: shadow.view.last_adapter(silo) for silo in targets}
        if all((r := readings[silo]) is not None and r.kind == target.kind for silo, target in targets.items()):
            usable.append(shadow)
            found.append(readings)
    if not usable:
        raise SiloBenchError(
            f"{name} has {len(shadows)} shadow federations, and none opens what the target's view does"
        )
    models = tuple(
        Models(rows[silo], target, tuple(r for readings in found if (r := readings[silo]) is not None))
        for silo, target in targets.items()
    )
    reads = [describe(targets[silo]) if silo in targets else f"nothing of {silo}" for silo in rows]
    reads.append(f"the same of {len(usable)} shadow federations")
    return Evidence(models, np.stack([shadow.member for shadow in usable], axis=1), tuple(dict.fromkeys(reads)))


def likelihoods(tools: Tools, readings: Sequence[Reading | None], tokens: Tokens) -> Floats:
    """(n, readings) exp of the mean log-probability per token, in (0, 1]: per token, so that records of different
    lengths compare. None among the readings: the base model."""
    columns = [np.exp(-tools.token_stats(reading, tokens).losses()) for reading in readings]
    found: Floats = np.clip(np.stack(columns, axis=1), TINY, 1.0)
    return found


def known_population(tools: Tools, limit: int) -> Tokens:
    """At most ``limit`` records of the population, chosen by an order that depends on their tokens alone."""
    ids = tools.population.ids
    order = sorted(range(len(ids)), key=lambda i: ids[i].tolist())
    return tools.population.take(np.random.default_rng(0).permutation(order)[:limit])


def auc(scores: Floats, member: Bools) -> float | None:
    """P(member above non-member) + half of the ties; None without both."""
    members, others = int(member.sum()), int((~member).sum())
    if not members or not others:
        return None
    above = float(midranks(scores)[member].sum()) - members * (members + 1) / 2
    return above / (members * others)


def checked(target: Floats, references: Floats, member: Bools) -> tuple[Floats, Floats, Bools]:
    """Arrays of shapes (n,), (n, models), (n, models), as float64 and bool. Raises ValueError for other shapes, no
    model, or values that are not finite."""
    target, references = np.asarray(target, np.float64), np.asarray(references, np.float64)
    flags = np.asarray(member)
    if target.ndim != 1 or references.ndim != 2 or len(references) != len(target) or not references.shape[1]:
        raise ValueError(
            f"expected target (candidates,) and references (candidates, models), got {target.shape}, {references.shape}"
        )
    if flags.shape != references.shape or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"expected one flag of membership for each of {references.shape}, got {flags.shape}")
    if not (np.isfinite(target).all() and np.isfinite(references).all()):
        raise ValueError("values of the target and the references must be finite")
    return target, references, flags.astype(np.bool_)


def mean_where(values: Floats, mask: Bools) -> tuple[Floats, NDArray[np.int64]]:
    """(n,) mean of each row over ``mask`` (NaN where it is empty), and how many there were."""
    count = mask.sum(axis=1)
    total = np.where(mask, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0), count
