"""Runs of their own: planted canaries, drawn organisations, coalitions that deviate."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.cli.main import main
from bench.core.errors import Refused, SiloBenchError, UsageError
from bench.plugins.find import Plugins
from bench.spec.result import Result
from bench.spec.run import PluginSpec, RunSpec
from bench.store.store import Store
from bench.training.origin import read_origin
from bench.training.training import training_tokens
from bench.training.variant import build
from bench.training.variants.active import _guarded
from tests.trained import harness, train

SECRET = 3


def spec(variant: str | None, silos: int = 2, defense: str = "fedavg", **config: object) -> RunSpec:
    values = {
        "task": {"name": "clinical-notes", "config": {"notes": 300, "seed": 0}},
        "model": {"name": "tiny"},
        "pool": {"candidates": 8, "validation": 0, "heldout": 6, "population": 16, "max_tokens": 40},
        "federation": {"silos": silos, "rounds": 1, "local": {"epochs": 1, "lr": 1e-2}},
        "defense": [{"name": defense, "config": {}}],
        "secret_seed": SECRET,
    }
    if variant is not None:
        values["variant"] = {"name": variant, "config": config}
    return RunSpec.model_validate(values)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


@pytest.mark.parametrize("kind", ["random-tokens", "out-of-distribution", "mislabelled"])
def test_canaries_are_trained_on_by_their_own_coins_beside_the_ordinary_members(store: Path, kind: str) -> None:
    ordinary = train(spec(None), store)
    run = train(spec("audit", canaries=20, kind=kind), store)
    materials = run.case.materials
    asked = run.planting
    ids = [i for side in (asked.members, asked.nonmembers) for held in side.values() for i in held]
    assert sorted(ids) == sorted(f"canary-{k}" for k in range(20))
    assert asked.id != ordinary.planting.id
    for silo, members in ordinary.planting.members.items():
        assert run.case.trained.members[silo] == (*members, *asked.members[silo])
        tokens = training_tokens(run.case, silo)
        assert len(tokens) == len(members) + len(asked.members[silo])
    # every record of the training is one that the planting names, and each canary is its own cluster
    assert len({materials.pool.clusters[i] for i in ids}) == 20
    batches = run.transcript.training(0)
    assert set(batches) == set(asked.members)
    assert (
        max(row for batch in batches["silo-0"].batches for row in batch) == len(run.case.trained.members["silo-0"]) - 1
    )
    texts = {materials.pool.records[i].text for i in ids}
    assert len(texts) == 20
    assert not texts & {materials.pool.records[i].text for held in ordinary.planting.members.values() for i in held}


def test_mislabelled_canaries_have_another_label_than_their_own(store: Path) -> None:
    one = spec("audit", canaries=10, kind="mislabelled")
    materials = harness(store).case(one, 0).materials
    truth = {r.text: r.label for r in materials.corpus.records if not r.id.startswith("canary-")}
    for k in range(10):
        canary = materials.pool.records[f"canary-{k}"]
        assert truth[canary.text] != canary.label
        assert canary.answer.endswith(materials.corpus.task.label_text(str(canary.label)))


def test_coins_are_fair_and_each_its_own(store: Path) -> None:
    one = spec("audit", canaries=4000)
    materials = harness(store).case(spec(None), 0).materials  # 4,000 canaries need not be made for their coins
    from bench.training.training import draw_planting

    asked = build(one.variant, Plugins()).plantings(
        lambda: draw_planting(one, 0, materials, Store(store)), materials, one, 0, Store(store)
    )[1]
    count = sum(len(held) for held in asked.members.values())
    assert abs(count - 2000) < 4.9 * np.sqrt(1000)  # two-sided, once in a million
    coins = np.array([f"canary-{k}" in {i for held in asked.members.values() for i in held} for k in range(4000)])
    runs = int((coins[1:] != coins[:-1]).sum())
    assert abs(runs - 2000) < 4.9 * np.sqrt(1000)


def test_repeated_canaries_stand_several_times(store: Path) -> None:
    one = spec("audit", canaries=6, repeat=3)
    run = train(one, store)
    for silo, ids in run.planting.members.items():
        assert all(run.case.trained.members[silo].count(i) == 3 for i in ids)


def test_the_origin_keeps_what_was_trained_on_and_what_is_asked(store: Path) -> None:
    run = train(spec("audit", canaries=6), store)
    known, seed, (trained, asked) = read_origin(run.transcript)
    assert (known, seed) == (run.spec, 0)
    assert (trained, asked) == run.case.plantings


def test_one_of_two_organisations_fills_each_place(store: Path) -> None:
    one = spec("participation", silos=3)
    run = train(one, store)
    pool = run.case.materials.pool
    assert len(pool.silos) == 6
    home = {i: name for name, held in pool.silos.items() for i in held}
    for place in range(3):
        name = f"silo-{place}"
        took = {home[i] for i in run.case.trained.members[name]}
        stayed = {home[i] for i in run.planting.nonmembers[name]}
        assert took | stayed == {f"silo-{2 * place}", f"silo-{2 * place + 1}"}
        assert {home[i] for i in run.planting.members[name]} == took
        # nothing that is asked about was trained on
        everything = {i for held in run.case.trained.members.values() for i in held}
        assert not everything & {*run.planting.members[name], *run.planting.nonmembers[name]}
    fields = {name: {pool.records[i].field for i in held} for name, held in pool.silos.items()}
    assert all(fields["silo-0"] != other for name, other in fields.items() if name == "silo-1")


def test_an_unknown_kind_of_run_is_refused() -> None:
    with pytest.raises(UsageError, match="audit"):
        build(PluginSpec(name="audits"), Plugins())


DEVIATING = '''
"""A server that sends every silo an adapter of zeros, and silos that train on the population."""
import numpy as np
from bench.attack.attack import Attack, Guesses
from bench.attack.behaviour import Behaviour
from bench.defense.channel import Outgoing
from bench.spec.config import Config as Base
from bench.core.frames import encode_adapter
from bench.spec.run import PluginSpec

api = 1
version = 1

class Config(Base):
    honest: bool = False

class Zeros(Behaviour):
    def act(self, party, stage, round, inbox, honest, scene):
        if party == "server" and stage == "broadcast":
            assert len(scene.candidates) == len(scene.silos) and set(scene.silos) <= set(scene.victims)
            list(honest(inbox))
            return [Outgoing(scene.public.silos, encode_adapter(np.zeros_like(scene.initial)))]
        return honest(inbox)

    def records(self, silo, own, scene):
        return scene.population.take(range(4))

class Deviating(Attack):
    game = "membership"
    needs = frozenset({"adapter", "upload"})

    def __init__(self, config):
        self.behaviour = Behaviour() if config.honest else Zeros()
        self.config = config

    def variant(self, adversary):
        if adversary in ("user", "outsider"):
            return None
        own = PluginSpec(name="deviating", config=self.config.model_dump())
        return PluginSpec(name="active", config={"attack": own.model_dump(), "adversary": adversary})

    def infer(self, view, candidates, tools):
        n = len(candidates.ids)
        return Guesses({"nothing": np.arange(n, dtype=float), "else": -np.arange(n, dtype=float)}, ("test",))

def build(config: Config) -> Attack:
    return Deviating(config)
'''


@pytest.fixture(scope="module")
def deviating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "deviating.py"
    path.write_text(DEVIATING)
    return path


def active(adversary: str, honest: bool = False) -> RunSpec:
    attack = {"name": "deviating", "config": {"honest": honest}}
    return spec("active", attack=attack, adversary=adversary)


def test_a_server_that_deviates_changes_what_silos_start_from(store: Path, deviating: Path) -> None:
    plugins = Plugins([deviating])
    run = train(active("server"), store, plugins)
    sent = [m for m in run.transcript.messages([0]) if m.stage == "broadcast"]
    assert sent
    frames = b"".join(sent[0].frames())
    assert frames.count(b"\0") > 0.99 * len(frames)
    honest = train(spec(None), store)
    assert not np.array_equal(run.transcript.truth(0, "silo-0"), honest.transcript.truth(0, "silo-0"))


def test_an_honest_behaviour_gives_the_ordinary_run(store: Path, deviating: Path) -> None:
    run = train(active("server", honest=True), store, Plugins([deviating]))
    ordinary = train(spec(None), store)
    np.testing.assert_array_equal(run.transcript.final_adapter(), ordinary.transcript.final_adapter())


def test_a_silo_that_deviates_trains_on_what_it_likes_and_others_do_not(store: Path, deviating: Path) -> None:
    run = train(active("silo"), store, Plugins([deviating]))
    ordinary = train(spec(None), store)
    trained = run.transcript.training(0)
    assert {row for batch in trained["silo-0"].batches for row in batch} == {0, 1, 2, 3}
    assert trained["silo-1"].batches == ordinary.transcript.training(0)["silo-1"].batches


def test_an_active_row_says_so_and_is_about_one_coalition(tmp_path: Path, deviating: Path) -> None:
    sets = ("pool.candidates=8", "pool.heldout=8", "pool.population=16", "federation.rounds=1")
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "deviating", "--json"]
    words += ["--plugin", str(deviating), "--adversary", "outsider,silo", "--store", str(tmp_path)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main([*words, *(part for value in sets for part in ("--set", value))]) == 0
    found = {r.adversary: r for r in map(Result.from_json, out.getvalue().splitlines())}
    assert not found["outsider"].active
    assert found["outsider"].utility
    assert found["silo"].active
    assert not found["silo"].utility
    assert found["silo"].run != found["outsider"].run
    auc = next(f for f in found["silo"].leakage if f.name == "auc")
    assert auc.n["members"] + auc.n["nonmembers"] == 8  # one victim's candidates


def test_an_adversary_that_sends_nothing_can_not_deviate(store: Path, deviating: Path) -> None:
    with pytest.raises(UsageError, match="sends nothing"):
        train(active("outsider"), store, Plugins([deviating]))


@pytest.mark.parametrize(
    ("raised", "seen"), [(SiloBenchError("a bad signature"), Refused), (UsageError("no"), UsageError)]
)
def test_what_a_protocol_does_not_take_is_told_from_a_request_that_nothing_helps(
    raised: SiloBenchError, seen: type[SiloBenchError]
) -> None:
    def fails() -> Iterator[bytes]:
        yield b"one"
        raise raised

    with pytest.raises(seen) as caught:
        list(_guarded(fails(), "silo-0"))
    assert type(caught.value) is seen
