"""A small federation with known updates, run by the real protocol, and what was seen of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.core.held import Scratch
from bench.core.parties import silo, silo_index
from bench.core.streams import SecretStreams, State, Streams
from bench.core.tokens import Tokens
from bench.core.update import Array, Grid, Layout, Update
from bench.defense.channel import Candidate, Channel, Desk, Endpoint, Knowledge, Message, Opened, Outgoing, Stage
from bench.defense.compose import Topology
from bench.defense.contexts import OpenContext, TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Trainer, Training, TrainJob, Transform
from bench.defense.public import Public, alike
from bench.federation.carrier import Carrier
from bench.spec.run import Dropout, FederationSpec
from bench.transcript.transcript import Transcript

#: two LoRA pairs of different shapes; the second tensor is longer than any ciphertext of 4096 slots
LAYOUT = Layout(
    names=tuple(
        f"base_model.model.model.layers.{layer}.self_attn.{module}_proj.lora_{half}.weight"
        for layer, module in ((0, "q"), (1, "v"))
        for half in ("A", "B")
    ),
    shapes=((4, 24), (40, 4), (4, 1200), (24, 4)),
)
#: the grid that updates are put on for channels that take integers; a step is 2**-10, so that float32 holds it exactly
GRID = Grid(bits=8, clip=127 / 1024)


class FakeModel:
    """An adapter without a model: what the protocol needs of one."""

    vocab_size = 100

    def __init__(self, layout: Layout = LAYOUT) -> None:
        self.layout = layout
        self._values = np.zeros(layout.size, dtype=np.float32)

    def set_adapter(self, values: Array | None) -> None:
        self._values = np.zeros(self.layout.size, np.float32) if values is None else np.array(values, np.float32)

    def get_adapter(self) -> Array:
        return self._values.copy()


class FixedTrainer(Trainer):
    """Moves the adapter by what ``delta(silo index stream, round)`` says; trains on nothing."""

    def __init__(self, delta: Callable[[TrainJob], Array]) -> None:
        self._delta = delta

    def train(self, job: TrainJob) -> Training:
        job.model.set_adapter(job.model.get_adapter() + self._delta(job))
        return Training(steps=1, tokens=1, losses=(0.0,), batches=((0,),))


def random_delta(job: TrainJob) -> Array:
    """Different for every silo and round, as large as real LoRA updates are; the same in every run."""
    return (0.02 * job.order.standard_normal(job.model.layout.size)).astype(np.float32)


def constant_delta(job: TrainJob) -> Array:
    """The same for every silo and round."""
    return np.full(job.model.layout.size, 0.0123, dtype=np.float32)


class ToGrid(Transform):
    """Rounds to the grid, for channels that take integers only."""

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").unbound(self).on_grid()

    def apply(self, update: Update, context: TransformContext) -> Update:
        scaled = np.rint(np.clip(update.values / GRID.clip, -1, 1) * GRID.levels)
        return replace(update, values=scaled.astype(np.int64), grid=GRID)


class WatchedChannel(Channel):
    """A channel under test, and every sum that one of its endpoints opened."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.opener, self.accepts, self.error = inner.opener, inner.accepts, inner.error
        self.bytes_per_value = inner.bytes_per_value
        self.sums: list[tuple[str, int, Opened]] = []

    def stages(self) -> tuple[Stage, ...]:
        return self.inner.stages()

    def endpoint(self, desk: Desk) -> Endpoint:
        return _Watched(self.inner.endpoint(desk), desk.me, self.sums)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        return self.inner.read(knowledge)


class _Watched(Endpoint):
    def __init__(self, inner: Endpoint, me: str, sums: list[tuple[str, int, Opened]]) -> None:
        self._inner, self._me, self._sums = inner, me, sums

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        return self._inner.step(stage, round, inbox)

    def contribute(self, round: int, update: Update) -> None:
        self._inner.contribute(round, update)

    def handed(self) -> Mapping[str, Iterable[bytes]]:
        return self._inner.handed()

    def opened(self) -> Iterable[tuple[int, Opened]]:
        for round, opened in self._inner.opened():
            self._sums.append((self._me, round, opened))
            yield round, opened


@dataclass
class Rehearsal:
    """One federation that was run. Arrays are flat, over the whole layout, in float64."""

    transcript: Transcript
    #: (who, round, what it opened)
    sums: list[tuple[str, int, Opened]] = field(default_factory=list)
    folder: Scratch | None = None

    def expected(self, round: int, silos: Iterable[str]) -> NDArray[np.float64]:
        """The plain sum of the summands that ``silos`` handed to the channel."""
        total = np.zeros(self.transcript.public.layout.size)
        for name in silos:
            summand = self.transcript.truth(round, name)
            if summand is not None:
                total += summand
        return total

    def frames(self, round: int, sender: str) -> list[bytes]:
        """All frames of the channel's own stages that ``sender`` sent in ``round``."""
        harness = ("broadcast", "release")
        found = [m for m in self.transcript.messages([round]) if m.sender == sender and m.stage not in harness]
        return [frame for message in found for frame in message.frames()]


