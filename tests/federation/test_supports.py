"""Public supports: derived by everybody from the adapter that a round started from, sent by nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import SiloBenchError
from bench.core.update import Update
from bench.defense.channel import Channel
from bench.defense.compose import Defense
from bench.defense.contexts import RoundContext, TransformContext
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.parts import Transform
from bench.spec.run import Dropout, FederationSpec
from defenses.transforms.quantize import Quantise
from tests.federation.fakes import LAYOUT, DrawnTrainer, drawn, make_setup, run


class Largest(Transform):
    """Sends the half of the coordinates that are largest in the global adapter."""

    def support(self, context: RoundContext) -> Any:
        order = np.argsort(np.abs(context.global_adapter), kind="stable")
        return np.sort(order[LAYOUT.size // 2 :])

    def apply(self, update: Update, context: TransformContext) -> Update:
        return update.restricted(self.support(context))


class OwnLargest(Largest):
    """Broken: chooses by its own update, which nobody else can derive."""

    def apply(self, update: Update, context: TransformContext) -> Update:
        order = np.argsort(np.abs(update.values), kind="stable")
        return update.restricted(np.sort(order[LAYOUT.size // 2 :]))


class SilosOpen(PlainChannel):
    opener = "silos"


def setup_of(transform: Transform, channel: Channel, dropouts: tuple[Dropout, ...] = (), *more: Transform) -> Any:
    defense = Defense(
        trainer=DrawnTrainer(), transforms=(transform, *more), channel=channel, aggregator=Mean(weighted=False)
    )
    return make_setup(FederationSpec(silos=3, rounds=3, dropouts=dropouts), defense)


def expected(setup: Any, transcript: Any, round: int, silos: tuple[int, ...] = (0, 1, 2)) -> Any:
    """By hand: the mean of the drawn updates on the larger half of the adapter before."""
    before = transcript.initial_adapter() if round == 0 else transcript.truth(round - 1, "adapter")
    on = np.sort(np.argsort(np.abs(before), kind="stable")[LAYOUT.size // 2 :])
    after = before.astype(np.float64)
    after[on] += np.mean([drawn(0, i, round)[on] for i in silos], axis=0)
    return on, after


@pytest.mark.parametrize("channel", [PlainChannel(), SilosOpen()])
def test_only_the_support_travels_and_the_rest_stays_as_it_was(channel: Channel, tmp_path: Path) -> None:
    setup = setup_of(Largest(), channel)
    transcript = run(tmp_path, setup)
    for round in range(3):
        on, after = expected(setup, transcript, round)
        np.testing.assert_array_equal(transcript.support(round), on)
        np.testing.assert_allclose(transcript.truth(round, "adapter"), after, atol=1e-6)
    upload = next(m for m in transcript.messages() if m.stage == "upload")
    assert upload.lengths[1] == 16 + 4 * (LAYOUT.size // 2)
    assert len({tuple(transcript.support(r)) for r in range(3)}) > 1


def test_a_silo_that_missed_sums_derives_each_round_s_support_in_turn(tmp_path: Path) -> None:
    away = (Dropout(round=0, silo=1, stage="open"), Dropout(round=1, silo=1, stage="train"))
    setup = setup_of(Largest(), SilosOpen(), away)
    transcript = run(tmp_path, setup)
    _, after = expected(setup, transcript, 2)
    np.testing.assert_allclose(transcript.truth(2, "adapter"), after, atol=1e-6)


def test_a_quantiser_after_it_keeps_the_support(tmp_path: Path) -> None:
    setup = setup_of(Largest(), PlainChannel(), (), Quantise(bits=16, clip=8.0))
    transcript = run(tmp_path, setup)
    _, after = expected(setup, transcript, 0)
    np.testing.assert_allclose(transcript.truth(0, "adapter"), after, atol=8 / 2**14)
    upload = next(m for m in transcript.messages() if m.stage == "upload")
    assert upload.lengths[1] == 16 + 2 * (LAYOUT.size // 2)


def test_a_support_that_others_cannot_derive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiloBenchError, match="public support"):
        run(tmp_path, setup_of(OwnLargest(), PlainChannel()))
