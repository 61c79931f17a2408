"""One silo's update against those of the other silos, which cannot have trained on that silo's records.

The statistic of record i under the victim's update, less its mean under the other silos' updates of the same round, is
what FedMIA tests (Zhu et al. 2025, "FedMIA: an effective membership inference attack exploiting the 'all for one'
principle in federated learning"): p = P(S > s), S normal with the mean and the deviation that the others show. Two
others give a mean and no deviation worth the name, so the deviation of the difference is pooled: over population
records, for which the victim is one silo among others, as a regression on their difficulty (``calibration``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attacks.rounds.calibration import Floats, z_scores
from attacks.rounds.tracks import Step, own_step
from bench.attack.attack import Tools
from bench.core.tokens import Tokens
from bench.core.update import Layout
from bench.model.gradients import measure

if TYPE_CHECKING:
    from bench.view.view import Reading, View


def other_uploads(view: View, silo: str, round: int) -> tuple[Reading, ...]:
    """Uploads of the other silos in ``round``, of which it is known what they started from."""
    found = [r for r in view.uploads(round=round) if silo not in r.silos and own_step(view, r) is not None]
    return tuple(sorted(found, key=lambda r: sorted(r.silos)))


def rest_of_the_sum(view: View, step: Step, layout: Layout) -> Floats | None:
    """(layout.size,) the other silos' mean step, from the next global adapter less the victim's part: for a mean with
    public weights. None where that adapter is not known, or the victim was alone in its round."""
    after = next((r for r in view.adapters() if r.round == step.round), None)
    weights = {s: view.public.weights[s] for s in view.public.participants[step.round]}
    rest = sum(weights.values()) - weights.get(step.silo or "", 0)
    values = None if after is None else after.adapter
    if values is None or rest <= 0:
        return None
    mean = values[: layout.size].astype(np.float64) - step.before()[: layout.size]
    mine = weights.get(step.silo or "", 0)
    whole: Floats = (sum(weights.values()) * mean - mine * step.update(layout)) / rest
    return whole


def cosine_margin(tools: Tools, step: Step, others: Sequence[Floats], tokens: Tokens) -> Floats:
    """(n,) the cosine of each record's gradient with the victim's step, less its mean with the ``others``; less 0 where
    there is none."""
    layout = tools.model.layout
    directions = [-step.update(layout), *(-other for other in others)]
    cosines = measure(tools.record_gradients(step.before(), tokens), layout, directions).cosines
    return margin(cosines[:, 0], cosines[:, 1:])


def loss_margin(tools: Tools, own: Reading, others: Sequence[Reading | None], tokens: Tokens) -> Floats:
    """(n,) how much lower each record's loss is under the victim's model than under the ``others``', on average."""
    theirs = np.array([-tools.token_stats(other, tokens).losses() for other in others]).T
    return margin(-tools.token_stats(own, tokens).losses(), theirs)


def margin(mine: Floats, others: Floats) -> Floats:
    """(n,) ``mine`` (n,) less the mean of ``others`` (n, m), m 0 or more."""
    return mine - others.mean(1) if others.shape[1] else mine


def evidence(z: Floats) -> Floats:
    """(n,) -log p of the one-sided test, in nats: 0.69 where the victim's update is like the others'. It orders as the
    paper's 1 - p does, and neither saturates nor ties far out; its mean over rounds is Fisher's combination."""
    from scipy.special import log_ndtr

    found: Floats = -log_ndtr(-z)
    return found


def tested(values: Floats, reference: Floats, tools: Tools, tokens: Tokens, population: Tokens) -> Floats:
    """(n,) ``evidence`` of margins ``values`` (n,) against those of the population, ``reference`` (p,)."""
    hard, other_hard = (tools.token_stats(None, part).losses() for part in (tokens, population))
    return evidence(z_scores(values, reference, hard, other_hard))
