"""What a coalition gets out of its messages and secrets: the finest sums that the masks allow.

For each round the silos that shared secrets (U2) form a graph: an edge stands for a pairwise mask that the coalition
does not know, because it holds neither silo's mask key nor the threshold of shares of it. Masks inside a connected part
cancel in the sum of its uploads and in no sum of fewer (each is an independent stream of one edge). So a part opens if
all its silos uploaded and all their self masks are known, and nothing finer does. The server alone, in an honest run,
gets one part: the survivors. A coalition that has the shares to know every key gets parts of one silo: uploads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import MAX_HEADER, Form
from bench.defense.channel import Candidate, Knowledge, Message
from bench.defense.sum_channel import as_bytes
from defenses.channels.secagg import packing, wire
from defenses.channels.secagg.packing import Words
from defenses.channels.secagg.session import SEALED_SHARES, Roster, Session
from defenses.channels.secagg.unmasking import Secrets, opened


def read_rounds(session: Callable[[int], Session], knowledge: Knowledge) -> Iterator[Candidate]:
    """Candidates of all rounds; messages that are malformed count for nothing."""
    for round in range(knowledge.public.rounds):
        with contextlib.suppress(SiloBenchError):
            yield from _Round(session(round), knowledge).candidates()


class _Round:
    """Raises SiloBenchError where the coalition saw no roster."""

    def __init__(self, session: Session, knowledge: Knowledge) -> None:
        self.session, self.knowledge = session, knowledge
        messages = [m for m in knowledge.messages if m.round == session.round]
        rosters = [m for m in messages if m.stage == "roster"]
        if not rosters:
            raise SiloBenchError("no roster was seen")
        frame = wire.only_frame(rosters[0], session.roster_limit())
        self.roster = Roster.read(frame, session.silos, session.round)
        self.messages = [m for m in messages if m.sender in self.roster.adverts]
        self.secrets = Secrets(session, self.roster)
        self._gather()

    def candidates(self) -> Iterator[Candidate]:
        uploads = {m.sender: m for m in self.messages if m.stage == "upload"}
        # U2: those who shared their secrets (a silo masks its vector for all whose shares it was handed)
        shared = {m.sender for m in self.messages if m.stage == "share"}
        sharers = [silo for silo in self.session.silos if silo in shared]
        for part in self._parts(sharers):
            others = set(part) - self.knowledge.parties
            if others and set(part) <= set(uploads) and all(self.secrets.self_mask(silo) for silo in part):
                with contextlib.suppress(SiloBenchError):
                    yield self._open(part, [uploads[silo] for silo in part], sharers)

    def _gather(self) -> None:
        """Secrets of the coalition's own silos, shares sealed for them, and shares that were revealed."""
        for party in self.knowledge.parties & set(self.roster.adverts):
            self.secrets.know(party, self._held(party, "self-mask"), self._held(party, "mask"))
        for message in self.messages:
            with contextlib.suppress(SiloBenchError):
                if message.stage == "share":
                    self._learn_sealed(message)
                elif message.stage == "unmask":
                    self.secrets.learn_revealed(message.sender, _first(message))

    def _held(self, party: str, name: str) -> bytes | None:
        return as_bytes(self.knowledge.keys.get(party, {})).get(f"round-{self.session.round}/{name}")

    def _learn_sealed(self, message: Message) -> None:
        boxes = wire.set_and_records(_first(message), self.session.silos, SEALED_SHARES)
        for receiver in self.knowledge.parties & set(boxes) & set(self.roster.adverts):
            key = self._held(receiver, "encryption")
            if key is not None:
                shares = self.session.unseal_shares(self.roster, message.sender, key, receiver, boxes[receiver])
                if shares is not None:
                    self.secrets.learn_shares(receiver, message.sender, shares)

    def _parts(self, sharers: Sequence[str]) -> list[tuple[str, ...]]:
        """The connected parts of the graph of unknown pairwise masks, in the public order."""
        # two silos share an unknown mask exactly if both keys are unknown: those are all connected
        unknown = tuple(silo for silo in sharers if not self._knows_key(silo))
        return [part for part in (unknown, *((silo,) for silo in sharers if silo not in unknown)) if part]

    def _knows_key(self, silo: str) -> bool:
        with contextlib.suppress(SiloBenchError):  # a share that does not fit
            return self.secrets.mask_key(silo) is not None
        return False

    def _open(self, part: Sequence[str], uploads: Sequence[Message], sharers: Sequence[str]) -> Candidate:
        session, support = self.session, self.knowledge.supports.get(self.session.round)
        headers = {_first(m)[:MAX_HEADER] for m in uploads}
        form = Form.read(headers.pop(), session.public.layout, support)
        shape = session.payload.shape(form, len(session.participants))
        lengths = session.upload_lengths(_first(uploads[0]), shape)
        if headers or any(tuple(m.lengths) != lengths for m in uploads):
            raise SiloBenchError("uploads do not have the form that their headers state")
        first = 1 + len(packing.frame_sizes(shape.count, shape.bits))

        def vector(index: int) -> Words:
            return session.summed((m.frame(1 + index) for m in uploads), shape, index)

        def extra(index: int) -> NDArray[Any]:
            return session.summed_extra((m.frame(first + index) for m in uploads), form, index)

        values = opened(self.secrets, part, sharers, form, vector, extra)
        how = "unmasked upload" if len(part) == 1 else "unmasked sum"
        return Candidate(session.round, frozenset(part), values, f"secure aggregation: {how}")


def _first(message: Message) -> bytes:
    if not message.lengths:
        raise SiloBenchError(f"the '{message.stage}' message of {message.sender} is empty")
    return message.frame(0)
