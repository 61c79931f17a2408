"""Small federations without a model: random updates go through a channel's real endpoints into a real transcript."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.conformance.fixtures import FixedTrainer, constant_delta
from bench.core.adversaries import Assignment
from bench.core.frames import encode_adapter
from bench.core.parties import DEALER, PUBLIC, SERVER, is_silo, silo
from bench.core.streams import SecretStreams, State
from bench.core.update import Array, Layout, Update
from bench.defense.aggregator import Aggregator, ServerStep
from bench.defense.channel import Channel, Desk, Message
from bench.defense.compose import Parts
from bench.defense.defaults.mean import Mean
from bench.defense.public import Public, alike
from bench.transcript.transcript import RoundWriter, Transcript
from bench.view.build import build
from bench.view.view import View


def layout_of(size: int) -> Layout:
    """Two tensors, like the two factors of one LoRA matrix."""
    half = size // 2
    return Layout(("q.lora_A", "q.lora_B"), ((1, half), (size - half, 1)))


class Synthetic:
    """A federation whose silos "learn" normal noise. ``updates[(round, silo)]`` are the deltas it used."""

    def __init__(
        self,
        root: Path,
        channel: Channel,
        *,
        silos: int = 3,
        rounds: int = 2,
        size: int = 300,
        aggregator: Aggregator | None = None,
        steps: Sequence[ServerStep] = (),
        release: str = "final",
        precision: str = "float32",
        weights: Sequence[int] | None = None,
        dropped: Collection[tuple[int, str]] = (),
        participants: Sequence[tuple[str, ...]] | None = None,
        truth: bool = True,
        seed: int = 0,
        scale: float = 1e-2,
        supports: Mapping[int, NDArray[np.int64]] | None = None,
    ) -> None:
        self.channel, self.aggregator = channel, aggregator or Mean()
        self.parts = Parts((), FixedTrainer(constant_delta), (), channel, self.aggregator, steps=tuple(steps))
        self.memory: State = {}
        self.release, self.precision, self.dropped, self.keep_truth = release, precision, dropped, truth
        self.rng = np.random.default_rng(seed)
        self.scale = scale
        self.supports = supports or {}
        names = tuple(silo(i) for i in range(silos))
        sizes = dict(zip(names, weights or [3 + i for i in range(silos)], strict=True))
        self.public = Public(
            alike(layout_of(size)),
            names,
            {name: self.parts.weight(n) for name, n in sizes.items()},
            rounds,
            tuple(participants or [names] * rounds),
        )
        self.global_adapter: Array = self.rng.normal(0, 0.05, size).astype(np.float32)
        self.adapters: list[Array] = [self.global_adapter]
        self.updates: dict[tuple[int, str], Array] = {}
        self.states: dict[str, dict[str, NDArray[Any]]] = defaultdict(dict)
        self.mail: dict[str, list[Message]] = defaultdict(list)
        self.transcript = Transcript.create(root, self.public, self.global_adapter, {"seed": 7, "federation": {"x": 1}})
        for round in range(-1, rounds):
            self._round(round)

    def view(self, root: Path, adversary: str, *coalition: str, **options: Any) -> View:
        """Build one view; ``coalition`` names its parties."""
        victims = tuple(s for s in self.public.silos if s not in coalition)
        assignment = Assignment(frozenset(coalition), victims)
        precision = options.pop("precision", self.precision)
        return build(self.transcript, self.parts, adversary, assignment, root, precision, **options)

    def summand(self, round: int, name: str) -> Array:
        """What ``name`` handed to the channel in ``round``, from the deltas; 0 where unsent."""
        return np.asarray(self._sent(round, name).dense(), dtype=np.float32)

    def _sent(self, round: int, name: str) -> Update:
        update = Update(self.updates[round, name], self.public.layout, self.public.weights[name])
        if round in self.supports:
            update = update.restricted(self.supports[round])
        return self.aggregator.summand(update, self.adapters[round], self.public)

    def _round(self, round: int) -> None:
        writer = self.transcript.begin(round)
        known = {(party, key) for party, state in self.states.items() for key in state}
        if round >= 0:
            self._broadcast(writer, round)
            for name in self.public.participants[round]:
                delta = self.rng.normal(0, self.scale, self.public.layout.size)
                self.updates[round, name] = delta.astype(np.float32)
                if self.keep_truth:
                    writer.save_truth(name, self.summand(round, name))
        for stage in self.channel.stages():
            if stage.setup == (round < 0):
                actors = {"silos": self.public.silos, "server": (SERVER,), "dealer": (DEALER,)}[stage.actors]
                for actor in actors:
                    self._act(actor, stage.name, round, writer)
        self.adapters.append(self.global_adapter) if round >= 0 else None
        last = round == self.public.rounds - 1
        if round >= 0 and (self.release == "every-round" or (self.release == "final" and last)):
            writer.send("release", SERVER, (PUBLIC,), encode_adapter(self.global_adapter, self.precision))
        if round in self.supports:
            writer.save_support(self.supports[round])
        if self.keep_truth:
            writer.save_truth("adapter", self.global_adapter)
        self._save_keys(writer, known)
        writer.commit()

    def _broadcast(self, writer: RoundWriter, round: int) -> None:
        if self.channel.opener == "server" or round == 0:
            receivers = self.public.participants[round] if self.channel.opener == "server" else self.public.silos
            writer.send("broadcast", SERVER, receivers, encode_adapter(self.global_adapter, "float32"))

    def _act(self, actor: str, stage: str, round: int, writer: RoundWriter) -> None:
        secret = SecretStreams(actor, secret_seed=11)
        endpoint = self.channel.endpoint(Desk(actor, self.public, self.states[actor], secret, self.supports.get))
        inbox = self.mail.pop(actor, [])
        if round >= 0 and is_silo(actor):
            if (round, actor) not in self.updates or (round, actor) in self.dropped:
                self.mail[actor] = inbox
                return
            endpoint.contribute(round, self._sent(round, actor))
        for outgoing in endpoint.step(stage, round, inbox):
            message = writer.send(stage, actor, outgoing.receivers, outgoing.frames)
            # read from memory: the file is renamed when the round is committed
            held = _Held(message.round, stage, actor, message.receivers, tuple(message.frames()))
            for receiver in outgoing.receivers:
                self.mail[receiver].append(held)
        for opened_round, opened in endpoint.opened():
            if actor == SERVER or actor == self.public.participants[round][0]:
                start = self.adapters[opened_round]
                after = self.parts.moved(opened.values, opened.silos, start, self.public, self.memory)
                self.global_adapter = np.asarray(after, dtype=np.float32)

    def _save_keys(self, writer: RoundWriter, known: set[tuple[str, str]]) -> None:
        for party, state in self.states.items():
            for key, value in state.items():
                if (party, key) not in known:
                    path = writer.parts["secrets"] / party / f"{key}.npy"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, value, allow_pickle=False)


class _Held:
    """A message in memory."""

    def __init__(
        self, round: int, stage: str, sender: str, receivers: tuple[str, ...], content: tuple[bytes, ...]
    ) -> None:
        self.round, self.stage, self.sender, self.receivers, self.content = round, stage, sender, receivers, content

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.content))

    def frame(self, index: int) -> bytes:
        return self.content[index]

    def frames(self) -> Any:
        return iter(self.content)
