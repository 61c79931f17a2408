"""What a coalition gets out of its messages and keys.

A sum opens if for every silo of the federation its decryption share was seen, or its key is held (which gives the
share). An upload opens if the keys of all silos are held: no share of it was ever sent. Nothing else opens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import Form
from bench.defense.channel import Candidate, Knowledge, Message
from defenses.channels.secagg.packing import unpack
from defenses.channels.threshold_ckks import ring, scheme
from defenses.channels.threshold_ckks import session as agreement
from defenses.channels.threshold_ckks.session import SETUP, Session
from defenses.channels.threshold_ckks.silo import SECRET, secret_keys


def read_rounds(session: Session, knowledge: Knowledge) -> Iterator[Candidate]:
    """Candidates of all rounds; messages that are malformed count for nothing."""
    keys = _held(session, knowledge)
    for round in range(knowledge.public.rounds):
        here = [m for m in knowledge.messages if m.round == round and not getattr(m, "thinned", False)]
        uploads = {m.sender: m for m in here if m.stage == agreement.UPLOAD}
        shares = {m.sender: m for m in here if m.stage == agreement.SHARE}
        participants = session.participants(round)
        support = knowledge.supports.get(round)
        if set(session.silos) <= set(keys):
            for silo in participants:
                if silo in uploads and silo not in knowledge.parties:
                    with contextlib.suppress(SiloBenchError):
                        yield _Reader(session, [uploads[silo]], support).open({}, keys)
        elif set(session.silos) <= set(keys) | set(shares) and set(participants) <= set(uploads):
            with contextlib.suppress(SiloBenchError):
                yield _Reader(session, [uploads[silo] for silo in participants], support).open(shares, keys)


class _Reader:
    """Opens the sum of ``uploads`` (one or several). Raises SiloBenchError where they are malformed."""

    def __init__(self, session: Session, uploads: Sequence[Message], support: NDArray[np.int64] | None) -> None:
        self._session, self._uploads = session, uploads
        headers = {agreement.header_of(m) for m in uploads}
        if len(headers) != 1:
            raise SiloBenchError("uploads are not all of one form")
        header = headers.pop()
        self._form = Form.read(header, session.public.layout, support)
        for message in uploads:
            agreement.expect_lengths(message, session.upload_lengths(header, self._form.count))

    def open(self, shares: dict[str, Message], keys: dict[str, NDArray[np.int8]]) -> Candidate:
        """With the shares that were seen, and those that keys give for the silos that showed none."""
        p, form = self._session.parameters, self._form
        for message in shares.values():
            agreement.expect_lengths(message, self._session.share_lengths(form.count))
        found = []
        for g, count in enumerate(p.groups(form.count)):
            halves = [ring.from_bytes(m.frame(1 + 2 * g), p) for m in self._uploads]
            first = ring.reduce(np.sum(halves, axis=0), p.width)
            total = np.zeros(count, dtype=np.uint64)
            for message in self._uploads:
                total += unpack(message.frame(2 + 2 * g), count, p.sent)
            for message in shares.values():
                total += unpack(message.frame(g), count, p.sent)
            for silo in sorted(set(keys) - set(shares)):
                total += scheme.decryption_share(p, first, keys[silo], count, None)
            found.append(scheme.centred(total, p))
        values = form.spread(np.concatenate([np.empty(0, dtype=np.int64), *found]) * p.unit)
        silos = frozenset(m.sender for m in self._uploads)
        what = "an upload, opened with all keys" if len(silos) == 1 else "a sum, opened with decryption shares"
        return Candidate(self._uploads[0].round, silos, values, f"threshold CKKS: {what}")


def _held(session: Session, knowledge: Knowledge) -> dict[str, NDArray[np.int8]]:
    """The secret keys that the coalition's parties hold."""
    found = {}
    for silo in session.silos:
        entry = knowledge.keys.get(silo, {}).get(f"round-{SETUP}/{SECRET}")
        if entry is not None:
            with contextlib.suppress(SiloBenchError):
                found[silo] = secret_keys(np.asarray(entry, dtype=np.uint8).tobytes(), session)
    return found
