"""A small real run on the packaged model ``tiny``, in the clear, for attacks to be tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.assess.assess import Assessor
from bench.assess.plays.table import Answers, Assessment, Seat
from bench.assess.plays.table import tools as lend
from bench.assess.tools import LentTools, Memo
from bench.assets.assets import Assets
from bench.attack.attack import Attack, Candidates, GameName
from bench.conformance.fixtures import sentences
from bench.core.adversaries import assignments
from bench.core.held import Scratch
from bench.core.streams import SecretStreams, Streams
from bench.core.update import Array
from bench.corpus.planting import plant
from bench.corpus.pool import build_pool
from bench.corpus.task import Record, Task
from bench.defense.compose import Parts, fill
from bench.model.lora import LoraModel
from bench.plugins.find import Plugins
from bench.spec.result import Claim
from bench.spec.run import FederationSpec, LocalSpec, LoraSpec, ModelSpec, PluginSpec, PoolSpec, RunSpec
from bench.store.store import Store
from bench.training.case import Case
from bench.training.materials import Corpus, Materials, Workshop, seen_texts
from bench.training.training import ShadowRun, TrainedRun, draw_plantings, federate, shadow_specs, train
from bench.training.variant import Variant
from bench.training.variant import build as build_variant
from bench.view.build import build
from bench.view.view import View

SECRET_SEED = 11
#: over all silos; half of them are trained on
CANDIDATES = 120
#: words of a record: enough to be told from others; under the LoRA rank for one gradient step to be read exactly
WORDS: dict[GameName, int] = {"membership": 8, "reconstruction": 3}
_MEMBERSHIP = FederationSpec(
    silos=2, rounds=1, lora=LoraSpec(rank=8, alpha=16.0), local=LocalSpec(epochs=20, batch=6, lr=2e-2)
)
#: gentler and longer: canaries of random tokens are learnt by heart later than sentences
_AUDIT = FederationSpec(
    silos=2, rounds=1, lora=LoraSpec(rank=8, alpha=16.0), local=LocalSpec(epochs=60, batch=6, lr=1e-2)
)
#: what is sent still follows from a record's first gradients
_BRIEF = FederationSpec(
    silos=2, rounds=3, lora=LoraSpec(rank=8, alpha=16.0), local=LocalSpec(steps=1, batch=64, optimizer="sgd", lr=0.3)
)
#: one gradient step of one record per silo, at a rank above its number of tokens
_RECONSTRUCTION = FederationSpec(
    silos=4,
    rounds=1,
    lora=LoraSpec(rank=32, alpha=32.0),
    local=LocalSpec(steps=1, batch=1, optimizer="sgd", lr=0.1),
)


class Sentences(Task):
    """Records of random words."""

    source = "generated"

    def __init__(self, words: int) -> None:
        self.words = words

    def records(self, assets: Assets) -> Sequence[Record]:
        texts = sentences(240, self.words, np.random.default_rng(5))
        return [Record(f"r{number}", text) for number, text in enumerate(texts)]


@dataclass(frozen=True)
class Playground:
    """A trained run, and what is needed to attack it; its folder lives as long as it does."""

    run: TrainedRun
    folder: Scratch
    memo: Memo
    _trained: dict[int, ShadowRun] = field(default_factory=dict)

    @property
    def materials(self) -> Materials:
        return self.run.case.materials

    def assess(self, name: str, attack: Attack, adversary: str) -> Assessment:
        """The attack as a run would make and score it."""
        return Assessor(self.run, self.memo, self.shadows(attack.shadows)).assess(name, attack, adversary)

    def with_other_truth(self) -> Playground:
        """The same run, scored against members that were drawn independently of those it was trained on."""
        pool = self.materials.pool
        share = self.run.spec.pool.share
        other = plant("independent", pool.silos, pool.clusters, share, SecretStreams("game/other", SECRET_SEED + 1))
        return replace(self, run=replace(self.run, case=replace(self.run.case, plantings=(other, other))))

    @cached_property
    def view(self) -> View:
        """All that the server and every silo but one can read."""
        run = self.run
        assignment = assignments("all-but-one", run.transcript.public.silos)[0]
        directory = Path(self.folder.name) / "view"
        return build(run.transcript, run.parts, "all-but-one", assignment, directory)

    def tools(self, asked: Sequence[str] = (), shadows: int = 0) -> LentTools:
        """Fresh tools at ``view``, with randomness that is the same every time. ``asked``: the candidates' ids."""
        assignment = assignments("all-but-one", self.run.transcript.public.silos)[0]
        seen = tuple((self._shadow_view(shadow), shadow.planting) for shadow in self.shadows(shadows))
        return lend(self, "check", "all-but-one", Seat(0, assignment, self.view, seen), asked)

    @property
    def released(self) -> dict[str, Array]:
        """Released adapters by handle."""
        return Assessor(self.run, self.memo).released

    @property
    def answers(self) -> Answers:
        """Nobody has been asked before."""
        return {}

    def claim(self, adversary: str, delta: float | None = None) -> Claim | None:
        """What the defense promises to that adversary's victims."""
        return Assessor(self.run, self.memo).claim(adversary, delta)

    def shadows(self, count: int) -> list[ShadowRun]:
        """The first ``count`` shadow federations, trained once."""
        return [self._shadow(spec) for spec in shadow_specs(self.run.spec, count)]

    def _shadow(self, spec: RunSpec) -> ShadowRun:
        if spec.shadow not in self._trained:
            store = Store(Path(self.folder.name))
            case = _case(spec, self.run.parts, self.materials, Variant(), store)
            _, transcript = federate(case, store)
            self._trained[spec.shadow] = ShadowRun(case.run_id, transcript, case.planting)
        return self._trained[spec.shadow]

    def _shadow_view(self, shadow: ShadowRun) -> View:
        directory = Path(self.folder.name) / f"view-{shadow.run_id}"
        if not directory.exists():
            parts, assignment = self.run.parts, assignments("all-but-one", shadow.transcript.public.silos)[0]
            build(shadow.transcript, parts, "all-but-one", assignment, directory)
        return View.load(directory)

    def candidates(self, ids: Sequence[str]) -> Candidates:
        """What an attack is asked about ``ids``."""
        holder = {i: name for name, held in self.materials.pool.silos.items() for i in held}
        opaque = tuple(f"c{k}" for k in range(len(ids)))
        return Candidates(opaque, tuple(holder[i] for i in ids), self.materials.texts(ids), self.materials.tokens(ids))


