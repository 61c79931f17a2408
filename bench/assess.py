"""One (run, attack, adversary): build the views, play the game, score the guesses, and say what came of it."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import adversaries, games, privacy
from bench.adversaries import Assignment
from bench.attack import Attack, Candidates, Reconstruction, Target
from bench.cost import Meter
from bench.errors import SiloBenchError, UsageError
from bench.federation.adapters import decode_adapter
from bench.games import baselines, membership, reconstruction
from bench.games.noview import baseline
from bench.games.planting import Queries, queries
from bench.games.sheet import Sheet
from bench.lender import LentTools, Memo
from bench.logged import exposed_rows, opened_sums
from bench.materials import Materials
from bench.openers.base import Traits
from bench.openers.distinguish import traits
from bench.parties import PUBLIC
from bench.result import Claim, Leakage, Status
from bench.training import TrainedRun, training_tokens
from bench.update import Array
from bench.view import View, adapter_handle, build


@dataclass(frozen=True)
class Assessment:
    """What one attack found for one adversary. ``sheet``: the canonical scores behind the figures, or None.
    ``details``: what lies behind the scores, records' texts among it, for whoever runs this and nobody else; or None.
    """

    status: Status
    reads: tuple[str, ...] = ()
    leakage: tuple[Leakage, ...] = ()
    sheet: str | None = None
    note: str = ""
    details: str | None = None
    cost: dict[str, Any] = field(default_factory=dict)


class Assessor:
    """All attacks on one finished run. Views are built once per adversary, forward passes once per adapter."""

    def __init__(self, run: TrainedRun, materials: Materials, memo: Memo) -> None:
        self.run, self.materials, self.memo = run, materials, memo
        self.meter = Meter()
        self._views: tuple[str, list[tuple[Assignment, View]]] = ("", [])
        self._sums: tuple[privacy.Sum, ...] | None = None
        self._traits: Traits | None = None
        self._released: dict[str, Array] | None = None
        self._baseline: tuple[tuple[str, ...], Mapping[str, NDArray[np.float64]]] | None = None

    def assess(self, name: str, attack: Attack, adversary: str) -> Assessment:
        """Never raises for what an attack does: an attack that breaks is an error in the result."""
        play = {"membership": self._membership, "reconstruction": self._reconstruction}[attack.game]
        try:
            with self.meter.measure(f"view:{adversary}"):
                views = self._build(adversary)
            if not views:
                return Assessment("not-applicable", note="with one silo there is nobody else to attack")
            able = [(a, v) for a, v in views if _readable(v, attack)]
            if not able:
                return _nothing(views, attack)
            phase = f"attack:{name}:{adversary}"
            with self.meter.measure(phase):
                found = play(name, attack, adversary, able)
        except UsageError:
            raise
        except SiloBenchError as error:
            return Assessment("error", note=str(error))
        except Exception as error:  # an attack is somebody else's code: whatever it raises belongs in the result
            where = traceback.extract_tb(error.__traceback__)[-1]
            return Assessment("error", note=f"{type(error).__name__} at {where.name} line {where.lineno}: {error}")
        unable = len(views) - len(able)
        missed = f"{unable} of {len(views)} coalitions opened nothing" if unable else ""
        note = "; ".join(n for n in (found.note, missed) if n)
        cost = {"attack_s": round(self.meter.phases[phase].wall, 3), "attack_peak_bytes": self.meter.phases[phase].peak}
        return replace(found, note=note, cost=cost)

    def claim(self, adversary: str) -> Claim | None:
        """The worst claim over the adversary's coalitions; None without anybody to attack."""
        run = self.run
        silos = run.transcript.public.silos
        absent = set(silos) - {s for names in run.transcript.public.participants for s in names}
        claims = [
            privacy.claim(
                run.mechanisms,
                run.parts.promises,
                a.coalition,
                a.victims,
                run.nominal_sizes,
                simulated=run.spec.secret_seed is not None,
                absent=absent,
                exposure=self._exposure(adversary, number, a.coalition),
            )
            for number, a in enumerate(adversaries.assignments(adversary, silos))
        ]
        unbounded = [c for c in claims if c.epsilon is None]
        worst = unbounded or sorted(claims, key=lambda c: -(c.epsilon or 0.0))
        return worst[0] if worst else None

    def _exposure(self, adversary: str, number: int, coalition: frozenset[str]) -> privacy.Exposure:
        """What a coalition reads, as far as noise in sums must be weighed; only that needs its view."""
        if self._sums is None:
            self._sums = opened_sums(self.run.transcript)
        exposure = privacy.Exposure(coalition, self._sums)
        noted = (m for mechanisms in self.run.mechanisms.values() for m in mechanisms)
        if not exposure.depends(noted):
            return exposure
        try:
            view = self._build(adversary)[number][1]
        except Exception:  # the attacks have said so in their rows; nothing is assumed unread
            return exposure
        return replace(exposure, rows=exposed_rows(view), blind=frozenset(r for r, _, _ in view.thinned))

    def _build(self, adversary: str) -> list[tuple[Assignment, View]]:
        if self._views[0] != adversary:
            self.drop_views()
            self._views = (adversary, list(self._make_views(adversary)))
        return self._views[1]

    def drop_views(self) -> None:
        """Remove the views from the disk: they can be computed again, and those of one adversary may take gigabytes."""
        self._views = ("", [])
        shutil.rmtree(self.run.directory / "views", ignore_errors=True)

    def _make_views(self, adversary: str) -> Iterable[tuple[Assignment, View]]:
        run = self.run
        channel, aggregator = run.parts.channel, run.parts.aggregator
        if self._traits is None:
            self._traits = traits(channel, run.transcript.public)
        precision = run.spec.federation.release_precision
        for number, one in enumerate(adversaries.assignments(adversary, run.transcript.public.silos)):
            where = run.directory / "views" / f"{adversary}-{number}"
            view = build(run.transcript, channel, aggregator, adversary, one, where, precision, traits=self._traits)
            yield one, view

    def _tools(self, name: str, adversary: str, number: int) -> LentTools:
        rng = self.materials.streams.generator(f"attack/{name}/{adversary}", number)
        return LentTools(self.materials, self.memo, rng, self._released_adapters())

    def _released_adapters(self) -> dict[str, Array]:
        if self._released is None:
            size = self.materials.model.layout.size
            sent = (m for m in self.run.transcript.messages() if PUBLIC in m.receivers and not m.thinned)
            adapters = (decode_adapter(m.frames(), size) for m in sent)
            self._released = {adapter_handle(a): a for a in adapters}
        return self._released

    # -- membership ------------------------------------------------------------------------------------------------

    def _membership(
        self, name: str, attack: Attack, adversary: str, views: Sequence[tuple[Assignment, View]]
    ) -> Assessment:
        ids: list[str] = []
        scores: dict[str, list[NDArray[np.float64]]] = {}
        reads: dict[str, None] = {}
        missing: dict[str, str] = {}
        for number, (assignment, view) in enumerate(views):
            tools = self._tools(name, adversary, number)
            rng = self.materials.streams.generator("questions", number)
            asked = queries(self.run.planting, assignment.victims, rng)
            guesses = attack.infer(view, self._candidates(asked), tools)
            _check_guesses(guesses.scores, len(asked.candidates))
            if scores and set(scores) != set(guesses.scores):
                raise SiloBenchError(f"{name} gives different scores for different coalitions of {adversary}")
            ids += asked.candidates
            for key, values in guesses.scores.items():
                scores.setdefault(key, []).append(np.asarray(values, dtype=np.float64))
            reads.update(dict.fromkeys(guesses.reads))
            missing.update(guesses.missing)
        joined = {key: np.concatenate(parts) for key, parts in scores.items()}
        sheet = self._membership_sheet(ids, joined)
        scored = games.leakage(sheet)
        note = "; ".join([scored.note, *(f"no {key}: {why}" for key, why in missing.items())]).strip("; ")
        return Assessment("void" if scored.void else "ok", tuple(reads), scored.leakage, sheet.to_json(), note)

    def _candidates(self, asked: Queries) -> Candidates:
        tokens = self.materials.tokens(asked.candidates)
        return Candidates(asked.opaque, asked.silos, self.materials.texts(asked.candidates), tokens)

    def _membership_sheet(self, ids: Sequence[str], scores: Mapping[str, NDArray[np.float64]]) -> Sheet:
        planting = self.run.planting
        members = {i for held in planting.members.values() for i in held}
        holder = {i: name for name, held in self.materials.pool.silos.items() for i in held}
        member = np.array([i in members for i in ids])
        clusters = np.array([self.materials.pool.clusters[i] for i in ids])
        return membership.make_sheet(
            ids, [holder[i] for i in ids], clusters, member, scores, self._no_view(tuple(ids), member, clusters)
        )

    def _no_view(
        self, ids: tuple[str, ...], member: NDArray[np.bool_], clusters: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float64]]:
        """The baseline's scores, which no view changes: computed once for the same candidates."""
        order = tuple(sorted(ids))
        if self._baseline is None or self._baseline[0] != order:
            at = {i: k for k, i in enumerate(ids)}
            rows = [at[i] for i in order]
            tokens = self.materials.tokens(order)
            stats = LentTools(self.materials, self.memo, np.random.default_rng(0), {}).token_stats(None, tokens)
            texts = self.materials.texts(order)
            self._baseline = (order, baseline(tokens, stats, texts, member[rows], clusters[rows]))
        position = {i: k for k, i in enumerate(order)}
        rows = [position[i] for i in ids]
        return {key: values[rows] for key, values in self._baseline[1].items()}

    # -- reconstruction --------------------------------------------------------------------------------------------

    def _reconstruction(
        self, name: str, attack: Attack, adversary: str, views: Sequence[tuple[Assignment, View]]
    ) -> Assessment:
        targets: list[Target] = []
        answers: list[Reconstruction] = []
        for number, (assignment, view) in enumerate(views):
            asked = [t for r in attack.rounds for v in assignment.victims if (t := self._target(r, v)) is not None]
            answers += attack.reconstruct(view, asked, self._tools(name, adversary, number))
            targets += asked
        if not targets:
            return Assessment("not-applicable", note="no silo trained in the rounds that the attack is asked about")
        population = self._tools(name, adversary, 0).population
        guessed = baselines.no_update(targets, population, self.materials.model.vocab_size)
        truth = [self._trained(t) for t in targets]
        graded = reconstruction.grade(targets, truth, answers, guessed, self.materials.model.decode)
        scored = games.leakage(graded.sheet)
        reads = tuple(dict.fromkeys(a.reads for a in answers if a.reads))
        status: Status = "void" if scored.void else "ok"
        return Assessment(status, reads, scored.leakage, graded.sheet.to_json(), scored.note, graded.details)

    def _target(self, round: int, victim: str) -> Target | None:
        training = self.run.transcript.training(round).get(victim) if round <= self.run.transcript.committed() else None
        if training is None or not any(training["batches"]):
            return None
        distinct = len({row for batch in training["batches"] for row in batch})
        return Target(round, victim, distinct, int(training["steps"]))

    def _trained(self, target: Target) -> list[tuple[int, ...]]:
        """The token ids of the records that the target's silo trained on in its round."""
        run = self.run
        tokens = training_tokens(target.silo, run.spec, self.materials, run.parts, run.planting)
        batches = run.transcript.training(target.round)[target.silo]["batches"]
        rows = sorted({int(row) for batch in batches for row in batch})
        return [tuple(int(i) for i in tokens.ids[row, : tokens.lengths[row]]) for row in rows]


def _readable(view: View, attack: Attack) -> bool:
    return any(reading.kind in attack.needs for reading in view.readings)


def _nothing(views: Sequence[tuple[Assignment, View]], attack: Attack) -> Assessment:
    """Nothing that the attack needs was opened: because it was dropped from the disk, or because it did not open."""
    thinned = sorted({f"round {r} {stage} of {sender}" for _, v in views for r, stage, sender in v.thinned})
    if thinned:
        return Assessment("thinned", note=f"dropped to hold the disk budget: {', '.join(thinned[:5])}")
    kinds = sorted({reading.kind for _, view in views for reading in view.readings})
    opened = f" (what opened: {', '.join(kinds)})" if kinds else ""
    return Assessment("nothing-opened", note=f"no {' or '.join(sorted(attack.needs))} opened{opened}")


def _check_guesses(scores: Mapping[str, NDArray[np.float64]], n: int) -> None:
    if not scores:
        raise SiloBenchError("the attack returned no score")
    for key, values in scores.items():
        if np.shape(values) != (n,):
            raise SiloBenchError(f"score '{key}' has shape {np.shape(values)}, expected one number for each of {n}")
