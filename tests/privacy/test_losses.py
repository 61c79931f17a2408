"""Distributions of losses: those of ``dp_accounting``, to the last bit, computed for all losses at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

from bench.privacy.accountant import _event
from bench.privacy.losses import _amplified, composed, deltas


@pytest.mark.parametrize("side", [AdjacencyType.ADD, AdjacencyType.REMOVE])
@pytest.mark.parametrize(("rate", "sigma"), [(0.25, 0.8), (0.01, 3.0), (0.999, 0.5), (1.0, 2.0)])
def test_excesses_are_the_library_s(side, rate, sigma) -> None:
    loss = GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=side)
    ends = loss.connect_dots_bounds()
    extreme = [] if rate == 1 else [(1 if side == AdjacencyType.REMOVE else -1) * math.log(1 - rate)]
    # the edge of what sampling leaves, and beyond it; no loss at all; every size of loss that occurs
    asked = np.array(sorted([*extreme, -30.0, 0.0, 30.0, *np.linspace(ends.epsilon_lower, ends.epsilon_upper, 300)]))
    assert deltas(loss, sigma, asked).tolist() == loss.get_delta_for_epsilon(asked).tolist()


def test_losses_that_sampling_can_not_have_are_refused_as_there() -> None:
    impossible = 2 * math.log(1 - 0.25)
    with pytest.raises(ValueError, match="smaller than"):
        GaussianPrivacyLoss(1.0, sampling_prob=0.25).inverse_privacy_loss(impossible)
    with pytest.raises(ValueError, match="leaves no loss"):
        _amplified(0.25, np.array([0.5, impossible]))


@pytest.mark.parametrize(
    "steps",
    [((0.3, 1.0, 10),), ((1.0, 3.0, 4),), ((0.05, 0.7, 200), (1.0, 3.0, 2)), ((0.25, 1.0, 16), (0.25, 2.0, 4)), ()],
)
def test_epsilon_is_the_library_s(steps) -> None:
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(_event(steps))
    for delta in (1e-2, 1e-5):
        assert composed(steps, 1e-3).get_epsilon_for_delta(delta) == accountant.get_epsilon(delta)
