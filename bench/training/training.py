"""One training, from the planting to a complete transcript, with its utility and its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.errors import UsageError
from bench.core.parties import silo
from bench.core.streams import SecretStreams, Streams
from bench.core.tokens import Tokens
from bench.corpus.planting import Planting, plant
from bench.defense.compose import Parts, compose, fill
from bench.defense.parts import Mechanism
from bench.defense.public import Public
from bench.federation.rounds import Federation
from bench.federation.setup import Setup, participants, public_nonce
from bench.model.products import widened
from bench.plugins.find import Plugins
from bench.spec.result import Utility
from bench.spec.run import RunSpec
from bench.store.store import Store
from bench.training.materials import Materials
from bench.training.origin import Plantings, read_origin, save_origin
from bench.training.utility import learned, measure
from bench.training.variant import Variant
from bench.transcript.notes import logged_mechanisms as logged_mechanisms
from bench.transcript.transcript import Transcript

ORDINARY = Variant()


@dataclass(frozen=True)
class TrainedRun:
    """A finished training: what every attack starts from."""

    run_id: str
    spec: RunSpec
    seed: int
    directory: Path
    transcript: Transcript
    parts: Parts
    #: what was trained on, and what is asked about: the same but in a run of its own
    trained: Planting
    planting: Planting
    utility: tuple[Utility, ...]
    learned: bool
    cost: dict[str, Any]
    mechanisms: Mapping[str, tuple[Mechanism, ...]]
    nominal_sizes: Mapping[str, int]


@dataclass(frozen=True)
class ShadowRun:
    """A run of the same spec under another planting: what attacks learn from."""

    run_id: str
    transcript: Transcript
    planting: Planting


def shadow_specs(spec: RunSpec, count: int) -> list[RunSpec]:
    """The first ``count`` runs of the same kind as ``spec`` other than itself; the run that is numbered 0 among them
    where ``spec`` is a shadow itself."""
    numbers = [k for k in range(count + 1) if k != spec.shadow][:count]
    return [spec.model_copy(update={"shadow": k}) for k in numbers]


def build_parts(spec: RunSpec, plugins: Plugins) -> Parts:
    """Raises UsageError where the named defenses don't combine."""
    named = [(p.name, plugins.find("defense", p.name).build(p.config)) for p in spec.defense]
    return fill(compose(named))


def draw_planting(spec: RunSpec, seed: int, materials: Materials, store: Store) -> Planting:
    """The game's secret: the one in the store for this task, pool, partition and seed, else a new one."""
    planting_id = spec.planting_id(seed)

    def draw() -> str:
        owner = f"game/{seed}" + (f"/{spec.shadow}" if spec.shadow else "")
        secret = SecretStreams(owner, spec.secret_seed)
        return plant(planting_id, materials.pool.silos, materials.pool.clusters, spec.pool.share, secret).to_json()

    return Planting.from_json(store.draw_planting(planting_id, draw))


def train(
    spec: RunSpec,
    seed: int,
    materials: Materials,
    parts: Parts,
    store: Store,
    budget: int | None = None,
    on_round: Callable[[int], None] | None = None,
    variant: Variant = ORDINARY,
) -> TrainedRun:
    """Run the rounds that are missing, then measure. The caller holds the run's lock."""
    run_id = spec.run_id(seed)
    setup, transcript, plantings = federate(spec, seed, materials, parts, store, budget, on_round, variant)
    summary = store.summary(run_id)
    if summary is None:
        summary = measure(setup, transcript, materials)
        store.save_summary(run_id, summary)
    nominal = variant.nominal_size(nominal_size(spec), spec)
    return _finished(spec, seed, store.run_dir(run_id), transcript, parts, plantings, summary, nominal)


def federate(
    spec: RunSpec,
    seed: int,
    materials: Materials,
    parts: Parts,
    store: Store,
    budget: int | None = None,
    on_round: Callable[[int], None] | None = None,
    variant: Variant = ORDINARY,
) -> tuple[Setup, Transcript, Plantings]:
    """Run the rounds that are missing and measure nothing. The caller holds the run's lock."""
    plantings = variant.plantings(lambda: draw_planting(spec, seed, materials, store), materials, spec, seed, store)
    setup = _setup(spec, seed, materials, parts, plantings[0], variant)
    transcript = _transcript(store.run_dir(spec.run_id(seed)) / "transcript", setup, spec)
    save_origin(transcript, spec, seed, plantings)
    if transcript.committed() >= -1:
        setup.meter.add(transcript.harness_notes(transcript.committed()).get("phases", {}))
    federation = Federation(setup, transcript, budget=budget)
    federation.carrier = variant.carrier(federation.carrier, setup)
    federation.run(on_round)
    return setup, transcript, plantings


