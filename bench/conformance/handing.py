"""Checks of a channel that hands records to a server that trains on them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.conformance.checks import Check, Failed, expect
from bench.conformance.fixtures import federate, random_delta, some_tokens
from bench.conformance.hostile import REFUSED, Alter, HostileCarrier
from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER, silo
from bench.core.records import joined
from bench.core.tokens import Tokens
from bench.core.update import Array
from bench.defense.channel import Channel
from bench.defense.parts import TrainJob
from bench.defense.public import Public
from bench.federation.carrier import Carrier

SILOS = 3


def checks(channel: Channel) -> Iterator[Check]:
    yield Check("channel: hands over records", partial(_hands_over, channel))
    for stage in channel.stages():
        if stage.setup:
            yield Check(f"channel: hostile '{stage.name}'", partial(_hostile, channel, stage.name))


def _hands_over(channel: Channel) -> str:
    """In every round the server trains on all records of all silos, and its adapter is what it trained."""
    seen: list[Tokens] = []

    def delta(job: TrainJob) -> Array:
        seen.append(job.tokens)
        return random_delta(job)

    rehearsal = federate(channel, delta, silos=SILOS, topology="central")
    expected = joined([some_tokens(silo(i)) for i in range(SILOS)])
    expect(len(seen) == 2, f"the server trained in {len(seen)} of 2 rounds.")
    expect(all(tokens.digest == expected.digest for tokens in seen), "it trained on other records than the silos hold.")
    after = [rehearsal.transcript.truth(round, "adapter") for round in range(2)]
    moved = after[0] is not None and after[1] is not None and not np.array_equal(after[0], after[1])
    expect(moved, "the global adapter does not change with training.")
    public: Public = rehearsal.transcript.public
    sent = {m.sender for m in rehearsal.transcript.messages() if m.sender != SERVER}
    expect(sent == set(public.silos), f"records were sent by {sorted(sent)}, expected {sorted(public.silos)}.")
    return f"the server trains on all {len(expected)} records of {SILOS} silos in every round"


def _hostile(channel: Channel, stage: str) -> str:
    for what, alter in REFUSED.items():
        expect(_refused(channel, stage, alter, what), f"a '{stage}' message that was {what} was accepted.")
    return f"{len(REFUSED)} broken messages are refused"


def _refused(channel: Channel, stage: str, alter: Alter, what: str) -> bool:
    seen: list[HostileCarrier] = []

    def carrier(inner: Carrier) -> Carrier:
        seen.append(HostileCarrier(inner, stage, alter))
        return seen[0]

    try:
        federate(channel, silos=2, rounds=1, carrier=carrier, topology="central")
    except SiloBenchError:
        return True
    except Exception as error:
        raise Failed(
            f"a '{stage}' message that was {what} raised {type(error).__name__} ({error}), not SiloBenchError."
        ) from error
    expect(seen[0].altered, f"no message of stage '{stage}' was delivered.")
    return False
