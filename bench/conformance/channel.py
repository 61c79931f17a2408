"""Checks of a channel: right sums, fresh protection, hostile messages, silos that drop out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np

from bench.conformance.checks import Check, Failed, expect
from bench.conformance.fixtures import Rehearsal, constant_delta, federate, knowledge
from bench.conformance.hostile import REFUSED, Alter, HostileCarrier, flip
from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.parties import SERVER, silo
from bench.defense.channel import Candidate, Channel, Knowledge
from bench.federation.carrier import Carrier
from bench.spec.run import Dropout

#: rounding of float64 sums, relative to the largest value
ROUNDING = 1e-12
FLIPS = (0.0, 0.01, 0.1, 0.5, 0.99)


def checks(channel: Channel) -> Iterator[Check]:
    subject = _Subject(channel)
    if not channel.stages():
        yield Check("channel: silence", subject.silence)
        return
    yield Check("channel: sum", subject.sums)
    yield Check("channel: opener", subject.opener)
    yield Check("channel: reading", subject.reading)
    yield Check("channel: sealing twice", subject.sealing)
    yield Check("channel: one and two silos", subject.few)
    for stage in _stages(channel):
        yield Check(f"channel: hostile '{stage}'", partial(subject.hostile, stage))
    for stage in ("train", *(s.name for s in channel.stages() if not s.setup and s.actors == "silos")):
        yield Check(f"channel: drop-out at '{stage}'", partial(subject.dropout, stage))


def _stages(channel: Channel) -> tuple[str, ...]:
    """Stages whose messages somebody receives: all but the last."""
    return tuple(stage.name for stage in channel.stages())[:-1] or tuple(s.name for s in channel.stages())


class _Subject:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.few_silos, self.silos = max(2, channel.fewest), max(3, channel.fewest)

    @cached_property
    def rehearsal(self) -> Rehearsal:
        return federate(self.channel, silos=self.silos)

    def silence(self) -> str:
        """A channel without stages is one of silos that do not talk: nothing is sent, summed or read."""
        public = self.rehearsal.transcript.public
        expect(not self.rehearsal.sums, "it has no stage, and yet a sum was opened.")
        found = _agreeing(self.channel, self.rehearsal, knowledge(self.rehearsal, (SERVER, *public.silos[:-1])))
        expect(not found, "it has no stage, and yet something of a silo was read.")
        return "nothing is sent, summed or read"

    def sums(self) -> str:
        return f"the largest error of a sum is {_check_sums(self.rehearsal, self.channel.error):.1e}"

    def opener(self) -> str:
        found = {(who, round) for who, round, _ in self.rehearsal.sums}
        who = [SERVER] if self.channel.opener == "server" else list(self.rehearsal.transcript.public.silos)
        wanted = {(name, round) for name in who for round in range(2)}
        expect(found == wanted, f"sums were opened by {sorted(found)}, expected {sorted(wanted)} (party, round).")
        return f"every sum is opened by the {self.channel.opener}"

    def reading(self) -> str:
        """``read`` of the server and all silos but one gives something of the last; without messages, nothing."""
        public = self.rehearsal.transcript.public
        agree = _agreeing(self.channel, self.rehearsal, knowledge(self.rehearsal, (SERVER, *public.silos[:-1])))
        rounds = {c.round for c in agree}
        expect(
            rounds == {0, 1},
            f"the server and all silos but one read something true of rounds {sorted(rounds)} only.",
        )
        outsiders = _agreeing(self.channel, self.rehearsal, knowledge(self.rehearsal, ("nobody",)))
        expect(not outsiders, "'read' gives a reading to a coalition that holds no message.")
        return f"the server and all silos but one read {len(agree)} uploads and sums"

    def sealing(self) -> str:
        """Sealing the same update again, in another run or another round, must give other bytes, unless in clear."""
        first, second = (federate(self.channel, constant_delta, silos=self.silos) for _ in range(2))
        sender = silo(0)
        runs = _common(first.frames(0, sender), second.frames(0, sender))
        rounds = _common(first.frames(0, sender), first.frames(1, sender))
        parties = _common(first.frames(0, sender), first.frames(0, silo(1)))
        clear = _agreeing(self.channel, first, knowledge(first, (SERVER,), keys=False))
        shown = [candidate for candidate in clear if len(candidate.silos) == 1]
        if shown:
            what = "uploads" if any(candidate.support is None for candidate in shown) else "parts of uploads"
            return f"{what} travel in clear, and no key is needed to read them"
        for what, count in (("two runs", runs), ("two rounds", rounds), ("two silos", parties)):
            expect(
                not count, f"{count} sealed frames of the same update are equal in {what}: nothing fresh is in them."
            )
        return "the same update is sealed to different bytes in every run, round and silo"

    def few(self) -> str:
        """Two silos (or the fewest it states) work. One alone works, or is refused: there is nobody to hide among."""
        _check_sums(federate(self.channel, silos=self.few_silos, rounds=1), self.channel.error)
        try:
            alone = federate(self.channel, silos=1, rounds=1)
        except SiloBenchError as error:
            return f"{self.few_silos} silos work; one alone is refused: {error}"
        _check_sums(alone, self.channel.error)
        return f"{self.few_silos} silos work, and one alone"

    def hostile(self, stage: str) -> str:
        _check_sums(self.rehearsal, self.channel.error)  # a channel that refuses everything refuses nothing
        for what, alter in REFUSED.items():
            refused = self._under(stage, alter, what)
            expect(refused, f"a '{stage}' message that was {what} was accepted.")
        survived = sum(not self._under(stage, flip(position), "changed in one bit") for position in FLIPS)
        return f"{len(REFUSED)} broken messages are refused, {len(FLIPS) - survived} of {len(FLIPS)} flipped bits too"

    def _under(self, stage: str, alter: Alter, what: str) -> bool:
        """True where the altered message was refused. Raises Failed on any other exception, or a sum of no numbers."""
        seen: list[HostileCarrier] = []

        def carrier(inner: Carrier) -> Carrier:
            seen.append(HostileCarrier(inner, stage, alter))
            return seen[0]

        try:
            rehearsal = federate(self.channel, silos=self.few_silos, rounds=1, carrier=carrier)
        except SiloBenchError:
            return True
        except Exception as error:
            raise Failed(
                f"a '{stage}' message that was {what} raised {type(error).__name__} ({error}), not SiloBenchError."
            ) from error
        expect(seen[0].altered, f"no message of stage '{stage}' was delivered.")
        for _, _, opened in rehearsal.sums:
            expect(
                np.isfinite(opened.values).all(), f"a '{stage}' message that was {what} gave a sum that is not finite."
            )
        return False

    def dropout(self, stage: str) -> str:
        """A silo that leaves in round 0 and is back in round 1: right sums of whoever is in them, or a refusal."""
        _check_sums(self.rehearsal, self.channel.error)
        try:
            rehearsal = federate(
                self.channel, silos=self.silos, rounds=3, dropouts=[Dropout(round=0, silo=0, stage=stage)]
            )
        except SiloBenchError as error:
            return f"refused: {error}"
        _check_sums(rehearsal, self.channel.error)
        last = {round for _, round, _ in rehearsal.sums}
        expect(2 in last, "after the silo's return no sum was opened any more.")
        sizes = {len(opened.silos) for _, round, opened in rehearsal.sums if round == 0}
        summed = " or ".join(map(str, sorted(sizes))) or "nothing"
        return f"round 0 sums {summed} of {self.silos} silos, later rounds all"


def _check_sums(rehearsal: Rehearsal, error: float) -> float:
    """The largest error of all opened sums. Raises Failed where one is too large, or where nothing was opened."""
    expect(rehearsal.sums, "no sum was opened.")
    worst = 0.0
    for who, round, opened in rehearsal.sums:
        expected = rehearsal.expected(round, opened.silos)
        expect(
            opened.values.shape == expected.shape,
            f"{who} opened {opened.values.shape} values in round {round}, expected {expected.shape}.",
        )
        difference = float(np.abs(opened.values - expected).max())
        allowed = error + ROUNDING * float(np.abs(expected).max())
        expect(
            difference <= allowed,
            f"the sum that {who} opened in round {round} is off by {difference:.3g}; the channel states {error:.3g}.",
        )
        worst = max(worst, difference)
    return worst


def _common(one: list[bytes], other: list[bytes]) -> int:
    """Frames longer than a header that occur in both."""
    return len({frame for frame in one if len(frame) > 64} & {frame for frame in other if len(frame) > 64})


def _far(candidate: Candidate, rehearsal: Rehearsal) -> float:
    """The largest error of the coordinates that it claims."""
    where = slice(None) if candidate.support is None else candidate.support
    return float(np.abs(candidate.values - rehearsal.expected(candidate.round, candidate.silos))[where].max(initial=0))


def _agreeing(channel: Channel, rehearsal: Rehearsal, known: Knowledge) -> list[Candidate]:
    """What ``read`` gives under ``known`` that agrees with what was sent."""
    tolerance = 10 * channel.error + 1e-6
    try:
        found = list(channel.read(known))
    except CannotOpen:
        return []
    size = (rehearsal.transcript.public.layout.size,)
    return [c for c in found if c.values.shape == size and _far(c, rehearsal) <= tolerance]