def reopen(
    transcript: Transcript, directory: Path, materials: Materials, parts: Parts, variant: Variant = ORDINARY
) -> TrainedRun:
    """A complete transcript from anywhere as a finished training, nothing trained; ``directory`` takes the views.

    Its origin must be there (``read_origin``). Raises UsageError where rounds are missing or the layout is not the
    model's.
    """
    spec, seed, plantings = read_origin(transcript)
    if transcript.committed() != transcript.public.rounds - 1:
        raise UsageError(
            f"{transcript.root} holds {transcript.committed() + 1} of {transcript.public.rounds} rounds: "
            "finish the run first."
        )
    if transcript.public.adapter != materials.model.layout:
        raise UsageError(f"{transcript.root} is of an adapter of another shape than its model and LoRA settings give.")
    setup = _setup(spec, seed, materials, parts, plantings[0], variant)
    setup.meter.add(transcript.harness_notes(transcript.committed()).get("phases", {}))
    summary = measure(setup, transcript, materials)
    nominal = variant.nominal_size(nominal_size(spec), spec)
    return _finished(spec, seed, directory, transcript, parts, plantings, summary, nominal)


def _finished(
    spec: RunSpec,
    seed: int,
    directory: Path,
    transcript: Transcript,
    parts: Parts,
    plantings: Plantings,
    summary: Mapping[str, Any],
    nominal: int,
) -> TrainedRun:
    utility = tuple(Utility.model_validate(u) for u in summary["utility"])
    return TrainedRun(
        run_id=spec.run_id(seed),
        spec=spec,
        seed=seed,
        directory=directory,
        transcript=transcript,
        parts=parts,
        trained=plantings[0],
        planting=plantings[1],
        utility=utility,
        learned=learned(utility),
        cost=dict(summary["cost"]),
        mechanisms=logged_mechanisms(transcript),
        nominal_sizes=dict.fromkeys(transcript.public.silos, nominal),
    )


def nominal_size(spec: RunSpec) -> int:
    """Records that a silo trains on, as the public settings say: what weights, rates and steps are made from."""
    return round(spec.pool.candidates * spec.pool.share)


def _setup(spec: RunSpec, seed: int, materials: Materials, parts: Parts, planting: Planting, variant: Variant) -> Setup:
    federation = spec.federation
    silos = tuple(silo(i) for i in range(federation.silos))
    nominal = variant.nominal_size(nominal_size(spec), spec)
    adapter = materials.model.layout
    public = Public(
        layout=parts.aggregator.summed(adapter, silos),
        adapter=adapter,
        state=parts.aggregator.state(adapter),
        silos=silos,
        weights={name: parts.aggregator.weight(nominal) for name in silos},
        rounds=federation.rounds,
        participants=participants(federation, materials.streams),
        nonce=public_nonce(seed),
    )
    return Setup(
        model=materials.model,
        parts=parts,
        public=public,
        federation=federation,
        initial=widened(materials.model.initial_adapter(materials.streams.generator("initial adapter")), public.state),
        streams=materials.streams,
        orders=Streams(seed, f"shadow {spec.shadow}/" if spec.shadow else ""),
        secret_seed=spec.secret_seed,
        tokens=lambda name: training_tokens(name, spec, materials, parts, planting),
        nominal_sizes=dict.fromkeys(silos, nominal),
    )


def training_tokens(name: str, spec: RunSpec, materials: Materials, parts: Parts, planting: Planting) -> Tokens:
    """What silo ``name`` trains on: its members, after the defense's record parts."""
    if not parts.records:
        return materials.tokens(planting.members[name])
    records = [materials.pool.records[i] for i in planting.members[name]]
    for part in parts.records:
        records = list(part.apply(records))
    return materials.model.encode(records, spec.pool.max_tokens, materials.corpus.task.answer_prefix)


def _transcript(root: Path, setup: Setup, spec: RunSpec) -> Transcript:
    if (root / "manifest.json").exists():
        return Transcript(root)
    public_spec = spec.model_dump(mode="json", exclude={"secret_seed"})
    return Transcript.create(root, setup.public, setup.initial, public_spec)