def federate(
    channel: Channel,
    delta: Callable[[TrainJob], Array] = random_delta,
    *,
    silos: int = 3,
    rounds: int = 2,
    dropouts: Sequence[Dropout] = (),
    carrier: Callable[[Carrier], Carrier] | None = None,
    topology: Topology = "federated",
) -> Rehearsal:
    """Run ``channel`` in the real protocol. Raises what a party raises."""
    from bench.defense.compose import Parts
    from bench.defense.defaults.mean import Mean
    from bench.federation.rounds import Federation
    from bench.federation.setup import Setup, participants
    from bench.model.lora import LoraModel

    watched = WatchedChannel(channel)
    spec = FederationSpec(silos=silos, rounds=rounds, dropouts=tuple(dropouts))
    names = tuple(silo(i) for i in range(silos))
    encoders = () if "real" in channel.accepts else (ToGrid(),)
    streams = Streams(0)
    setup = Setup(
        model=cast(LoraModel, FakeModel()),
        parts=Parts((), FixedTrainer(delta), (), watched, Mean(weighted=False), encoders, topology=topology),
        public=Public(alike(LAYOUT), names, dict.fromkeys(names, 1), rounds, participants(spec, streams)),
        federation=spec,
        initial=np.zeros(LAYOUT.size, dtype=np.float32),
        streams=streams,
        secret_seed=None,
        tokens=some_tokens,
        nominal_sizes=dict.fromkeys(names, 1),
    )
    folder = Scratch("check")
    transcript = Transcript.create(Path(folder.name), setup.public, setup.initial, {})
    federation = Federation(setup, transcript)
    if carrier is not None:
        federation.carrier = carrier(federation.carrier)
    federation.run()
    return Rehearsal(transcript, watched.sums, folder)


def some_tokens(name: str) -> Tokens:
    """A few records of a silo, of lengths of their own: ids without a text."""
    index = silo_index(name)
    rng = np.random.default_rng(index)
    lengths = rng.integers(2, 9 + index, size=3 + index).astype(np.int32)
    inside = np.arange(lengths.max()) < lengths[:, None]
    ids = (rng.integers(1, FakeModel.vocab_size, inside.shape) * inside).astype(np.int32)
    predicted = inside.copy()
    predicted[:, 0] = False
    return Tokens(ids, lengths, predicted, lengths - 1)


def transform_context(
    adapter: Array,
    round: int = 0,
    rounds: int = 4,
    *,
    state: State | None = None,
    silos: int = 3,
    layout: Layout = LAYOUT,
    secret_seed: int | None = 7,
) -> TransformContext:
    """What a transform at silo-0 is given in ``round``, in a federation of ``silos`` of weight 1."""
    names = tuple(silo(i) for i in range(silos))
    return TransformContext(
        public=Public(alike(layout), names, dict.fromkeys(names, 1), rounds, (names,) * rounds),
        round=round,
        global_adapter=adapter,
        lr=2e-3,
        steps=8,
        reach=0.1,
        secret=SecretStreams("silo-0", secret_seed),
        state={} if state is None else state,
    )


def open_context(round: int = 0, rounds: int = 4, silos: int = 3) -> OpenContext:
    """What a server step is given beside a dense sum of ``round``."""
    names = tuple(silo(i) for i in range(silos))
    return OpenContext(
        public=Public(alike(LAYOUT), names, dict.fromkeys(names, 1), rounds, (names,) * rounds),
        round=round,
        global_adapter=np.zeros(LAYOUT.size, dtype=np.float32),
        lr=2e-3,
        steps=8,
        reach=0.1,
        secret=SecretStreams("server", 7),
        support=lambda: None,
    )


def knowledge(rehearsal: Rehearsal, parties: Iterable[str], keys: bool = True) -> Knowledge:
    """What a coalition of ``parties`` holds after it, with or without its keys, and without contributions."""
    coalition = frozenset(parties)
    messages = [m for m in rehearsal.transcript.messages() if m.sender in coalition or coalition & set(m.receivers)]
    held: Mapping[str, Mapping[str, NDArray[np.uint8]]] = (
        {party: rehearsal.transcript.keys(party) for party in coalition} if keys else {}
    )
    return Knowledge(coalition, rehearsal.transcript.public, messages, held, {})


def sentences(count: int, words: int, rng: np.random.Generator) -> Iterator[str]:
    """``count`` distinct texts of random common words, for records that nobody wrote."""
    seen: set[str] = set()
    while len(seen) < count:
        text = " ".join(map(str, rng.choice(_WORDS.split(), size=words)))
        if text not in seen:
            seen.add(text)
            yield text


_WORDS = """
patient night morning blood pressure stable pain chest left right knee mild severe daily tablet doctor visit week month
report cough fever heart test result normal low high skin eye arm back sleep walk home care nurse plan stop start change
dose sugar weight water table window river stone green yellow paper train garden music winter summer letter
"""
