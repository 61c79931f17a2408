"""A file of four organisations, of 320, 160, 80 and 40 records, from a command's words to results: sizes, by hand."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks import label_distribution
from bench.assess.assess import Assessor
from bench.assess.run import execute
from bench.assess.tools import Memo
from bench.attack.attack import Answers, Attack, Candidates, Guesses, Shares, Tools
from bench.cli.grid import Request, expand
from bench.plugins.find import Plugins
from bench.privacy import default_delta, epsilon
from bench.spec.result import Result
from bench.spec.run import Row
from bench.training.training import TrainedRun
from bench.view.view import View
from tests.trained import harness, train

RECORDS = {"Süd": 80, "Klinik <Nord>": 320, "West": 40, "Ost": 160}
#: of 48 candidates in all, and the half of each that is trained on; in the order of the names
NAMES = {"silo-0": "Klinik <Nord>", "silo-1": "Ost", "silo-2": "Süd", "silo-3": "West"}
CANDIDATES, TRAINED = (26, 13, 6, 3), (13, 7, 3, 2)
SIZES = dict(zip(NAMES, TRAINED, strict=True))
SETTINGS = {
    "pool.candidates": 12,
    "pool.validation": 4,
    "pool.heldout": 8,
    "pool.population": 24,
    "federation.rounds": 1,
    "federation.local.epochs": 1,
    "federation.local.batch": 4,
    "dp-sgd.sigma": 1.0,
    "dp-sgd.epsilon": None,
}
WORDS = ("river", "stone", "lamp", "garden", "copper", "window", "silent", "market", "paper", "bridge", "winter")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("organisations")


@pytest.fixture(scope="module")
def rows(folder: Path) -> tuple[Row, ...]:
    rng = random.Random(0)
    lines = [
        {"text": " ".join(rng.choices(WORDS, k=30)), "silo": name, "label": rng.choice(["yes", "no"])}
        for name, count in RECORDS.items()
        for _ in range(count)
    ]
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sets = tuple(f"{key}={json.dumps(value)}" for key, value in SETTINGS.items())
    asked = Request("dp-sgd", "mia", task=f"jsonl:{path}", adversary="server,silo", preset="smoke", sets=sets)
    return expand(asked, Plugins()).rows


@pytest.fixture(scope="module")
def run(rows: tuple[Row, ...], folder: Path) -> TrainedRun:
    return train(rows[0].run, folder / "store")


@pytest.fixture(scope="module")
def results(rows: tuple[Row, ...], run: TrainedRun, folder: Path) -> list[Result]:
    return execute(rows, [0], harness(folder / "store"))


@pytest.fixture
def assessor(run: TrainedRun) -> Iterator[Assessor]:
    made = Assessor(run, Memo())
    yield made
    made.drop_views()


def test_every_organisation_is_a_silo_of_its_own_size(run: TrainedRun) -> None:
    pool, public = run.case.materials.pool, run.transcript.public
    assert pool.names == public.names == NAMES
    assert tuple(len(held) for held in pool.silos.values()) == CANDIDATES
    assert tuple(len(held) for held in run.planting.members.values()) == TRAINED
    assert run.nominal_sizes == public.sizes == public.weights == SIZES


def test_the_sum_weighs_silos_by_their_public_sizes(run: TrainedRun) -> None:
    transcript = run.transcript
    moved = transcript.truth(0, "adapter").astype(np.float64) - transcript.initial_adapter()
    own = [transcript.truth(0, name).astype(np.float64) / size for name, size in SIZES.items()]
    np.testing.assert_allclose(moved, np.average(own, axis=0, weights=TRAINED), atol=1e-7)
    assert np.abs(moved - np.mean(own, axis=0)).max() > 1e-4


def test_rates_and_steps_follow_from_each_silo_s_size(run: TrainedRun) -> None:
    assert list(run.mechanisms) == list(NAMES)
    for name, size in SIZES.items():
        assert [(m.params["rate"], m.params["steps"]) for m in run.mechanisms[name]] == [
            (min(1.0, 4 / size), math.ceil(size / 4))
        ]


def by_hand() -> dict[int, tuple[float, float]]:
    """By size (epsilon, delta) of a silo: one round of one pass, at sigma 1."""
    found = {}
    for size in TRAINED:
        delta = default_delta(size)
        found[size] = epsilon(((min(1.0, 4 / size), 1.0, math.ceil(size / 4)),), delta), delta
    return found


@pytest.mark.parametrize("adversary", ["server", "silo", "all-but-one"])
def test_a_claim_is_the_worst_over_silos_at_the_largest_delta(assessor: Assessor, adversary: str) -> None:
    """Every silo is somebody's victim: what is said of the adversary must hold for all four."""
    worst, delta = (max(column) for column in zip(*by_hand().values(), strict=True))
    found = assessor.claim(adversary)
    assert found is not None
    assert found.epsilon == pytest.approx(worst, rel=1e-6)
    assert found.delta == delta == default_delta(2)
    assert "each silo at its own delta" in found.note


