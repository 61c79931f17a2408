"""Losses along the rounds, and what their curve says.

d_t = loss under the base model less loss after the t-th known round, t = 1..T; d_0 = 0. Members' losses fall further,
and go on falling when those of others have stopped (Liu et al. 2022, "Membership inference attacks by exploiting loss
trajectory"; in federated learning: Nasr et al. 2019, "Comprehensive privacy analysis of deep learning", section IV).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacks.rounds.calibration import Floats, z_scores
from bench.attack.attack import Tools
from bench.core.tokens import Tokens

if TYPE_CHECKING:
    from bench.view.view import Reading

#: figures that a curve of one point has, and those that need two
SIMPLE, LATER = ("drop", "slope", "area"), ("late", "curvature")


def drops(tools: Tools, models: Sequence[Reading], tokens: Tokens) -> tuple[Floats, Floats]:
    """((T, n) d_t, (n,) base losses)."""
    base = tools.token_stats(None, tokens).losses()
    after = [tools.token_stats(model, tokens).losses() for model in models]
    return np.array([base - loss for loss in after]).reshape(len(models), len(tokens)), base


def told(tools: Tools, models: Sequence[Reading], tokens: Tokens, population: Tokens) -> Mapping[str, Floats]:
    """``figures`` of the records' curve under at least one model, and each with ``-z``: as a z-score against the same
    figure of the population's records, given the base loss."""
    curve, base = drops(tools, models, tokens)
    other, other_base = drops(tools, models, population)
    mine, theirs = figures(curve), figures(other)
    return {**mine, **{f"{name}-z": z_scores(mine[name], theirs[name], base, other_base) for name in mine}}


def figures(curve: Floats) -> Mapping[str, Floats]:
    """Of a (T, n) curve that starts at d_0 = 0, T at least 1: ``drop`` d_T; ``slope`` of the least-squares line through
    d_0..d_T; ``area``, the mean of d_1..d_T; and from T = 2 on ``late``, d_T - d_1, and ``curvature``, the mean second
    difference (d_T - d_{T-1} - d_1) / (T-1): losses that go on falling."""
    whole = np.vstack([np.zeros(curve.shape[1]), curve])
    time = np.arange(len(whole)) - (len(whole) - 1) / 2
    found = {"drop": whole[-1], "slope": time @ whole / (time @ time), "area": curve.mean(0)}
    if len(curve) > 1:
        late = {"late": whole[-1] - whole[1], "curvature": (whole[-1] - whole[-2] - whole[1]) / (len(curve) - 1)}
        found |= late
    return found
