"""Values that are every silo's own: trained on with its own, never sent, followed by no global adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UsageError
from bench.core.parties import PUBLIC
from bench.defense.compose import Defense, compose
from bench.spec.run import Dropout, FederationSpec
from bench.training.measure.metrics import MetricValue, mean_of
from bench.training.measure.utility import models
from bench.transcript.transcript import Transcript
from defenses import ckks, fedsa_lora, local
from defenses.aggregators.shared import SharedFactor
from tests.federation.fakes import LAYOUT, DrawnTrainer, drawn, make_setup, run

A = slice(0, 24)  # LAYOUT: lora_A (4, 6), then lora_B (5, 4)
B = slice(24, 44)


def federation(defense: Defense, root: Path, **options: Any) -> Transcript:
    trained = Defense(trainer=DrawnTrainer(), channel=defense.channel, aggregator=defense.aggregator)
    return run(root, make_setup(FederationSpec(silos=3, rounds=3, **options), trained))


def test_only_a_is_shared_and_every_b_goes_its_own_way(tmp_path: Path) -> None:
    transcript = federation(fedsa_lora.build(fedsa_lora.Config(weighted=False)), tmp_path)
    start = transcript.initial_adapter()
    changes = np.array([[drawn(0, i, r) for i in range(3)] for r in range(3)])  # (rounds, silos, values)
    adapter = transcript.truth(2, "adapter")
    np.testing.assert_allclose(adapter[A], start[A] + changes[:, :, A].mean(1).sum(0), atol=1e-5)
    np.testing.assert_array_equal(adapter[B], start[B])  # nobody sent one
    personal = SharedFactor("lora_A").plan(LAYOUT, ()).personal
    np.testing.assert_array_equal(personal, np.arange(24, 44))
    own = list(models(transcript, personal, 2))
    assert len(own) == 3
    for i, values in enumerate(own):
        np.testing.assert_allclose(values[B], start[B] + changes[:, i, B].sum(0), atol=1e-5)
        np.testing.assert_array_equal(values[A], adapter[A])
    for message in transcript.messages():
        if message.stage == "upload":
            assert message.lengths[1] == 16 + 4 * 24


def test_nobody_talks(tmp_path: Path) -> None:
    transcript = federation(local.build(local.Config()), tmp_path, release="every-round")
    assert {(m.round, m.stage, m.sender) for m in transcript.messages()} == {(0, "broadcast", "server")}
    assert not any(PUBLIC in m.receivers for m in transcript.messages())
    start = transcript.initial_adapter()
    np.testing.assert_array_equal(transcript.truth(2, "adapter"), start)
    own = list(models(transcript, SharedFactor(None).plan(LAYOUT, ()).personal, 2))
    for i, values in enumerate(own):
        np.testing.assert_allclose(values, start + sum(drawn(0, i, r) for r in range(3)), atol=1e-5)


def test_a_silo_that_was_away_keeps_what_it_had(tmp_path: Path) -> None:
    away = (Dropout(round=2, silo=1, stage="train"), Dropout(round=0, silo=2, stage="train"))
    transcript = federation(local.build(local.Config()), tmp_path, dropouts=away)
    start = transcript.initial_adapter()
    personal = SharedFactor(None).plan(LAYOUT, ()).personal
    assert len(list(models(transcript, personal, 0))) == 2  # the third has no model yet
    last = list(models(transcript, personal, 2))
    np.testing.assert_allclose(last[1], start + drawn(0, 1, 0) + drawn(0, 1, 1), atol=1e-5)
    np.testing.assert_allclose(last[2], start + drawn(0, 2, 1) + drawn(0, 2, 2), atol=1e-5)


def test_without_personal_values_there_is_one_model(tmp_path: Path) -> None:
    transcript = federation(Defense(), tmp_path)
    (only,) = models(transcript, None, 1)
    np.testing.assert_array_equal(only, transcript.truth(1, "adapter"))


def test_local_has_no_channel_to_encrypt() -> None:
    with pytest.raises(UsageError, match="each brings its own channel"):
        compose([("local", local.build(local.Config())), ("ckks", ckks.build(ckks.Config()))])


def test_the_mean_over_models_by_hand() -> None:
    one = [MetricValue("p", 2.0, 1.0, 3.0, 9, "lower"), MetricValue("a", 0.5, None, None, 9, "higher")]
    two = [MetricValue("p", 4.0, 2.0, 6.0, 9, "lower"), MetricValue("a", 0.7, 0.1, 0.9, 9, "higher")]
    assert mean_of([one, two]) == [
        MetricValue("p", 3.0, 1.5, 4.5, 9, "lower"),
        MetricValue("a", 0.6, None, None, 9, "higher"),
    ]
    assert mean_of([one]) == one
