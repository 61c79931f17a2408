"""A training from its case to a transcript, without a language model: what is public, what is secret, what is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UsageError
from bench.core.streams import SecretStreams, Streams
from bench.core.update import Layout
from bench.corpus.planting import Planting, plant
from bench.corpus.task import Record
from bench.defense.compose import Defense, fill
from bench.defense.parts import Mechanism, RecordsPart, Training, TrainJob
from bench.federation.carrier import Carrier
from bench.federation.setup import Setup, public_nonce
from bench.spec.run import FederationSpec, PluginSpec, PoolSpec, RunSpec
from bench.store.store import Store
from bench.training import training as module
from bench.training.case import Case
from bench.training.origin import read_origin
from bench.training.training import (
    build_parts,
    draw_planting,
    draw_plantings,
    federate,
    reopen,
    shadow_specs,
    train,
    training_tokens,
)
from bench.training.variant import Variant
from bench.transcript.transcript import Transcript
from tests.federation.fakes import LAYOUT, DrawnTrainer, FakeModel, one_token
from tests.plugin_files import DEFENSE, folders, write

SILOS = {f"silo-{i}": tuple(f"r{i}{k}" for k in range(4)) for i in range(2)}
CLUSTERS = {name: number for number, name in enumerate(n for held in SILOS.values() for n in held)}
GAIN = {"name": "text-gain", "value": 0.5, "base": 0.0, "low": 0.1, "high": 0.9, "better": "higher"}
SUMMARY = {"utility": [{"name": "text-perplexity", "value": 2.0, "base": 3.0}, GAIN], "cost": {"up": 5}}


def spec_of(shadow: int = 0, **federation: Any) -> RunSpec:
    return RunSpec(
        task=PluginSpec(name="t"),
        defense=(PluginSpec(name="d"),),
        pool=PoolSpec(candidates=4),
        federation=FederationSpec(**{"silos": 2, "rounds": 2, **federation}),
        secret_seed=3,
        shadow=shadow,
    )


class Logs(DrawnTrainer):
    """Says that it did something for privacy; counts its jobs."""

    def __init__(self) -> None:
        self.jobs = 0

    def train(self, job: TrainJob) -> Training:
        self.jobs += 1
        return replace(super().train(job), mechanisms=(Mechanism("noise", {"sigma": 2.0}),))


class Fakes:
    """What ``Materials`` answers, of records whose text is their id."""

    def __init__(self, seed: int = 0) -> None:
        self.model: Any = FakeModel()
        self.model.initial_adapter = lambda rng: rng.normal(size=LAYOUT.size).astype(np.float32)
        self.model.encode = lambda records, most, prefix: ([r.text for r in records], most, prefix)
        self.streams = Streams(seed)
        records = {i: Record(i, i) for held in SILOS.values() for i in held}
        self.pool = SimpleNamespace(silos=SILOS, clusters=CLUSTERS, records=records, names={})
        self.corpus = SimpleNamespace(task=SimpleNamespace(answer_prefix="!"))
        self.tokens = list


def case_of(spec: RunSpec | None = None, seed: int = 0, **changes: Any) -> Case:
    spec = spec or spec_of()
    members = {name: held[:2] for name, held in SILOS.items()}
    planting = Planting("aaaaaaaa", members, {name: held[2:] for name, held in SILOS.items()})
    parts = fill(Defense(trainer=Logs()))
    materials: Any = Fakes(seed)
    found = Case(spec, seed, spec.run_id(seed), parts, Variant(), materials, (planting, planting))
    return replace(found, **changes)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Setup]:
    """The trainings that were measured."""
    found: list[Setup] = []
    monkeypatch.setattr(module, "measure", lambda setup, transcript, materials: found.append(setup) or SUMMARY)
    monkeypatch.setattr(module, "training_tokens", lambda case, name: one_token(name))
    return found


def test_the_numbers_of_shadows() -> None:
    def numbers(shadow: int, count: int) -> list[int]:
        return [s.shadow for s in shadow_specs(spec_of(shadow), count)]

    assert numbers(0, 3) == [1, 2, 3]
    assert numbers(2, 3) == [0, 1, 3]
    assert numbers(9, 3) == [0, 1, 2]
    assert numbers(0, 0) == []
    assert shadow_specs(spec_of(2), 1) == [spec_of(0)]


def test_parts_are_those_of_the_named_defenses(tmp_path: Path) -> None:
    plugins = folders(tmp_path)
    simulating = DEFENSE.replace("return Defense()", 'return Defense(simulated=(f"{name} {config.epsilon}",))')
    for name in ("guard", "two-words"):
        write(tmp_path / "defenses" / f"{name.replace('-', '_')}.py", simulating, name)
    named = (PluginSpec(name="two-words", config={"epsilon": 2}), PluginSpec(name="guard"))
    spec = spec_of().model_copy(update={"defense": named})
    said = build_parts(spec, plugins).simulated
    assert said == ("two-words 2.0", "guard 8.0")


def test_a_planting_of_other_candidates_is_refused(store: Store) -> None:
    spec, materials = spec_of(), case_of().materials
    draw_planting(spec, 5, materials, store)
    moved: Any = Fakes(5)
    moved.pool.silos = {**SILOS, "silo-1": (*SILOS["silo-1"][:3], "another")}
    with pytest.raises(UsageError, match=r"is of other candidates of silo-1 .* Name a new --store"):
        draw_planting(spec, 5, moved, store)


# -- the game's secret ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shadow", "owner"), [(0, "game/5"), (2, "game/5/2")])
def test_a_planting_is_the_game_s_own_secret_drawn_once(store: Store, shadow: int, owner: str) -> None:
    spec, materials = spec_of(shadow), case_of().materials
    found = draw_planting(spec, 5, materials, store)
    by_hand = plant(spec.planting_id(5), SILOS, CLUSTERS, 0.5, SecretStreams(owner, 3))
    assert found == by_hand
    materials.pool.silos = {}  # type: ignore[misc]
    assert draw_planting(spec, 5, materials, store) == found


def test_without_a_secret_seed_nobody_can_draw_a_planting_again(tmp_path: Path) -> None:
    spec = spec_of().model_copy(update={"secret_seed": None})
    drawn = {draw_planting(spec, 0, case_of().materials, Store(tmp_path / str(k))).to_json() for k in range(12)}
    assert len(drawn) > 1  # each of 36 is as likely: once in 36^11 all are the same


def test_a_run_of_its_own_decides_what_is_trained_on_and_asked_about(store: Store) -> None:
    class Swaps(Variant):
        def plantings(self, ordinary: Any, materials: Any, spec: RunSpec, seed: int, store: Store) -> Any:
            one = ordinary()
            return one, Planting("bbbbbbbb", one.nonmembers, one.members)

    trained, asked = draw_plantings(Swaps(), case_of().materials, spec_of(), 0, store)
    assert trained == draw_planting(spec_of(), 0, case_of().materials, store)
    assert asked.members == trained.nonmembers


# -- what silos train on -------------------------------------------------------------------------------------------


class Drops(RecordsPart):
    def __init__(self, ending: str) -> None:
        self.ending = ending

    def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        kept = [record for record in records if not record.id.endswith(self.ending)]
        return [replace(record, text=record.text + self.ending) for record in kept]


def test_a_silo_trains_on_its_members_after_the_defense_s_record_parts() -> None:
    case = case_of()
    assert training_tokens(case, "silo-1") == ["r10", "r11"]
    changed = replace(case, parts=fill(Defense(records=(Drops("0"), Drops("9")))))
    assert training_tokens(changed, "silo-1") == (["r1109"], case.spec.pool.max_tokens, "!")


# -- the federation ------------------------------------------------------------------------------------------------


def test_what_is_public_follows_from_spec_and_seed_and_holds_no_secret(store: Store, measured: list[Setup]) -> None:
    case = case_of(seed=4)
    setup, transcript = federate(case, store)
    public = transcript.public
    assert (public.silos, public.rounds, public.weights) == (("silo-0", "silo-1"), 2, {"silo-0": 2, "silo-1": 2})
    assert (public.nonce, public.sizes, public.names) == (public_nonce(4), {"silo-0": 2, "silo-1": 2}, {})
    assert public.participants == (public.silos,) * 2
    start = Streams(4).generator("initial adapter").normal(size=LAYOUT.size).astype(np.float32)
    np.testing.assert_array_equal(transcript.initial_adapter(), start)
    assert "secret_seed" not in json.dumps(transcript.manifest["spec"])
    assert transcript.manifest["spec"]["federation"]["rounds"] == 2
    assert (setup.secret_seed, setup.nominal_sizes) == (3, {"silo-0": 2, "silo-1": 2})
    assert read_origin(transcript) == (case.spec, 4, case.plantings)
    assert measured == []


class Picky(Logs):
    """Takes no silo of three records."""

    def plan(self, rounds: int, local: Any, nominal_size: int) -> Sequence[Mechanism]:
        if nominal_size == 3:
            raise UsageError(f"{rounds} rounds of {local.batch}: not for three")
        return ()


def test_silos_have_sizes_of_their_own_and_what_one_of_them_may_not_be_is_told_before_any_trains(store: Store) -> None:
    trainer = Picky()
    case = case_of(seed=4, parts=fill(Defense(trainer=trainer)))
    case.materials.pool.silos = {**SILOS, "silo-1": tuple("abcdef")}  # type: ignore[misc]
    case.materials.pool.names = {"silo-0": "Süd", "silo-1": "Klinik Nord"}  # type: ignore[misc]
    with pytest.raises(UsageError, match="2 rounds of 8: not for three"):
        federate(case, store)
    assert trainer.jobs == 0
    assert not (store.run_dir(case.run_id) / "transcript").exists()
    public = federate(replace(case, parts=fill(Defense(trainer=Logs()))), store)[1].public
    assert public.sizes == public.weights == {"silo-0": 2, "silo-1": 3}
    assert public.names == {"silo-0": "Süd", "silo-1": "Klinik Nord"}


@pytest.mark.parametrize(("shadow", "prefix"), [(0, ""), (2, "shadow 2/")])
def test_a_shadow_starts_from_an_adapter_of_its_own_and_trains_in_another_order(
    store: Store, measured: list[Setup], shadow: int, prefix: str
) -> None:
    _, transcript = federate(case_of(spec_of(shadow, rounds=1)), store)
    changes = [Streams(0, prefix).generator("silo", i, 0).normal(size=LAYOUT.size) for i in range(2)]
    start = Streams(0, prefix).generator("initial adapter").normal(size=LAYOUT.size)
    np.testing.assert_allclose(transcript.final_adapter(), start + np.mean(changes, axis=0), atol=1e-6)


def test_a_finished_run_is_neither_trained_nor_measured_again(store: Store, measured: list[Setup]) -> None:
    case, rounds = case_of(), list[int]()
    first = train(case, store, on_round=rounds.append)
    assert rounds == [-1, 0, 1]
    assert len(measured) == 1
    again = train(case, store, on_round=rounds.append)
    assert (rounds, len(measured), case.parts.trainer.jobs) == ([-1, 0, 1], 1, 4)  # type: ignore[attr-defined]
    assert store.summary(case.run_id) == SUMMARY
    for run in (first, again):
        assert [(u.name, u.value) for u in run.utility] == [("text-perplexity", 2.0), ("text-gain", 0.5)]
        assert (run.learned, run.cost, run.directory) == (True, {"up": 5}, store.run_dir(case.run_id))
        assert run.mechanisms == {f"silo-{i}": (Mechanism("noise", {"sigma": 2.0}),) * 2 for i in range(2)}
        assert run.nominal_sizes == {"silo-0": 2, "silo-1": 2}
        assert (run.spec, run.parts, run.planting) == (case.spec, case.parts, case.planting)


def test_an_interrupted_run_adds_its_phases_to_those_before(store: Store, measured: list[Setup]) -> None:
    case = case_of()

    def stop(round: int) -> None:
        if round == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(case, store, on_round=stop)
    assert measured == []
    train(case, store)
    assert measured[0].meter.phases["train"].calls == 4
    assert case.parts.trainer.jobs == 4  # type: ignore[attr-defined]


def test_a_run_of_its_own_may_replace_the_carrier(store: Store, measured: list[Setup]) -> None:
    seen: list[tuple[Carrier, Setup]] = []

    class Watches(Variant):
        def carrier(self, carrier: Carrier, setup: Setup) -> Carrier:
            seen.append((carrier, setup))

            class Silent(Carrier):
                def deliver(self, *_: Any) -> Any:
                    return ()

            return Silent()

    setup, transcript = federate(case_of(variant=Watches()), store)
    assert [s for _, s in seen] == [setup]
    assert list(transcript.messages()) == []


# -- transcripts from anywhere -------------------------------------------------------------------------------------


def test_a_transcript_from_anywhere_is_measured_and_not_trained(
    store: Store, tmp_path: Path, measured: list[Setup]
) -> None:
    _, transcript = federate(case_of(), store)
    case = case_of()
    run = reopen(case, Transcript(transcript.root), tmp_path / "views")
    assert (run.directory, run.learned, len(measured)) == (tmp_path / "views", True, 1)
    assert measured[0].meter.phases["train"].calls == 4
    assert case.parts.trainer.jobs == 0  # type: ignore[attr-defined]


def test_a_transcript_without_all_its_rounds_or_of_another_model_is_refused(
    store: Store, measured: list[Setup]
) -> None:
    case = case_of()
    _, transcript = federate(case, store)
    case.materials.model.layout = Layout(("other",), ((44,),))
    with pytest.raises(UsageError, match="is of an adapter of another shape than its model and LoRA settings give"):
        reopen(case, transcript, store.root)
    (transcript.root / "rounds" / "0002" / "messages.jsonl").unlink()
    with pytest.raises(UsageError, match="holds 1 of 2 rounds: finish the run first"):
        reopen(case, transcript, store.root)
