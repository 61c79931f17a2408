"""Server optimisers: by hand, against PyTorch's, backwards, and what a view makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.streams import State
from bench.defense.compose import Defense
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.spec.run import FederationSpec
from defenses import fedadam, fedavgm, fedprox
from defenses.steps.optimisers import Adam, Momentum
from tests.federation.fakes import DrawnTrainer, drawn, make_setup, run
from tests.view.synthetic import Synthetic


def test_momentum_is_pytorch_s() -> None:
    changes = np.random.default_rng(0).normal(size=(4, 5))
    ours, memory = np.zeros(5), {}
    theirs = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([theirs], lr=0.7, momentum=0.6)
    part = Momentum(lr=0.7, beta=0.6)
    for change in changes:
        ours = ours + part.move(change, memory)
        theirs.grad = torch.from_numpy(-change)
        optimiser.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12)


def test_adam_s_two_steps_by_hand() -> None:
    part, memory = Adam(lr=0.1, b1=0.5, b2=0.5, tau=1.0), {}
    # v starts at 1: m = 1, v = .5 + 2 = 2.5; then m = .5 - 1 = -.5, v = 1.25 + 2 = 3.25
    assert part.move(np.array([2.0]), memory)[0] == pytest.approx(0.1 * 1.0 / (2.5**0.5 + 1))
    assert part.move(np.array([-2.0]), memory)[0] == pytest.approx(0.1 * -0.5 / (3.25**0.5 + 1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1e-2, 1.0]))
def test_who_sees_the_adapter_move_learns_the_changes_or_is_told_that_it_can_not(seed: int, scale: float) -> None:
    changes = scale * np.random.default_rng(seed).normal(size=(5, 300))
    told = 0
    for part in (Momentum(0.5, 0.9), Adam(lr=0.01)):
        seen: State = {}
        kept: State = {}
        for change in changes:
            moved = part.move(change, kept)
            found = part.undo(moved, seen)
            if found is None:
                assert isinstance(part, Adam)
                break
            assert np.linalg.norm(found - change) <= 1e-3 * np.linalg.norm(change)
            told += 1
    assert told >= 6  # all of momentum's, and Adam's first


def test_the_memory_outlives_rounds_in_the_party_s_state(tmp_path: Path) -> None:
    defense = Defense(trainer=DrawnTrainer(), aggregator=Mean(weighted=False), steps=(Momentum(1.0, 0.5),))
    transcript = run(tmp_path, make_setup(FederationSpec(silos=2, rounds=3), defense))
    means = [np.mean([drawn(0, i, r) for i in range(2)], axis=0) for r in range(3)]
    total, momentum = transcript.initial_adapter().astype(np.float64), np.zeros(len(means[0]))
    for mean in means:
        momentum = 0.5 * momentum + mean
        total = total + momentum
    np.testing.assert_allclose(transcript.truth(2, "adapter"), total, atol=1e-5)


@pytest.mark.parametrize("step", [Momentum(1.0, 0.5), Adam(lr=0.01)], ids=["momentum", "adam"])
def test_a_silo_of_two_learns_the_other_s_update_from_the_adapters_alone(step: Any, tmp_path: Path) -> None:
    """The server's broadcasts show every move; with the memory taken off, a sum of two less one's own is the other."""

    class Hidden(PlainChannel):
        def read(self, knowledge: Any) -> Any:
            return ()

    run_of_two = Synthetic(tmp_path / "run", Hidden(), silos=2, rounds=3, size=200, steps=[step])
    view = run_of_two.view(tmp_path / "view", "silo", "silo-0")
    found = {(r.round, *r.silos) for r in view.uploads()}
    assert (0, "silo-1") in found
    assert isinstance(step, Adam) or found == {(r, "silo-1") for r in range(3)}
    # what the adapters do not tell is said, and nothing else is
    told = {round for round, _ in found}
    assert view.lost == tuple((round, "Adam") for round in range(3) if round not in told)
    for reading in view.uploads():
        truth = run_of_two.summand(reading.round, "silo-1")
        assert np.linalg.norm(reading.values - truth) < 2e-2 * np.linalg.norm(truth)


def test_the_named_defenses_bring_what_they_say() -> None:
    for module, step in ((fedavgm, Momentum), (fedadam, Adam)):
        built = module.build(module.Config())
        assert ([type(part) for part in built.steps], built.aggregator) == ([step], None)
        alike = module.build(module.Config(weighted=False)).aggregator
        assert alike is not None
        assert alike.weight(30) == 1
    assert fedprox.build(fedprox.Config(mu=0.3)).trainer.mu == 0.3  # type: ignore[union-attr]


def test_the_proximal_term_by_hand() -> None:
    from defenses.trainers.prox import ProximalTrainer

    parameters = [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([[3.0]]))]
    distance = ProximalTrainer(0.5).penalty(parameters)
    assert float(distance()) == 0.0
    with torch.no_grad():
        parameters[0] += torch.tensor([1.0, -2.0])
        parameters[1] += 2.0
    assert float(distance()) == pytest.approx(0.25 * (1 + 4 + 4))
    distance().backward()
    torch.testing.assert_close(parameters[1].grad, torch.tensor([[0.5 * 2.0]]))
