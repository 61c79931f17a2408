"""The CKKS key from published averages, end to end over real rounds: who opens what, and at which precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks import key_recovery
from attacks.ckks import recovery, report
from bench.core.tokens import Tokens, TokenStats
from bench.defense.channel import Candidate, Knowledge
from bench.defense.compose import Defense
from bench.stats import null_margin
from bench.view.openers.base import Hints
from bench.view.view import Reading, View
from defenses import bfv, ckks, fedshield, rlwe, secagg, selective_ckks
from tests.attacks.sealed_federation import LAYOUT, Sealed, federate
from tests.attacks.test_mia import FakeTools, auc, setting

ALL = {"silo-0", "silo-1", "silo-2"}
(OPENER,) = key_recovery.KeyRecovery.openers


def shield(pruned: float = 0.0) -> Defense:
    return fedshield.build(fedshield.Config(start=0, sparsity_start=pruned, sparsity_end=pruned))


def opened(view: View) -> set[tuple[int, str]]:
    return {(reading.round, silo) for reading in view.uploads() for silo in reading.silos}


def check_uploads(run: Sealed, view: View, error: float) -> None:
    """Every silo's upload of every round, as it was handed to the channel."""
    assert opened(view) == {(r, s) for r in range(run.transcript.public.rounds) for s in ALL}
    for reading in view.uploads():
        assert reading.how == report.HOW
        np.testing.assert_allclose(reading.values, run.upload(reading.round, *reading.silos), atol=error)


def found(view: View) -> str:
    (note,) = [r.how for r in view.readings if r.kind == "metadata"]
    return note


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """One round of FedShield without pruning, its average released at float64."""
    return federate(tmp_path_factory.mktemp("published") / "run", shield())


@pytest.fixture(scope="module")
def broken(published: Sealed, tmp_path_factory: pytest.TempPathFactory) -> View:
    """What the server reads of it with the attack's opener."""
    return published.view(tmp_path_factory.mktemp("broken") / "view", OPENER)


def test_the_server_opens_every_upload_of_published_fedshield(published: Sealed, broken: View, tmp_path: Path) -> None:
    assert not published.view(tmp_path / "without").uploads()
    check_uploads(published, broken, 1e-6)
    assert found(broken).startswith(f"{report.HOW} at float64; ")


@pytest.mark.parametrize(
    ("pruned", "options"),
    [
        (0.5, {"precision": "float64", "release": "final", "rounds": 2}),
        (0.0, {"precision": "float32", "step": 2e-4}),
        (0.5, {"precision": "float32", "step": 2e-4, "rounds": 2}),
        # nothing but the ciphertexts' own noise is left to be published, and bfloat16 keeps its digits
        (1.0, {"precision": "bfloat16"}),
    ],
)
def test_and_with_pruning_or_of_small_weights_at_lower_precision(
    tmp_path: Path, pruned: float, options: dict[str, Any]
) -> None:
    run = federate(tmp_path / "run", shield(pruned), **options)
    view = run.view(tmp_path / "view", OPENER)
    check_uploads(run, view, 1e-6)
    assert found(view).startswith(f"{report.HOW} at {options['precision']}; ")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"release": "none"}, "no average"),
        ({"precision": "float32", "step": 2e-3}, "units of its coefficients"),
        ({"precision": "bfloat16", "step": 1e-4}, "units of its coefficients"),
        ({"precision": "float16", "step": 1e-4}, "units of its coefficients"),
    ],
)
def test_it_says_why_nothing_opened(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    view = federate(tmp_path / "run", shield(), **options).view(tmp_path / "view", OPENER)
    assert not view.uploads()
    assert found(view).startswith(f"no {report.HOW}: ")
    assert why in found(view)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_small_parameters_are_weaker_still(tmp_path: Path, precision: str) -> None:
    run = federate(tmp_path / "run", ckks.build(ckks.Config()), precision=precision, rounds=2)
    check_uploads(run, run.view(tmp_path / "view", OPENER), 1e-4)


def test_what_selective_encryption_sealed_opens_too(tmp_path: Path) -> None:
    """Its first round is sealed whole; later ones mostly in clear."""
    run = federate(tmp_path / "run", selective_ckks.build(selective_ckks.Config()), precision="float32", rounds=2)
    without = run.view(tmp_path / "without")
    assert not without.uploads()
    assert {r.round for r in without.readings if r.kind == "partial"} == {1}
    check_uploads(run, run.view(tmp_path / "view", OPENER), 1e-4)


@pytest.mark.parametrize("exact", [bfv, rlwe, secagg])
def test_exact_channels_give_nothing(tmp_path: Path, exact: Any) -> None:
    run = federate(tmp_path / "run", exact.build(exact.Config()))
    view = run.view(tmp_path / "view", OPENER)
    assert not view.uploads()
    assert "no sum is made of CKKS ciphertexts" in found(view)


def test_sums_whose_slots_are_not_all_published_give_nothing(tmp_path: Path) -> None:
    layout = replace(LAYOUT, shapes=((8, 500), (500, 8), (8, 500), (500, 8)))
    view = federate(tmp_path / "run", shield(), layout=layout).view(tmp_path / "view", OPENER)
    assert not view.uploads()
    assert "all slots of a ciphertext" in found(view)


def test_who_reads_the_uploads_already_needs_no_key(published: Sealed, tmp_path: Path) -> None:
    view = published.view(tmp_path / "view", OPENER, coalition=("server", "silo-0"))
    assert opened(view) == {(0, "silo-1"), (0, "silo-2")}
    assert not any(report.HOW in reading.how for reading in view.readings)


def test_a_wrong_key_opens_nothing(published: Sealed, tmp_path: Path) -> None:
    def guessed(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        right = recovery.recover(knowledge)
        wrong = replace(right, key=np.roll(right.key, 1))
        message = next(m for m in knowledge.messages if m.stage == "upload")
        for one in (wrong, right):
            values = one.lock.open_upload(message, one.key)
            yield Candidate(0, frozenset({message.sender}), values, "right" if one is right else "wrong")

    assert [r.how for r in published.view(tmp_path / "view", guessed).uploads()] == ["right"]


class _Tools(FakeTools):
    """A model under which members stand out, if it is handed their silo's own upload."""

    uploads: Mapping[str, np.ndarray]

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        if source is not None:
            (silo,) = source.silos
            np.testing.assert_allclose(source.values, self.uploads[silo], atol=1e-6)
        return super().token_stats(source, tokens)


def test_guesses_are_the_likelihoods_under_the_opened_uploads(published: Sealed, broken: View) -> None:
    asked, member, fake = setting(2.0)
    tools = _Tools(fake.member, fake.silo, fake.gain)
    tools.uploads = {silo: published.upload(0, silo) for silo in ALL}
    guesses = key_recovery.build(key_recovery.Config()).infer(broken, asked, tools)
    assert auc(guesses.scores["loss-base"], member) > 0.95
    assert set(guesses.reads) == {f"upload of {silo}, round 0" for silo in ALL}
    (why,) = guesses.missing.values()
    assert "releases at float32, bfloat16 and float16 are out of its reach, which is no proof" in why

    tools.gain = 0.0
    blind = key_recovery.build(key_recovery.Config()).infer(broken, asked, tools)
    assert abs(auc(blind.scores["loss-base"], member) - 0.5) < null_margin(member)