def playground(
    game: GameName,
    defense: str = "fedavg",
    variant: PluginSpec | None = None,
    plugins: Plugins | None = None,
    local: LocalSpec | None = None,
) -> Playground:
    """Train it: a few seconds. ``defense``: whose run it is, with its defaults; ``variant``: a run of its own;
    ``local``: how its silos train, where that is not to be what the game needs.

    Membership, reconstruction and audit are played on sentences of random words; other games on one setting of clinical
    notes, divided by ward, with labels and marked secrets (``setting``).
    """
    known = plugins or Plugins()
    parts = fill(known.find("defense", defense).build({}))
    kind = build_variant(variant, known)
    spec = _on_notes(defense, variant) if setting(game) == "notes" else _on_sentences(game, defense, variant)
    if local is not None:
        spec = spec.model_copy(update={"federation": spec.federation.model_copy(update={"local": local})})
    if setting(game) == "notes":
        materials = Workshop(known, Assets(quiet=True), "cpu").materials(spec, 0)
    else:
        materials = _materials(spec, Sentences(WORDS.get(game, 8)))
    folder = Scratch("check")
    store = Store(Path(folder.name))
    run = train(_case(spec, parts, kind.materials(materials, spec, 0), kind, store), store)
    return Playground(run, folder, Memo())


def _case(spec: RunSpec, parts: Parts, materials: Materials, variant: Variant, store: Store) -> Case:
    plantings = draw_plantings(variant, materials, spec, 0, store)
    return Case(spec, 0, spec.run_id(0), parts, variant, materials, plantings)


def setting(game: GameName) -> str:
    """What ``game`` is played on: games of one setting are played on one run."""
    return game if game in ("membership", "reconstruction", "audit") else "notes"


def _on_notes(defense: str, variant: PluginSpec | None) -> RunSpec:
    """A federation of three wards that memorises its notes."""
    return RunSpec(
        task=PluginSpec(name="clinical-notes", config={"notes": 400, "seed": 0}),
        model=ModelSpec(name="tiny"),
        pool=PoolSpec(candidates=12, validation=0, heldout=6, population=40, max_tokens=64),
        federation=FederationSpec(
            silos=3,
            rounds=1,
            partition="field",
            lora=LoraSpec(rank=8, alpha=16.0),
            local=LocalSpec(epochs=20, batch=6, lr=2e-2),
        ),
        defense=(PluginSpec(name=defense),),
        variant=variant,
        secret_seed=SECRET_SEED,
    )


def _on_sentences(game: GameName, defense: str, variant: PluginSpec | None) -> RunSpec:
    federation = {"reconstruction": _RECONSTRUCTION, "audit": _AUDIT}.get(
        game, _MEMBERSHIP if defense == "fedavg" else _BRIEF
    )
    return RunSpec(
        task=PluginSpec(name="sentences"),
        model=ModelSpec(name="tiny"),
        pool=PoolSpec(
            candidates=120 // federation.silos, validation=0, heldout=4, population=40, min_tokens=4, max_tokens=48
        ),
        federation=federation,
        defense=(PluginSpec(name=defense),),
        variant=variant,
        secret_seed=SECRET_SEED,
    )


def _materials(spec: RunSpec, task: Task) -> Materials:
    assets, streams = Assets(quiet=True), Streams(0)
    source = assets.model(spec.model)
    model = LoraModel.load(source.path, spec.model, spec.federation.lora, "cpu")
    records = tuple(task.records(assets))
    tokens = model.encode(records, spec.pool.max_tokens)
    corpus = Corpus(task, records, tokens, seen_texts(model, records, tokens))
    pool = build_pool(records, corpus.lengths(), spec.pool, spec.federation, streams)
    return Materials(source, model, corpus, pool, streams)
