"""The protocol: routes and records messages, round by round, and lets parties drop out at any stage.

It does no input or output of its own but through the carrier and the transcript.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.parties import DEALER, PUBLIC, SERVER, silo_index
from bench.defense.channel import Stage
from bench.federation.carrier import Carrier, InProcess, Party
from bench.federation.server import Dealer, Server
from bench.federation.setup import Recorder, Setup
from bench.federation.silo import Silo
from bench.federation.state import StateStore
from bench.transcript.transcript import RoundWriter, StoredMessage, Transcript

BROADCAST = Stage("broadcast", "server")
TRAIN = Stage("train", "silos")
RELEASE = Stage("release", "server")


def protocol(channel_stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """The stages of one round, in order, release last."""
    return (BROADCAST, TRAIN, *(s for s in channel_stages if not s.setup), RELEASE)


class Mailboxes:
    """What waits for each party, as (round, index in the round), so that it survives an interruption."""

    def __init__(self, waiting: dict[str, list[list[int]]] | None = None) -> None:
        self._waiting: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for party, items in (waiting or {}).items():
            self._waiting[party] = [(int(r), int(i)) for r, i in items]

    def post(self, message: StoredMessage, index: int) -> None:
        for receiver in message.receivers:
            if receiver != PUBLIC:
                self._waiting[receiver].append((message.round, index))

    def take(self, party: str) -> list[tuple[int, int]]:
        return self._waiting.pop(party, [])

    def has(self, party: str) -> bool:
        return bool(self._waiting.get(party))

    def rounds(self) -> set[int]:
        """Rounds that still have a message under way."""
        return {r for items in self._waiting.values() for r, _ in items}

    def to_json(self) -> dict[str, list[tuple[int, int]]]:
        return {party: items for party, items in self._waiting.items() if items}


class Federation:
    """Runs the rounds that a transcript does not hold yet."""

    def __init__(self, setup: Setup, transcript: Transcript, carrier: Carrier | None = None, budget: int | None = None):
        self.setup, self.transcript, self.budget = setup, transcript, budget
        # a kill between the renames of a commit leaves secrets of a round that does not count
        transcript.discard_uncommitted()
        self.store = StateStore(transcript.root / "secrets")
        self.carrier = carrier or InProcess(self._party)
        last = transcript.committed()
        self.mail = Mailboxes(_pending(transcript, last))
        self.stages = protocol(setup.parts.channel.stages())
        self._check_dropouts()

    def _check_dropouts(self) -> None:
        names = [stage.name for stage in self.stages]
        for away in self.setup.federation.dropouts:
            if away.stage not in names:
                raise UsageError(
                    f"federation.dropouts names stage '{away.stage}'; the stages of a round are {', '.join(names)}."
                )

    def _party(self, name: str) -> Party:
        kinds: dict[str, Callable[..., Party]] = {SERVER: Server, DEALER: Dealer}
        return kinds.get(name, Silo)(name, self.setup, self.store.party(name))

    def run(self, on_round: Callable[[int], None] | None = None) -> None:
        """Run set-up and all rounds that are missing; each counts once it is committed."""
        for round in range(self.transcript.committed() + 1, self.setup.public.rounds):
            self._run_round(round)
            if on_round is not None:
                on_round(round)

    def _run_round(self, round: int) -> None:
        self.setup.recorder = Recorder()
        writer = self.transcript.begin(round)
        self.store.begin(writer.parts["secrets"])
        sent: list[StoredMessage] = []
        try:
            stages = [s for s in self.setup.parts.channel.stages() if s.setup] if round < 0 else self.stages
            for stage in stages:
                for actor in self._actors(stage, round):
                    self._act(actor, stage, round, writer, sent)
            self._save_truth(writer, round)
        except BaseException:
            writer.abandon()
            raise
        writer.commit()
        self.store.committed(writer.parts["secrets"].with_suffix(""))
        self._thin()

    def _actors(self, stage: Stage, round: int) -> list[str]:
        if stage.name == RELEASE.name:
            return self._releaser(round)
        if stage.actors != "silos":
            return [SERVER if stage.actors == "server" else DEALER]
        chosen = self.setup.public.participants[round] if round >= 0 else self.setup.public.silos
        if stage.name == TRAIN.name and self.setup.parts.topology == "central":
            return [SERVER]
        if stage.name == TRAIN.name:
            acting = list(chosen)
        else:
            acting = [s for s in self.setup.public.silos if s in chosen or self.mail.has(s)]
        return [s for s in acting if not self._away(s, stage.name, round)]

    def _away(self, party: str, stage: str, round: int) -> bool:
        names = [s.name for s in self.stages]
        return any(
            away.round == round
            and silo_index(party) == away.silo
            and stage in names
            and names.index(stage) >= names.index(away.stage)
            for away in self.setup.federation.dropouts
        )

    def _releaser(self, round: int) -> list[str]:
        """Whoever opened the sum publishes it: the server, or the first silo that holds the newest adapter. Without a
        channel's stage there is no sum, and nothing to publish."""
        release = self.setup.federation.release
        last = round == self.setup.public.rounds - 1
        if release == "none" or (release == "final" and not last) or not self._has_common_model():
            return []
        return [self._holder()]

    def _has_common_model(self) -> bool:
        return self.setup.parts.topology == "central" or len(self.stages) > len(protocol(()))

    def _holder(self) -> str:
        """The party with the newest global adapter."""
        if self.setup.parts.channel.opener == "server":
            return SERVER
        return max(self.setup.public.silos, key=lambda s: (self._held_round(s), -silo_index(s)))

    def _held_round(self, party: str) -> int:
        state = self.store.party(party)
        return int(state["global/round"]) if "global/round" in state else -1

    def _act(self, actor: str, stage: Stage, round: int, writer: RoundWriter, sent: list[StoredMessage]) -> None:
        inbox = self._resolve(self.mail.take(actor), round, sent)
        for outgoing in self.carrier.deliver(actor, stage.name, round, inbox):
            message = writer.send(stage.name, actor, outgoing.receivers, outgoing.frames)
            sent.append(message)
            self.mail.post(message, len(sent) - 1)

    def _resolve(self, waiting: list[tuple[int, int]], round: int, sent: list[StoredMessage]) -> list[StoredMessage]:
        inbox = []
        for sent_round, index in waiting:
            here = sent if sent_round == round else list(self.transcript.messages([sent_round]))
            inbox.append(here[index])
        return inbox

    def _save_truth(self, writer: RoundWriter, round: int) -> None:
        recorder = self.setup.recorder
        for name, summand in recorder.summands.items():
            writer.save_truth(name, summand)
        for name, own in recorder.own.items():
            writer.save_truth(f"own-{name}", own)
        writer.save_truth("adapter", self.global_adapter())
        if recorder.support is not None:
            writer.save_support(recorder.support)
        notes: dict[str, Any] = {
            name: asdict(training) | {"bound": recorder.bounds.get(name)}
            for name, training in recorder.training.items()
        }
        writer.save_note("training", notes)
        sums = [
            {"round": r, "silos": silos, "noise": None if noise is None else asdict(noise)}
            for (r, silos), noise in recorder.sums.items()
        ]
        writer.save_note("sums", {"sums": sums})
        writer.save_note("harness", {"pending": self.mail.to_json(), "phases": self.setup.meter.to_json()})

    def global_adapter(self) -> NDArray[np.float32]:
        """The newest global adapter, at whoever holds it."""
        state = self.store.party(self._holder())
        if "global/values" not in state:
            return self.setup.initial
        return np.asarray(state["global/values"], dtype=np.float32)

    def _thin(self) -> None:
        """Drop frames of middle rounds, oldest first, while the transcript is over its disk budget."""
        if self.budget is None:
            return
        last = self.transcript.committed()
        waiting = self.mail.rounds()
        sizes = {r: self.transcript.frames_size(r) for r in range(-1, last + 1)}
        total = sum(sizes.values())
        for round in range(1, last):
            if total <= self.budget:
                return
            if round not in waiting and sizes[round]:
                self.transcript.drop_frames(round)
                total -= sizes[round]


def _pending(transcript: Transcript, last: int) -> dict[str, list[list[int]]]:
    return dict(transcript.harness_notes(last).get("pending", {})) if last >= -1 else {}
