"""Split views: whatever protects the sum, it is one silo's update, and the view that follows is the truth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attacks.deviating import amplified, sent_by_silo
from attacks.split_view import turns
from bench.core.update import Layout
from tests.attacks.active_runs import Ground, auc, ground, spec

#: (channel, options, largest error of the reconstructed adapter)
CHANNELS: tuple[Any, ...] = (
    ("secagg", {}, 1e-6),
    pytest.param("rlwe", {}, 1e-6, marks=pytest.mark.slow),
    pytest.param("bfv", {"key_holder": "server"}, 1e-6, marks=pytest.mark.slow),
    pytest.param("threshold-ckks", {}, 1e-4, marks=pytest.mark.slow),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("split-view")


@pytest.fixture(scope="module")
def secagg(folder: Path) -> Ground:
    return ground(folder, spec("secagg"), "split-view")


@pytest.mark.parametrize(("channel", "options", "error"), CHANNELS)
def test_the_sum_of_a_round_is_the_update_of_the_one_silo(
    folder: Path, channel: str, options: dict[str, Any], error: float
) -> None:
    one = ground(folder, spec(channel, options=options), "split-view")
    truth = {name: one.run.transcript.truth(0, name) for name in one.run.transcript.public.silos}
    assert not truth["silo-1"].any()  # type: ignore[union-attr]
    assert not truth["silo-2"].any()  # type: ignore[union-attr]
    (reading,) = one.view().uploads("silo-0")
    weight = one.run.transcript.public.weights["silo-0"]
    assert reading.before is not None
    expected = reading.before + truth["silo-0"] / weight
    assert np.abs(truth["silo-0"]).max() / weight > 1e-3  # type: ignore[arg-type]
    np.testing.assert_allclose(reading.adapter, expected, rtol=0, atol=error)


def test_it_reads_members_out_of_a_secure_sum_and_a_passive_server_does_not(folder: Path, secagg: Ground) -> None:
    found = secagg.assess()
    assert found.reads == ("upload of silo-0, round 0",)
    assert {row.n["members"] + row.n["nonmembers"] for row in found.leakage if row.name == "auc"} == {60}
    passive = ground(folder, spec("secagg"), "mia")
    assert not passive.view().uploads()
    assert auc(found) > max(0.95, auc(passive.assess()) + 0.1)


def test_against_members_that_were_not_trained_on_it_is_chance(secagg: Ground) -> None:
    other = secagg.with_other_truth()
    assert other.margin() < 0.4
    assert abs(other.auc() - 0.5) <= other.margin()


def test_the_one_silo_starts_from_what_it_was_sent(secagg: Ground) -> None:
    """Its update is read against that, not against the adapter that the server keeps for itself."""
    public = secagg.run.transcript.public
    sent = sent_by_silo(secagg.run.transcript.messages([0]), public)
    view = secagg.view()
    initial = view.initial
    assert initial is not None
    (alone,) = view.uploads("silo-0")
    np.testing.assert_array_equal(alone.before, sent[0, "silo-0"])
    np.testing.assert_array_equal(alone.before, amplified(initial, public.adapter, 8.0))
    (other,) = view.uploads("silo-1")
    assert other.before is not None
    assert not other.before.any()


def test_an_ordinary_run_is_none_for_it(folder: Path, secagg: Ground) -> None:
    ordinary = ground(folder, spec("secagg"), "mia")
    ordinary.attack, ordinary.name = secagg.attack, "split-view"
    assert ordinary.assess().status == "not-applicable"
    secagg.adversary = "outsider"
    try:
        found = secagg.assess()
    finally:
        secagg.adversary = "server"
    assert found.status == "not-applicable"
    assert "server" in found.note


def test_a_zero_that_is_none_opens_nothing(folder: Path) -> None:
    """Silos that add noise contribute it: the guess that they send nothing is false, and no reading."""
    brief = spec("local-dp", local={"steps": 1, "batch": 2})
    one = ground(folder, brief, "split-view", adversary="server")
    truth = one.run.transcript.truth(0, "silo-1")
    assert truth is not None
    assert truth.any()
    assert all(np.any(r.values) for r in one.view().uploads("silo-1"))


def test_turns_go_round_those_that_take_part() -> None:
    silos = ("silo-0", "silo-1", "silo-2")
    here: Any = SimpleNamespace(participants=(silos, silos, silos, silos))
    assert turns(here, silos) == ("silo-0", "silo-1", "silo-2", "silo-0")
    here = SimpleNamespace(participants=(("silo-1", "silo-2"), ("silo-1",), ("silo-0", "silo-1"), ("silo-2",)))
    assert turns(here, silos) == ("silo-1", "silo-1", "silo-0", "silo-2")
    assert turns(here, ("silo-0",)) == (None, None, "silo-0", None)


def test_amplifying_keeps_every_product() -> None:
    layout = Layout(("m.lora_A.weight", "m.lora_B.weight"), ((2, 3), (4, 2)))
    rng = np.random.default_rng(0)
    flat = rng.normal(size=layout.size + 5).astype(np.float32)
    made = amplified(flat, layout, 4.0)
    (_, a), (_, b) = layout.tensors(flat[: layout.size])
    (_, a2), (_, b2) = layout.tensors(made[: layout.size])
    np.testing.assert_array_equal(a2, 4 * a)
    np.testing.assert_allclose(b2 @ a2, b @ a, rtol=1e-6)
    np.testing.assert_array_equal(made[layout.size :], flat[layout.size :])
