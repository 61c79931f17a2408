"""A run in which one coalition deviates: an attack's behaviour replaces what the coalition's parties send or train on.

Who deviates is the adversary's first coalition (``bench.core.adversaries``), and the game asks about its victims only.
The honest parties follow the protocol and can't tell. What happened to the model's usefulness in such a run says
nothing about the defense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from bench.attack.attack import Attack
from bench.attack.behaviour import Behaviour, Scene
from bench.core.adversaries import Assignment, assignments
from bench.core.errors import Refused, SiloBenchError, UsageError
from bench.core.tokens import Tokens
from bench.corpus.planting import Planting, queries
from bench.defense.channel import Message, Outgoing
from bench.defense.public import Public
from bench.federation.carrier import Carrier
from bench.federation.setup import Setup
from bench.plugins.find import Plugins
from bench.spec.config import Config as Base
from bench.spec.run import PluginSpec, RunSpec
from bench.store.store import Store
from bench.training.materials import Materials
from bench.training.variant import Variant

Made = TypeVar("Made")


class Config(Base):
    """``attack``: name and options of the attack whose behaviour it is. ``adversary``: who deviates."""

    attack: PluginSpec
    adversary: str


class Active(Variant):
    """Lets the coalition deviate."""

    def __init__(self, behaviour: Behaviour, adversary: str) -> None:
        self.behaviour, self.adversary = behaviour, adversary
        self._asked: tuple[Planting, Materials] | None = None

    def plantings(
        self, ordinary: Callable[[], Planting], materials: Materials, spec: RunSpec, seed: int, store: Store
    ) -> tuple[Planting, Planting]:
        planting = ordinary()
        self._asked = planting, materials
        return planting, planting

    def carrier(self, carrier: Carrier, setup: Setup) -> Carrier:
        """The federation's carrier, with the coalition's parties acting as the behaviour says."""
        assert self._asked is not None
        planting, materials = self._asked
        one = coalition(self.adversary, setup.public, self.behaviour)
        scene = _scene(one, planting, materials, setup)
        honest = setup.tokens

        def tokens(name: str) -> Tokens:
            own = honest(name)
            return self.behaviour.records(name, own, scene) if name in one.coalition else own

        setup.tokens = tokens
        return _Deviating(carrier, self.behaviour, scene)


def coalition(adversary: str, public: Public, behaviour: Behaviour) -> Assignment:
    """Who deviates, and against whom. Raises UsageError for an adversary that sends nothing."""
    found = assignments(adversary, public.silos)
    if not found or not found[0].coalition:
        raise UsageError(
            f"'{adversary}' sends nothing in this federation, so it can't deviate: name another adversary."
        )
    return replace(found[0], victims=behaviour.victims(found[0].victims, public))


def _scene(one: Assignment, planting: Planting, materials: Materials, setup: Setup) -> Scene:
    asked = queries(planting, one.victims, materials.streams.generator("questions", 0))
    population = materials.pool.population
    return Scene(
        coalition=one.coalition,
        victims=one.victims,
        public=setup.public,
        model=setup.model,
        local=setup.federation.local,
        initial=setup.initial,
        candidates=materials.tokens(asked.candidates),
        silos=asked.silos,
        population=materials.tokens(population),
        rng=materials.streams.generator("behaviour"),
    )


class _Deviating(Carrier):
    def __init__(self, inner: Carrier, behaviour: Behaviour, scene: Scene) -> None:
        self.inner, self.behaviour, self.scene = inner, behaviour, scene

    def deliver(self, party: str, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        def honest(given: Sequence[Message]) -> Iterable[Outgoing]:
            made = self.inner.deliver(party, stage, round, given)
            where = f"{party}, stage {stage} of round {round}"
            return (Outgoing(one.receivers, _guarded(one.frames, where)) for one in _guarded(made, where))

        if party not in self.scene.coalition:
            return honest(inbox)
        return self.behaviour.act(party, stage, round, inbox, honest, self.scene)


def _guarded(made: Iterable[Made], where: str) -> Iterator[Made]:
    """What the protocol's own code makes, lazily. Raises Refused where it does not go on."""
    try:
        yield from made
    except UsageError:
        raise  # a request that no message could make right
    except SiloBenchError as error:
        raise Refused(f"the protocol stopped at {where}: {error}") from error


def build(config: Config, plugins: Plugins) -> Active:
    attack: Attack = plugins.find("attack", config.attack.name).build(config.attack.config)
    behaviour = attack.behaviour
    if behaviour is None:
        raise UsageError(f"The attack '{config.attack.name}' deviates from nothing: it has no behaviour.")
    return Active(behaviour, config.adversary)
