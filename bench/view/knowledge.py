"""What a coalition holds before it opens anything: messages, its parties' keys, its own summands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bench.core.parties import PUBLIC, is_silo
from bench.defense.channel import Knowledge
from bench.transcript.transcript import StoredMessage, Transcript
from bench.view.openers.base import ADAPTER_STAGES


class Contributions(Mapping[tuple[int, str], NDArray[np.floating]]):
    """The coalition's own summands by (round, silo), mapped into memory when asked for."""

    def __init__(self, transcript: Transcript, coalition: frozenset[str]) -> None:
        self._transcript = transcript
        self._silos = sorted(party for party in coalition if is_silo(party))

    def __getitem__(self, key: tuple[int, str]) -> NDArray[np.floating]:
        round, silo = key
        values = self._transcript.truth(round, silo) if silo in self._silos else None
        if values is None:
            raise KeyError(key)
        return np.asarray(values)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for round in range(self._transcript.committed() + 1):
            for silo in self._silos:
                if self._transcript.truth(round, silo) is not None:
                    yield round, silo

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Seen:
    """A coalition's knowledge, and what it can't have because the transcript was thinned.

    ``summed[round]``: sets of silos that the round's sum may be over, in order of likelihood: who takes part in a round
    is taken as known to all, and only dropouts leave more than one possibility.
    """

    def __init__(self, transcript: Transcript, coalition: frozenset[str]) -> None:
        visible: list[StoredMessage] = []
        senders: dict[int, dict[str, list[str]]] = {}
        for message in transcript.messages():
            if message.stage not in ADAPTER_STAGES and is_silo(message.sender) and message.round >= 0:
                senders.setdefault(message.round, {}).setdefault(message.stage, []).append(message.sender)
            if PUBLIC in message.receivers or message.sender in coalition or coalition & set(message.receivers):
                visible.append(message)
        public = transcript.public
        self.thinned = tuple((m.round, m.stage, m.sender) for m in visible if m.thinned)
        self.summed = {r: _possible(public.participants[r], senders.get(r, {})) for r in range(public.rounds)}
        self.knowledge = Knowledge(
            parties=coalition,
            public=public,
            messages=tuple(m for m in visible if not m.thinned),
            keys={party: transcript.keys(party) for party in sorted(coalition)},
            contributions=Contributions(transcript, coalition),
            supports={r: s for r in range(transcript.committed() + 1) if (s := transcript.support(r)) is not None},
        )


def _possible(participants: tuple[str, ...], stages: Mapping[str, list[str]]) -> tuple[tuple[str, ...], ...]:
    """Those who sent in every stage; those of each stage; all who should have taken part."""
    order = list(participants) + sorted({s for sent in stages.values() for s in sent} - set(participants))
    everywhere = [s for s in order if stages and all(s in sent for sent in stages.values())]
    options = [everywhere, *([s for s in order if s in sent] for sent in stages.values()), list(participants)]
    return tuple(dict.fromkeys(tuple(option) for option in options if option))