class Knows(Attack):
    """Knows whose a record is and which labels silos have; or says what everybody can: the largest, and nothing."""

    needs = frozenset({"upload", "adapter"})

    def __init__(self, game: str, run: TrainedRun, told: bool) -> None:
        self.game, self.run, self.told = game, run, told
        self.asked: Counter[str] = Counter()

    def attribute(self, view: View, records: Candidates, silos: Sequence[str], tools: Tools) -> Answers:
        texts = [set(self.run.case.materials.texts(self.run.planting.members[silo])) for silo in silos]
        scores = [[float(text in own) for own in texts] for text in records.texts]
        blind = np.tile([float(view.public.sizes[silo]) for silo in silos], (len(records.ids), 1))
        return Answers(np.array(scores) if self.told else blind, ("told",))

    def label_shares(self, view: View, victims: Sequence[str], tools: Tools) -> Shares:
        gold = [self.run.case.materials.gold(self.run.planting.members[silo]) for silo in victims]
        true = tuple(np.bincount(labels, minlength=2) / len(labels) for labels in gold)
        return Shares(true if self.told else (np.full(2, 0.5),) * len(victims), ("told",))

    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        self.asked[view.adversary] += len(candidates.ids)
        return Guesses({"loss": np.zeros(len(candidates.ids))}, ("told",))


def figures(found: Any) -> dict[str, float]:
    assert found.status == "ok", found.note
    return {one.name: one.value for one in found.leakage}


def test_guessing_the_source_is_right_as_often_as_the_largest_organisation_is_large(
    assessor: Assessor, run: TrainedRun
) -> None:
    told = figures(assessor.assess("knows", Knows("source", run, told=True), "server"))
    assert told["source_accuracy"] == 1
    blind = figures(assessor.assess("knows", Knows("source", run, told=False), "server"))
    assert blind["source_accuracy"] == blind["source_accuracy:baseline"] == told["source_accuracy:baseline"] == 13 / 25


def test_label_shares_are_graded_for_every_organisation(assessor: Assessor, run: TrainedRun) -> None:
    assert figures(assessor.assess("knows", Knows("property", run, told=True), "server"))["similarity"] == 1
    attack = label_distribution.build(label_distribution.Config(method="simulated", steps=1))
    found = assessor.assess("label-distribution", attack, "server")
    assert figures(found)["similarity"] > 0
    assert [one.n["answered"] for one in found.leakage if one.name == "similarity"] == [4]


@pytest.mark.parametrize("adversary", ["server", "all-but-one", "silo"])
def test_every_candidate_of_every_organisation_is_asked_about_once(
    assessor: Assessor, run: TrainedRun, adversary: str
) -> None:
    attack = Knows("membership", run, told=False)
    assert figures(assessor.assess("knows", attack, adversary))["auc"] == 0.5
    assert attack.asked[adversary] == sum(CANDIDATES)


def test_results_name_the_organisations_and_their_sizes(results: list[Result]) -> None:
    assert [one.adversary for one in results] == ["server", "silo"]
    for one in results:
        assert {o.silo: (o.name, o.records) for o in one.organisations} == {
            silo: (name, SIZES[silo]) for silo, name in NAMES.items()
        }
        assert Result.from_json(one.to_json()) == one
        assert one.spec["run"]["federation"]["partition"] == "silo"
        assert one.spec["run"]["federation"]["silos"] == 4
