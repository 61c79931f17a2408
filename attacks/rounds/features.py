"""All that one record shows, from every family of attacks: z-scores against the population, higher for members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attacks import scores
from attacks.rounds import curves, slopes
from attacks.rounds.calibration import Floats, z_scores
from attacks.rounds.tracks import Step
from bench.attack.attack import Tools
from bench.core.tokens import Tokens

if TYPE_CHECKING:
    from bench.view.view import Reading

#: the features of each family that enter the plain mean: those whose sign theory fixes, whatever the optimiser and the
#: number of rounds
MEANT: Mapping[str, tuple[str, ...]] = {
    "likelihood": ("loss-base", "zlib-base", "min-20%-base", "window-mean", "wbc"),
    "trajectory": ("drop", "slope", "area"),
    "gradient": ("cosine", "projection", "fall", "layers", "row-space"),
}

Features = Mapping[str, Floats]


@dataclass(frozen=True)
class Records:
    """n records and their texts."""

    tokens: Tokens
    texts: Sequence[str]


def features(
    tools: Tools, models: Sequence[Reading], steps: Sequence[Step], records: Records, population: Records
) -> Features:
    """{"family/name": (n,) z-scores}. ``models``: of the training, at least one, by round; ``steps``: known ones, maybe
    none. Passes are shared with the attacks of each family."""
    # gradients first: their passes give the losses besides
    made = slopes.passes(tools, steps, records.tokens, population.tokens) if steps else None
    found = {f"likelihood/{k}": v for k, v in _likelihood(tools, models[-1], records, population).items()}
    curve = curves.told(tools, models, records.tokens, population.tokens)
    found |= {f"trajectory/{k[:-2]}": v for k, v in curve.items() if k.endswith("-z")}
    if made is not None:
        told = slopes.tell(tools, steps, records.tokens, population.tokens, made)
        found |= {f"gradient/{k[:-2]}": v for k, v in told.items() if k.endswith("-z")}
    return found


def _likelihood(tools: Tools, model: Reading, records: Records, population: Records) -> Features:
    (mine, hard), (theirs, other_hard) = (_family(tools, model, part) for part in (records, population))
    return {name: z_scores(mine[name], theirs[name], hard, other_hard) for name in mine}


def _family(tools: Tools, model: Reading, records: Records) -> tuple[Features, Floats]:
    """The likelihood scores of ``mia``, and the base model's losses."""
    after, before = tools.token_stats(model, records.tokens), tools.token_stats(None, records.tokens)
    tuned, _ = scores.from_stats(after, records.texts, (0.2,))
    base, _ = scores.from_stats(before, records.texts, (0.2,))
    pair, _ = scores.from_pair(after, before, scores.WINDOWS)
    return tuned | scores.calibrated(tuned, base) | pair, before.losses()


def squash(z: Floats) -> Floats:
    """sign(z) log(1 + |z|): in order, and no single figure far out outweighs all others."""
    found: Floats = np.sign(z) * np.log1p(np.abs(z))
    return found


def mean(known: Features) -> Floats:
    """The plain mean of the families' means of their squashed features in ``MEANT``."""
    families = []
    for family, names in MEANT.items():
        values = [squash(known[f"{family}/{n}"]) for n in names if f"{family}/{n}" in known]
        families += [np.mean(values, axis=0)] if values else []
    found: Floats = np.mean(families, axis=0)
    return found
