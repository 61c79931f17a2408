"""Exact aggregation under real channels: what is summed, what is read, and how well quantised products are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.adversaries import Assignment
from bench.core.parties import SERVER
from bench.core.streams import Streams
from bench.defense.compose import Defense
from bench.defense.parts import TrainJob
from bench.model.products import initial_factors, widened
from bench.plugins.find import Plugins
from bench.spec.run import FederationSpec
from bench.transcript.transcript import Transcript
from bench.view.build import build
from bench.view.view import View
from defenses.aggregators.exact import Folded, Stacked
from tests.defenses.test_exact import effective
from tests.federation.fakes import LAYOUT, DrawnTrainer, make_setup, run

#: as far as AdamW moves values in the few steps of a fake round
MOVE = 0.01


class Learning(DrawnTrainer):
    """Moves all values by as much as AdamW does; the same for every silo and round again."""

    def train(self, job: TrainJob) -> Any:
        before = job.model.get_adapter()
        done = super().train(job)
        after = before.copy()
        after[: LAYOUT.size] += MOVE * np.tanh(job.model.get_adapter() - before)[: LAYOUT.size]
        job.model.set_adapter(after)
        return done


def moved(index: int, round: int) -> Any:
    return MOVE * np.tanh(Streams(0).generator("silo", index, round).normal(size=LAYOUT.size).astype(np.float32))


def federate(root: Path, aggregator: Any, channel: str, rounds: int = 2) -> tuple[Any, Transcript]:
    built = Plugins().find("defense", channel).build()
    setup = make_setup(
        FederationSpec(silos=3, rounds=rounds),
        Defense(trainer=Learning(), aggregator=aggregator, transforms=built.transforms, channel=built.channel),
    )
    setup.initial = widened(initial_factors(LAYOUT, np.random.default_rng(0)), setup.public.state)
    return setup, run(root, setup)


CHANNELS = {"plain": 1e-6, "ckks": 2e-3, "rlwe": 0.05, "secagg": 0.05, "bfv": 0.05}


@pytest.mark.parametrize("aggregator", [Folded(), Stacked()], ids=["folded", "stacked"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_any_channel_that_sums_gives_the_mean_of_products(tmp_path: Path, aggregator: Any, channel: str) -> None:
    setup, transcript = federate(tmp_path, aggregator, channel)
    before = transcript.initial_adapter()
    for round in range(2):
        after = np.asarray(transcript.truth(round, "adapter"))
        own = [effective(before, moved(i, round)) - effective(before) for i in range(3)]
        weights = np.array([setup.public.weights[f"silo-{i}"] for i in range(3)], float)
        mean = np.tensordot(weights / weights.sum(), own, 1)
        far = np.linalg.norm(effective(after) - effective(before) - mean) / np.linalg.norm(mean)
        assert far < CHANNELS[channel]
        # and exactly what the opener makes of the sum of what was sent
        summed = sum(np.asarray(transcript.truth(round, f"silo-{i}"), np.float64) for i in range(3))
        again = setup.parts.aggregator.apply(summed, setup.public.silos, before, setup.public)
        loss = 1e-3 * MOVE if channel == "ckks" else 1e-6
        np.testing.assert_allclose(after, again, atol=loss)
        before = after


def seen(setup: Any, transcript: Transcript, root: Path, *coalition: str) -> View:
    victims = tuple(s for s in setup.public.silos if s not in coalition)
    parts = setup.parts
    assignment = Assignment(frozenset(coalition), victims)
    return build(transcript, parts, "x", assignment, root / "-".join(["view", *coalition]))


@pytest.mark.parametrize("channel", ["secagg", "rlwe"])
def test_secure_sums_hide_a_silos_product_and_not_its_slot(tmp_path: Path, channel: str) -> None:
    setup, transcript = federate(tmp_path / "folded", Folded(), channel)
    view = seen(setup, transcript, tmp_path / "folded", SERVER)
    assert not view.uploads()
    assert {len(r.silos) for r in view.readings if r.kind == "sum"} == {3}

    setup, transcript = federate(tmp_path / "stacked", Stacked(), channel)
    view = seen(setup, transcript, tmp_path / "stacked", SERVER)
    uploads = {(r.round, *r.silos): r for r in view.uploads()}
    assert set(uploads) == {(round, f"silo-{i}") for round in range(2) for i in range(3)}
    for (round, name), reading in uploads.items():
        before = transcript.initial_adapter() if round == 0 else np.asarray(transcript.truth(round - 1, "adapter"))
        trained = before[: LAYOUT.size] + moved(int(name[-1]), round)
        np.testing.assert_allclose(reading.adapter[: LAYOUT.size], trained, atol=5e-4)


def test_a_key_that_silos_share_opens_products_and_slots(tmp_path: Path) -> None:
    for name, aggregator in (("folded", Folded()), ("stacked", Stacked())):
        setup, transcript = federate(tmp_path / name, aggregator, "ckks")
        assert not seen(setup, transcript, tmp_path / name, SERVER).uploads()
        silo = seen(setup, transcript, tmp_path / name, "silo-0")
        assert {s for r in silo.uploads() for s in r.silos} == ({"silo-1", "silo-2"} if name == "stacked" else set())
        both = seen(setup, transcript, tmp_path / name, SERVER, "silo-0")
        assert {s for r in both.uploads() for s in r.silos} == {"silo-1", "silo-2"}
