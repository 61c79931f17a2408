"""One training, from its case to a complete transcript, with its utility and its cost."""

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
from bench.defense.public import Layouts, Public
from bench.federation.rounds import Federation
from bench.federation.setup import Setup, participants, public_nonce
from bench.model.products import widened
from bench.plugins.find import Plugins
from bench.spec.result import Utility
from bench.spec.run import RunSpec
from bench.store.store import Store
from bench.training.case import Case, Plantings
from bench.training.materials import Materials
from bench.training.measure.utility import learned, measure
from bench.training.origin import save_origin
from bench.training.variant import Variant
from bench.transcript.notes import logged_mechanisms
from bench.transcript.transcript import Transcript

#: called with the number of each round that is finished, -1 for set-up
OnRound = Callable[[int], None]


@dataclass(frozen=True)
class TrainedRun:
    """A finished training: what every attack starts from. ``directory`` takes the views."""

    case: Case
    directory: Path
    transcript: Transcript
    utility: tuple[Utility, ...]
    learned: bool
    cost: dict[str, Any]
    mechanisms: Mapping[str, tuple[Mechanism, ...]]

    @property
    def spec(self) -> RunSpec:
        return self.case.spec

    @property
    def parts(self) -> Parts:
        return self.case.parts

    @property
    def planting(self) -> Planting:
        """What the game asks about."""
        return self.case.planting

    @property
    def nominal_sizes(self) -> dict[str, int]:
        """By silo, the records that it trains on as the public settings and sizes say."""
        return self.case.nominal_sizes


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


def draw_plantings(variant: Variant, materials: Materials, spec: RunSpec, seed: int, store: Store) -> Plantings:
    """What silos train on and what the game asks about: those of the store, drawn where they are missing."""
    return variant.plantings(lambda: draw_planting(spec, seed, materials, store), materials, spec, seed, store)


def draw_planting(spec: RunSpec, seed: int, materials: Materials, store: Store) -> Planting:
    """The game's secret: the one in the store for this task, pool, partition and seed, else a new one. Raises
    UsageError where the store's is of other candidates than these."""
    planting_id = spec.planting_id(seed)

    def draw() -> str:
        owner = f"game/{seed}" + (f"/{spec.shadow}" if spec.shadow else "")
        secret = SecretStreams(owner, spec.secret_seed)
        return plant(planting_id, materials.pool.silos, materials.pool.clusters, spec.pool.share, secret).to_json()

    found = Planting.from_json(store.draw_planting(planting_id, draw))
    for name, held in materials.pool.silos.items():
        if {*found.members.get(name, ()), *found.nonmembers.get(name, ())} != set(held):
            raise UsageError(
                f"The planting {planting_id} in {store.root} is of other candidates of {name} than this silobench "
                "draws: it was made by another version. Name a new --store."
            )
    return found


def train(case: Case, store: Store, budget: int | None = None, on_round: OnRound | None = None) -> TrainedRun:
    """Run the rounds that are missing, then measure. The caller holds the run's lock. ``budget``: bytes of messages
    that are kept."""
    setup, transcript = federate(case, store, budget, on_round)
    summary = store.summary(case.run_id)
    if summary is None:
        summary = measure(setup, transcript, case.materials)
        store.save_summary(case.run_id, summary)
    return _finished(case, store.run_dir(case.run_id), transcript, summary)


def federate(
    case: Case, store: Store, budget: int | None = None, on_round: OnRound | None = None
) -> tuple[Setup, Transcript]:
    """Run the rounds that are missing and measure nothing. The caller holds the run's lock."""
    setup = _setup(case)
    sizes, central = setup.nominal_sizes.values(), setup.parts.topology == "central"
    for size in {sum(sizes)} if central else set(sizes):  # what is refused of one silo is refused before any trains
        setup.parts.trainer.plan(setup.public.rounds, setup.federation.local, size)
    transcript = _transcript(store.run_dir(case.run_id) / "transcript", setup, case.spec)
    save_origin(transcript, case.spec, case.seed, case.plantings)
    if transcript.committed() >= -1:
        setup.meter.add(transcript.harness_notes(transcript.committed()).get("phases", {}))
    federation = Federation(setup, transcript, budget=budget)
    federation.carrier = case.variant.carrier(federation.carrier, setup)
    federation.run(on_round)
    return setup, transcript


def reopen(case: Case, transcript: Transcript, directory: Path) -> TrainedRun:
    """A complete transcript from anywhere as a finished training, nothing trained; ``directory`` takes the views, and
    ``case`` is of the transcript's own origin (``bench.training.origin``). Raises UsageError where rounds are missing
    or the layout is not the model's."""
    if transcript.committed() != transcript.public.rounds - 1:
        raise UsageError(
            f"{transcript.root} holds {transcript.committed() + 1} of {transcript.public.rounds} rounds: "
            "finish the run first."
        )
    if transcript.public.adapter != case.materials.model.layout:
        raise UsageError(f"{transcript.root} is of an adapter of another shape than its model and LoRA settings give.")
    setup = _setup(case)
    setup.meter.add(transcript.harness_notes(transcript.committed()).get("phases", {}))
    return _finished(case, directory, transcript, measure(setup, transcript, case.materials))


def _finished(case: Case, directory: Path, transcript: Transcript, summary: Mapping[str, Any]) -> TrainedRun:
    utility = tuple(Utility.model_validate(u) for u in summary["utility"])
    cost, mechanisms = dict(summary["cost"]), logged_mechanisms(transcript)
    return TrainedRun(case, directory, transcript, utility, learned(utility), cost, mechanisms)


def _setup(case: Case) -> Setup:
    spec, parts, materials = case.spec, case.parts, case.materials
    federation = spec.federation
    silos = tuple(silo(i) for i in range(federation.silos))
    adapter = materials.model.layout
    plan = parts.aggregator.plan(adapter, silos)
    sizes = case.nominal_sizes
    drawn = Streams(case.seed, f"shadow {spec.shadow}/" if spec.shadow else "")
    public = Public(
        layouts=Layouts(adapter, plan.summed, plan.state),
        silos=silos,
        weights={name: parts.weight(size) for name, size in sizes.items()},
        rounds=federation.rounds,
        participants=participants(federation, materials.streams),
        nonce=public_nonce(case.seed),
        sizes=sizes,
        names=materials.pool.names,
    )
    return Setup(
        model=materials.model,
        parts=parts,
        public=public,
        federation=federation,
        # a shadow's is its own: whoever trains one does not know the seed that the target's was drawn from
        initial=widened(materials.model.initial_adapter(drawn.generator("initial adapter")), public.state),
        streams=materials.streams,
        orders=drawn,
        secret_seed=spec.secret_seed,
        tokens=lambda name: training_tokens(case, name),
        nominal_sizes=sizes,
    )


def training_tokens(case: Case, name: str) -> Tokens:
    """What silo ``name`` trains on: its members, after the defense's record parts."""
    materials, held = case.materials, case.trained.members[name]
    if not case.parts.records:
        return materials.tokens(held)
    records = [materials.pool.records[i] for i in held]
    for part in case.parts.records:
        records = list(part.apply(records))
    return materials.model.encode(records, case.spec.pool.max_tokens, materials.corpus.task.answer_prefix)


def _transcript(root: Path, setup: Setup, spec: RunSpec) -> Transcript:
    if (root / "manifest.json").exists():
        return Transcript(root)
    public_spec = spec.model_dump(mode="json", exclude={"secret_seed"})
    return Transcript.create(root, setup.public, setup.initial, public_spec)
