"""Builds a view by trying: the channel's own reading, the harness's openers, and what follows from both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.adversaries import Assignment
from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.frames import decode_adapter
from bench.core.npy import save
from bench.core.parties import SERVER
from bench.core.streams import State
from bench.core.update import Array, Terms
from bench.defense.channel import Candidate, Message
from bench.defense.compose import Parts
from bench.defense.flow import name_of
from bench.transcript.transcript import Transcript
from bench.view.compact import worlds
from bench.view.handed import records_in_clear
from bench.view.hints import LiveHints
from bench.view.knowledge import Seen
from bench.view.ledger import Ledger, Row
from bench.view.openers import OPENERS
from bench.view.openers.base import MIN_VALUES, Guess, Opener, Traits, terms_of
from bench.view.openers.distinguish import traits as find_traits
from bench.view.truth import Truth
from bench.view.view import Kind, View, adapter_handle
from bench.view.write import ViewWriter, add_partial

#: Largest relative rounding error of one value: half a unit in the last place of a normal number.
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
_EXACT = ROUNDING["float32"]


@dataclass(frozen=True)
class _Adapter:
    """A known global adapter. ``rounding``: relative, of the precision at which it travelled."""

    path: Path
    how: str
    rounding: float
    unchecked: bool

    def load(self) -> Array:
        return np.asarray(np.load(self.path, allow_pickle=False, mmap_mode="r"))


class _Builder:
    """The steps of one build; values live in ``work`` until they are written."""

    def __init__(self, transcript: Transcript, parts: Parts, coalition: frozenset[str], work: Path) -> None:
        self.public = transcript.public
        self.parts, self.channel, self.aggregator = parts, parts.channel, parts.aggregator
        self.slots = parts.plan(self.public).slots
        self.seen = Seen(transcript, coalition)
        self.truth = Truth(transcript, self.aggregator)
        self.ledger = Ledger(work, self.truth, coalition, self._own)
        self.adapters: dict[int, _Adapter] = {}
        #: by (round, silo): the adapter that a deviating server sent this silo in place of the global one
        self.sent: dict[tuple[int, str], _Adapter] = {}
        self.released: dict[int, str] = {}
        self.metadata: list[Guess] = []
        self._work = work
        self._implied: set[int] = set()
        self._memories: dict[int, State] = {}
        self._lost: dict[int, str] = {}
        self._untried: tuple[str, ...] = ()

    def _own(self, round: int, silo: str) -> NDArray[np.floating] | None:
        return self.seen.knowledge.contributions.get((round, silo))

    def run(self, precision: str, traits: Traits | None, openers: Sequence[Opener]) -> None:
        self._decode("broadcast", ROUNDING["float32"])
        self._try_channel()
        self._follow()
        hints = LiveHints(self.seen, self.ledger, self.truth, lambda: traits or find_traits(self.channel, self.public))
        for world in worlds(self.seen.knowledge, hints):
            own = OPENERS if world.size >= MIN_VALUES else ()
            for opener in (*own, *openers):
                for candidate in opener(world.knowledge, world.hints):
                    self._add(world.whole(candidate))
        self._untried = tuple(hints.left_out)
        self._follow()
        self._decode("release", ROUNDING[precision])
        self._follow()

    def _decode(self, stage: str, rounding: float) -> None:
        """Global adapters that the federation itself sent in clear to the coalition or to all."""
        for message in self.seen.knowledge.messages:
            if message.stage != stage:
                continue
            after = message.round if stage == "release" else message.round - 1
            values = decode_adapter(message.frames(), self.public.state.size, self.public.adapter.size)
            if stage == "release":
                self.released[after] = adapter_handle(values)
            elif not self.truth.judge_adapter(after, values).agrees:
                self._note_sent(message, values)
                continue
            if after not in self.adapters:
                # whatever was sent, an adapter is held as float32 here, which is also what was trained from
                self._learn(after, values, f"{stage} of round {message.round}", max(rounding, _EXACT), False)

        initial = self.truth.adapter(-1)
        drew = stage == "broadcast" and SERVER in self.seen.knowledge.parties
        if drew and initial is not None and -1 not in self.adapters:  # whatever it sent
            self._learn(-1, initial, "the first adapter, of its own drawing", _EXACT, False)

    def _note_sent(self, message: Message, values: Array) -> None:
        path = self._work / f"sent-{message.round}-{len(self.sent)}.npy"
        save(path, values, private=True)
        how = f"broadcast of round {message.round}, no global adapter"
        self.sent |= {(message.round, silo): _Adapter(path, how, _EXACT, False) for silo in message.receivers}

    def _start(self, terms: Terms) -> _Adapter | None:
        """The adapter that all silos of ``terms`` started from, where the coalition knows it and it is the same."""
        known = self.adapters.get(max(round for round, _, _ in terms) - 1)
        found = [self.sent.get((round, silo), known) for round, silo, _ in terms]
        return found[0] if all(one is found[0] or one == found[0] for one in found) else None

    def _learn(self, round: int, values: Array, how: str, rounding: float, unchecked: bool) -> None:
        path = self._work / f"adapter-{round + 1}.npy"
        save(path, values, private=True)
        self.adapters[round] = _Adapter(path, how, rounding, unchecked)

    def _try_channel(self) -> None:
        """The channel's own reading. CannotOpen opens nothing; any other failure is an error of the row."""
        name = type(self.channel).__name__
        loss = self.channel.error * self.public.layout.size**0.5
        candidates = self._candidates(name)
        for candidate in candidates:
            known = set(self.public.silos)
            if candidate.values.shape != (self.public.layout.size,) or not candidate.silos or candidate.silos - known:
                raise SiloBenchError(
                    f"channel {name} read values of shape {candidate.values.shape} for {sorted(candidate.silos)}; "
                    f"expected ({self.public.layout.size},) for some of the federation's silos"
                )
            guess = Guess(candidate.round, candidate.silos, candidate.values, candidate.how, candidate.support)
            self.ledger.add(guess, loss, improvable=True)

    def _candidates(self, name: str) -> Iterator[Candidate]:
        try:
            yield from self.channel.read(self.seen.knowledge)
        except CannotOpen:
            return
        except Exception as error:
            raise SiloBenchError(f"channel {name} failed while reading: {type(error).__name__}: {error}") from error

    def _add(self, candidate: Candidate) -> None:
        """Keep what an opener found, if it is true and about others."""
        guess = candidate if isinstance(candidate, Guess) else _as_guess(candidate)
        if guess.form != "metadata":
            self.ledger.add(guess)
            return
        known = {(m.round, m.silos, m.how) for m in self.metadata}
        if not guess.silos & self.seen.knowledge.parties and (guess.round, guess.silos, guess.how) not in known:
            self.metadata.append(guess)

    def _follow(self) -> None:
        """Sums from adapters, single summands from sums, adapters from sums, until nothing new follows."""
        grew = True
        while grew:
            grew = False
            for round in range(self.public.rounds):
                grew |= self._imply(round)
            grew |= self.ledger.settle()
            grew |= self._split()
            for round in range(self.public.rounds):
                grew |= self._derive(round)

    def _imply(self, round: int) -> bool:
        """The sum that turned one known adapter into the next."""
        before, after = self.adapters.get(round - 1), self.adapters.get(round)
        if before is None or after is None or round in self._implied or self.parts.topology == "central":
            return False
        start, end = before.load(), after.load()
        memory = self._memory(round - 1)
        unmoved = None if memory is None else self.parts.unmoved(start, end, memory)
        if memory is None or not isinstance(unmoved, np.ndarray):
            self._lost[round] = name_of(unmoved or next(one for one in self.parts.steps if one.has_memory))
            return False
        self._memories[round] = memory
        self._implied.add(round)
        for silos in self.seen.summed[round]:
            if self.ledger.has(terms_of(round, silos)):
                return False
            counted = self.parts.counted(self.public, round, silos)
            total = self.aggregator.implied_total(start, unmoved, counted, self.public)
            if total is None:
                return False
            step = float(np.linalg.norm(end.astype(np.float64) - start))
            blur = before.rounding * float(np.linalg.norm(start)) + after.rounding * float(np.linalg.norm(end))
            loss = blur * float(np.linalg.norm(total)) / step if step else 0.0
            how = f"global adapters before and after ({before.how}; {after.how})"
            if self.ledger.add(Guess(round, frozenset(silos), total, how), loss):
                return True
        return False

    def _split(self) -> bool:
        """Single summands from sums in which every silo has coordinates of its own."""
        grew = False
        for row in [row for row in self.ledger.rows.values() if len(row.terms) > 1 and not row.xor]:
            for round, silo, coefficient in row.terms:
                slot = self.slots.get(silo)
                if slot is None or self.ledger.has(((round, silo, 1),)):
                    continue
                values = np.zeros(self.public.layout.size)
                values[slot] = row.load()[slot] / coefficient
                guess = Guess(round, frozenset({silo}), values, f"{silo}'s own part of a sum ({row.how})")
                grew |= self.ledger.add(guess, row.error)
        return grew

    def _derive(self, round: int) -> bool:
        """The next adapter from a known one and a known sum, as whoever opens sums computes it."""
        before = self.adapters.get(round - 1)
        if before is None or round in self.adapters:
            return False
        for silos in self.seen.summed[round]:
            found = self.ledger.total(round, silos)
            if found is None:
                continue
            total, unchecked = found
            memory = self._memory(round - 1)
            if memory is None:
                return False
            counted = self.parts.counted(self.public, round, silos)
            after = self.parts.moved(total, counted, before.load(), self.public, memory).astype(np.float32)
            verdict = self.truth.judge_adapter(round, after)
            if verdict.agrees:
                self._memories[round] = memory
                held = self._held(round, after)
                self._learn(round, held, "applied the sum it read", _EXACT, unchecked or verdict.unchecked)
                return True
        return False

    def _held(self, round: int, derived: Array) -> Array:
        """What a silo of the coalition holds for the adapter that follows from a sum it reads: the one that it went on
        training from. ``derived`` is put together of readings, each with a channel's noise of its own, and so would be
        another adapter in the last bits for every coalition."""
        own = self.seen.knowledge.parties - {SERVER}
        held = self.truth.adapter(round) if own else None
        return derived if held is None else held

    def _memory(self, round: int) -> State | None:
        """A copy of the server steps' memory after ``round``, where every move before is known to the coalition."""
        if round < 0 or not self.parts.has_memory:
            return {}
        return dict(self._memories[round]) if round in self._memories else None

    def query_only(self) -> None:
        """A user has the released model's interface and nothing else."""
        self._decode("release", _EXACT)
        self.adapters.clear()

    def write(self, writer: ViewWriter) -> View:
        numbers: dict[Path, int] = {}
        for round, adapter in sorted(self.adapters.items()):
            values = adapter.load()
            if round < 0:
                numbers[adapter.path] = writer.set_initial(values)
                continue
            handle = adapter_handle(values)
            numbers[adapter.path] = writer.add(
                "adapter", round, frozenset(), adapter.how, adapter=values, handle=handle, unchecked=adapter.unchecked
            )
        numbers |= {path: writer.keep(np.load(path)) for path in sorted({one.path for one in self.sent.values()})}
        for row in sorted(self.ledger.rows.values(), key=lambda row: (len(row.terms), row.xor, row.terms)):
            self._write_row(writer, row, numbers)
        for row in sorted(self.ledger.partial.values(), key=lambda row: (len(row.terms), row.terms)):
            if not self.ledger.has(row.terms):
                start = self._start(row.terms)
                add_partial(writer, row, None if start is None else numbers.get(start.path))
        for round, silo, ids in records_in_clear(self.seen.knowledge.messages, self.seen.knowledge.parties):
            writer.add("records", round, frozenset({silo}), "records that were sent in clear", values=ids)
        for guess in sorted(self.metadata, key=lambda g: (g.round, sorted(g.silos), g.how)):
            shown = guess.values.astype(np.float64) if len(guess.values) else None
            writer.add("metadata", guess.round, guess.silos, guess.how, values=shown)
        for round, handle in sorted(self.released.items()):
            writer.add("query", round, frozenset(), "the released model's interface", handle=handle)
        shutil.rmtree(self._work)
        return writer.commit(self.seen.thinned, self._lost_sums(), self._untried)

    def _lost_sums(self) -> tuple[tuple[int, str], ...]:
        """(round, server step) of sums that nothing gave, and that the adapters around them did not, for the step."""
        return tuple(
            (round, step)
            for round, step in sorted(self._lost.items())
            if all(self.ledger.rows_of(round, silos) is None for silos in self.seen.summed[round])
        )

    def _write_row(self, writer: ViewWriter, row: Row, numbers: dict[Path, int]) -> None:
        round = max(term[0] for term in row.terms)
        silos = frozenset(silo for _, silo, _ in row.terms)
        values = row.load() if row.xor else row.load().astype(np.float32)
        single = len(row.terms) == 1
        plain = all(coefficient == 1 for _, _, coefficient in row.terms)
        kind: Kind = "xor" if row.xor else "difference" if not plain else "upload" if single else "sum"
        before = self._start(row.terms)
        adapter = None
        if single and before is not None:
            weight = self.public.weights[row.terms[0][1]]
            adapter = self.aggregator.implied_adapter(row.load(), weight, before.load(), self.public)
        writer.add(
            kind,
            round,
            silos,
            row.how,
            terms=row.terms,
            values=values,
            adapter=adapter,
            before=None if before is None else numbers.get(before.path),
            handle="" if adapter is None else adapter_handle(adapter),
            unchecked=row.unchecked,
        )


def _as_guess(candidate: Candidate) -> Guess:
    return Guess(candidate.round, candidate.silos, candidate.values, candidate.how, candidate.support, factor=True)


def build(
    transcript: Transcript,
    parts: Parts,
    adversary: str,
    assignment: Assignment,
    directory: Path,
    release_precision: str = "float32",
    *,
    traits: Traits | None = None,
    openers: Sequence[Opener] = (),
) -> View:
    """Compute the view of ``assignment.coalition`` and write it to ``directory`` (replaced if it exists).

    ``traits``: what ``bench.view.openers.distinguish.traits`` found about the channel, if it was run already (it serves
    all views of a run). ``openers``: an attack's own, tried after the harness's. Raises SiloBenchError where the
    channel's ``read`` fails in any way but CannotOpen, or a message is damaged.
    """
    writer = ViewWriter(directory, adversary, assignment, transcript.public, transcript.manifest.get("spec", {}))
    try:
        builder = _Builder(transcript, parts, assignment.coalition, writer.partial / "work")
        if adversary == "user":
            builder.query_only()
        else:
            builder.run(release_precision, traits, openers)
        return builder.write(writer)
    except BaseException:
        writer.abandon()
        raise
