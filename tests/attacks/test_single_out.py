"""Copies of one upload: a sum that needs no other silo opens as that silo's own; signed or masked uploads don't."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.assess.harness import Harness, Options
from bench.assess.run import execute
from bench.core.errors import Refused
from bench.plugins.find import Plugins
from bench.spec.run import Cell, PluginSpec, Row
from bench.store.store import Store
from tests.attacks.active_runs import Ground, auc, ground, spec

#: enough where an upload is refused whatever is in it
BRIEF = {"steps": 1, "batch": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("single-out")


@pytest.fixture(scope="module")
def fedshield(folder: Path) -> Ground:
    return ground(folder, spec("fedshield"), "single-out")


def test_what_fedshield_releases_is_the_one_silo_s_own_model(fedshield: Ground) -> None:
    transcript = fedshield.run.transcript
    own = transcript.truth(0, "silo-0")  # whole weights, each silo counting as one
    assert own is not None
    (reading,) = fedshield.view().adapters()
    np.testing.assert_allclose(reading.adapter, own, rtol=0, atol=1e-5)
    others = np.mean([transcript.truth(0, name) for name in transcript.public.silos], axis=0)
    assert np.abs(others - own).max() > 1e-3


def test_it_reads_one_silo_s_members_from_a_release_that_hides_them_among_others(
    folder: Path, fedshield: Ground
) -> None:
    found = fedshield.assess()
    assert found.reads == ("adapter after round 0",)
    passive = ground(folder, spec("fedshield"), "mia")
    assert auc(found) > max(0.9, auc(passive.assess()) + 0.1)


def test_against_members_that_were_not_trained_on_it_is_chance(fedshield: Ground) -> None:
    other = fedshield.with_other_truth()
    assert abs(other.auc() - 0.5) <= other.margin() < 0.4


@pytest.mark.parametrize(
    "channel", ["secagg", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rlwe", "threshold-ckks"))]
)
def test_signed_uploads_are_refused_in_another_s_name(folder: Path, channel: str) -> None:
    with pytest.raises(Refused, match=r"stopped at server.*silo-1 is not signed"):
        ground(folder, spec(channel, local=BRIEF), "single-out")


def test_a_server_that_skips_the_check_gets_masks_that_do_not_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature only names the fault early: what protects the silo is that its masks need the others' uploads."""
    monkeypatch.setattr("defenses.channels.secagg.wire.check_signed", lambda *_: None)
    with pytest.raises(Refused, match=r"stage open of round 0.*no 3 updates add up to"):
        ground(tmp_path, spec("secagg", local=BRIEF), "single-out")


def test_a_refusal_is_a_row_and_is_answered_from_the_store(tmp_path: Path) -> None:
    plugins = Plugins()
    attack = plugins.find("attack", "single-out").build({})
    run = spec("secagg", local=BRIEF).model_copy(update={"variant": attack.variant("server")})
    named = PluginSpec(name="single-out", config=run.variant.config["attack"]["config"])
    row = Row(run=run, attack=named, adversary="server")
    harness = Harness(Store(tmp_path), plugins, Options(quiet=True))
    (found,) = execute([row], [0], harness)
    assert (found.status, found.active, found.leakage) == ("refused", True, ())
    assert "not signed" in found.note
    assert harness.stored(Cell(row, 0)) == found
