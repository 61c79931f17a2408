"""What a coalition gets out of its messages and keys.

A sum opens if for every silo of the federation its decryption share was seen, or its key is held (which gives the
share). An upload opens if the keys of all silos are held: no share of it was ever sent. Nothing else opens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import Form
from bench.defense.channel import Candidate, Knowledge, Message
from bench.defense.sum_channel import as_bytes
from defenses.channels.secagg import wire
from defenses.channels.secagg.packing import unpack
from defenses.channels.threshold_ckks import ring, scheme
from defenses.channels.threshold_ckks import session as agreement
from defenses.channels.threshold_ckks.session import SETUP, Session
from defenses.channels.threshold_ckks.silo import SECRET, secret_keys

#: by silo
Keys = Mapping[str, NDArray[np.int8]]


def read_rounds(session: Session, knowledge: Knowledge) -> Iterator[Candidate]:
    """Candidates of all rounds; messages that are malformed count for nothing."""
    keys = _held(session, knowledge)
    for round in range(knowledge.public.rounds):
        here = [m for m in knowledge.messages if m.round == round and not getattr(m, "thinned", False)]
        uploads = {m.sender: m for m in here if m.stage == agreement.UPLOAD}
        shares = {m.sender: m for m in here if m.stage == agreement.SHARE}
        participants = session.participants(round)
        if set(session.silos) <= set(keys):
            for silo in participants:
                if silo in uploads and silo not in knowledge.parties:
                    with contextlib.suppress(SiloBenchError):
                        yield _opened(session, knowledge, [uploads[silo]], {}, keys)
        elif set(session.silos) <= set(keys) | set(shares) and set(participants) <= set(uploads):
            with contextlib.suppress(SiloBenchError):
                yield _opened(session, knowledge, [uploads[silo] for silo in participants], shares, keys)


def _opened(
    session: Session, knowledge: Knowledge, uploads: Sequence[Message], shares: Mapping[str, Message], keys: Keys
) -> Candidate:
    """The sum of ``uploads`` (one or several), by the shares that were seen, and those that keys give for the silos
    that showed none. Raises SiloBenchError where messages are malformed."""
    round, p = uploads[0].round, session.parameters
    headers = {agreement.header_of(m) for m in uploads}
    if len(headers) != 1:
        raise SiloBenchError("uploads are not all of one form")
    header = headers.pop()
    form = Form.read(header, session.public.layout, knowledge.supports.get(round))
    wire.expect_lengths(uploads, session.upload_lengths(header, form.count))
    wire.expect_lengths(shares.values(), session.share_lengths(form.count))
    found = [np.empty(0, dtype=np.int64)]
    for g, count in enumerate(p.groups(form.count)):
        halves = [ring.from_bytes(m.frame(1 + 2 * g), p) for m in uploads]
        first = ring.reduce(np.sum(halves, axis=0), p.width)
        frames = chain((m.frame(2 + 2 * g) for m in uploads), (m.frame(g) for m in shares.values()))
        seen = (unpack(frame, count, p.sent) for frame in frames)
        made = (scheme.decryption_share(p, first, keys[s], count, None) for s in sorted(set(keys) - set(shares)))
        found.append(scheme.centred(sum(chain(seen, made), np.zeros(count, dtype=np.uint64)), p))
    silos = frozenset(m.sender for m in uploads)
    what = "an upload, opened with all keys" if len(silos) == 1 else "a sum, opened with decryption shares"
    return Candidate(round, silos, form.spread(np.concatenate(found) * p.unit), f"threshold CKKS: {what}")


def _held(session: Session, knowledge: Knowledge) -> Keys:
    """The secret keys that the coalition's parties hold."""
    found = {}
    for silo in session.silos:
        with contextlib.suppress(SiloBenchError, KeyError):
            found[silo] = secret_keys(as_bytes(knowledge.keys[silo])[f"round-{SETUP}/{SECRET}"], session)
    return found
