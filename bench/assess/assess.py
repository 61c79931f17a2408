"""One (run, attack, adversary): build the views, play the game, score the guesses, and say what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import privacy
from bench.assess.jobs import unfit
from bench.assess.plays.table import Answers, Assessment, Seat, player
from bench.assess.tools import Memo
from bench.attack.attack import Attack
from bench.core import adversaries
from bench.core.adversaries import Assignment
from bench.core.errors import SiloBenchError, UsageError, where_it_broke
from bench.core.frames import decode_adapter
from bench.core.meter import Meter
from bench.core.parties import PUBLIC
from bench.core.update import Array
from bench.corpus.planting import Planting
from bench.spec.result import Claim
from bench.training.training import ShadowRun, TrainedRun
from bench.transcript.notes import opened_sums
from bench.transcript.transcript import Transcript
from bench.view.build import build
from bench.view.exposed import exposed_rows
from bench.view.openers.base import Opener, Traits
from bench.view.openers.distinguish import traits
from bench.view.view import View, adapter_handle

__all__ = ["Assessment", "Assessor"]

Views = list[tuple[Assignment, View]]


class Assessor:
    """All attacks on one finished run. Views are built once per adversary, forward passes once per adapter.

    ``shadows``: shadow federations of the run, at least as many as its attacks ask for.
    """

    def __init__(self, run: TrainedRun, memo: Memo, shadows: Sequence[ShadowRun] = ()) -> None:
        self.run, self.materials, self.memo, self.shadows = run, run.case.materials, memo, tuple(shadows)
        self.meter = Meter()
        self._views: dict[tuple[str, str], Views] = {}
        self._shadow_views: dict[tuple[str, int, str], View] = {}
        self._sums: tuple[privacy.Sum, ...] | None = None
        self._traits: Traits | None = None
        self._together: set[str] = set()
        self.answers: Answers = {}
        self._released: dict[str, Array] = {}
        self._known_releases: set[Path] = set()
        self._in_use: Sequence[ShadowRun] = ()

    def assess(self, name: str, attack: Attack, adversary: str) -> Assessment:
        """Never raises for what an attack does: an attack that breaks is an error in the result."""
        if (why := unfit(attack, adversary, self.run.spec)) is not None:
            return Assessment("not-applicable", note=why)
        self._ask_parts(name, attack, adversary)
        try:
            with self.meter.measure(f"view:{adversary}"):
                views = self._after(attack, self._build(adversary, name, attack.openers))
            if not views:
                return Assessment("not-applicable", note="with one silo there is nobody else to attack")
            able = [(n, a, v) for n, (a, v) in enumerate(views) if _readable(v, attack)]
            if not able:
                return _nothing([view for _, view in views], attack)
            with self.meter.measure(f"shadows:{adversary}"):
                seats = [Seat(n, a, v, self._seen_of_shadows(name, attack, adversary, n, a)) for n, a, v in able]
            phase = f"attack:{name}:{adversary}"
            found: Assessment
            with self.meter.measure(phase):
                found = player(attack.game)(self, name, attack, adversary, seats)
        except UsageError:
            raise
        except SiloBenchError as error:
            return Assessment("error", note=str(error))
        except Exception as error:  # an attack is somebody else's code: whatever it raises belongs in the result
            return Assessment("error", note=where_it_broke(error))
        unable = len(views) - len(able)
        missed = f"{unable} of {len(views)} coalitions opened nothing" if unable else ""
        note = "; ".join(n for n in (found.note, missed, _lost([view for _, _, view in able], attack)) if n)
        cost = {"attack_s": round(self.meter.phases[phase].wall, 3), "attack_peak_bytes": self.meter.phases[phase].peak}
        if attack.shadows:
            cost["shadows"] = attack.shadows
        return replace(found, note=note, cost=found.cost | cost)

    def _ask_parts(self, name: str, attack: Attack, adversary: str) -> None:
        """See to it that the attack has said, as each part of the adversary, what it makes of the candidates: where a
        part's view serves it better (an attack that prefers a mangled upload to the released model), the coalition,
        which holds that view too, must not look the safer."""
        if attack.game != "membership" or self.run.spec.variant is not None:
            return
        self._together = {adversary, *adversaries.parts(adversary)}
        for part in adversaries.parts(adversary):
            if (name, part) not in self.answers:
                self.answers[name, part] = {}  # whatever becomes of it: asked once
                together = self._together
                self.assess(name, attack, part)
                self._together = together

    def claim(self, adversary: str, delta: float | None = None) -> Claim | None:
        """The worst claim over the adversary's coalitions; None without anybody to attack. ``delta``: None for the
        claim's own."""
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
                delta,
                simulated=run.spec.secret_seed is not None,
                absent=absent,
                exposure=self._exposure(adversary, number, a.coalition),
            )
            for number, a in enumerate(adversaries.assignments(adversary, silos)[: 1 if self._one_coalition else None])
        ]
        return privacy.worst(claims)

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

    @property
    def _one_coalition(self) -> bool:
        """A run in which a coalition deviates is about that coalition only: the adversary's first."""
        return self.run.spec.active

    # -- views -----------------------------------------------------------------------------------------------------

    def _after(self, attack: Attack, views: Views) -> Views:
        """The views of a coalition that deviates, each with those victims only whose records it is after."""
        if attack.behaviour is None or not self._one_coalition:
            return views
        wanted = [attack.behaviour.victims(one.victims, self.run.transcript.public) for one, _ in views]
        return [
            (replace(one, victims=victims), replace(view, victims=victims))
            for (one, view), victims in zip(views, wanted, strict=True)
        ]

    def _build(self, adversary: str, name: str = "", openers: tuple[Opener, ...] = ()) -> Views:
        """The views of one adversary. Those of an attack with openers of its own are built for it alone."""
        key = (adversary, name if openers else "")
        if key not in self._views:
            if any(held not in {adversary, *self._together} for held, _ in self._views):
                self.drop_views()
            assignments = adversaries.assignments(adversary, self.run.transcript.public.silos)
            if self._one_coalition:
                assignments = assignments[:1]
            label = "-".join(part for part in key if part)
            self._views[key] = [
                (one, self._view(self.run.transcript, adversary, one, f"{label}-{number}", openers))
                for number, one in enumerate(assignments)
            ]
        return self._views[key]

    def _seen_of_shadows(
        self, name: str, attack: Attack, adversary: str, number: int, assignment: Assignment
    ) -> tuple[tuple[View, Planting], ...]:
        """What the same coalition reads of each shadow federation that the attack wants, and that run's planting."""
        found = []
        wanted = self.shadows[: attack.shadows]
        if len(wanted) < attack.shadows:
            raise SiloBenchError(f"the attack wants {attack.shadows} shadow federations, and here are {len(wanted)}")
        self._in_use = max(self._in_use, wanted, key=len)
        for shadow in wanted:
            label = f"{adversary}{'-' + name if attack.openers else ''}-{number}"
            key = (label, number, shadow.run_id)
            if key not in self._shadow_views:
                where = f"{label}-shadow-{shadow.run_id}"
                view = self._view(shadow.transcript, adversary, assignment, where, attack.openers)
                self._shadow_views[key] = view
            found.append((self._shadow_views[key], shadow.planting))
        return tuple(found)

    def _view(
        self, transcript: Transcript, adversary: str, one: Assignment, folder: str, openers: Sequence[Opener]
    ) -> View:
        run = self.run
        if self._traits is None:
            self._traits = traits(run.parts.channel, run.transcript.public)
        return build(
            transcript,
            run.parts,
            adversary,
            one,
            run.directory / "views" / folder,
            run.spec.federation.release_precision,
            traits=self._traits,
            openers=openers,
        )

    def drop_views(self) -> None:
        """Remove the views from the disk: they can be computed again, and those of one adversary may take gigabytes."""
        self._views, self._shadow_views = {}, {}
        shutil.rmtree(self.run.directory / "views", ignore_errors=True)

    @property
    def released(self) -> dict[str, Array]:
        """Released adapters of the run, and of the shadow federations that were asked for, by handle."""
        for transcript in (self.run.transcript, *(shadow.transcript for shadow in self._in_use)):
            if transcript.root not in self._known_releases:
                self._known_releases.add(transcript.root)
                self._released |= _released(transcript)
        return self._released


def _released(transcript: Transcript) -> dict[str, Array]:
    sent = (m for m in transcript.messages() if PUBLIC in m.receivers and not m.thinned)
    public = transcript.public
    adapters = (decode_adapter(m.frames(), public.state.size, public.adapter.size) for m in sent)
    return {adapter_handle(a): a for a in adapters}


def _readable(view: View, attack: Attack) -> bool:
    return any(reading.kind in attack.needs for reading in view.readings)


def _nothing(views: Sequence[View], attack: Attack) -> Assessment:
    """Nothing that the attack needs was opened: because it was dropped from the disk, or because it did not open."""
    thinned = sorted({f"round {r} {stage} of {sender}" for view in views for r, stage, sender in view.thinned})
    if thinned:
        more = f" and {len(thinned) - 5} more" if len(thinned) > 5 else ""
        return Assessment("thinned", note=f"dropped to hold the disk budget: {', '.join(thinned[:5])}{more}")
    kinds = sorted({reading.kind for view in views for reading in view.readings})
    opened = f" (what opened: {', '.join(kinds)})" if kinds else ""
    # an attack's own opener says so why it failed
    shown = {reading.how for view in views for reading in view.readings if reading.kind == "metadata"}
    told = "".join(f"; {how}" for how in sorted(shown)) if attack.openers else ""
    lost = f"; {why}" if (why := _lost(views, attack)) else ""
    return Assessment("nothing-opened", note=f"no {' or '.join(sorted(attack.needs))} opened{opened}{told}{lost}")


def _lost(views: Sequence[View], attack: Attack) -> str:
    """What the views lack: what was not tried, and for an attack on sums those behind a step that can't be undone."""
    left_out = dict.fromkeys(what for view in views for what in view.untried)
    untried = f"not tried: {', '.join(left_out)}" if left_out else ""
    return "; ".join(part for part in (_lost_sums(views, attack), untried) if part)


def _lost_sums(views: Sequence[View], attack: Attack) -> str:
    if not attack.needs & {"sum", "difference"}:
        return ""
    rounds: dict[str, set[int]] = {}
    for round, step in sorted({lost for view in views for lost in view.lost}):
        rounds.setdefault(step, set()).add(round)
    return "; ".join(
        f"the sums of rounds {', '.join(map(str, sorted(found)))} do not follow from the adapters, since there "
        f"{step} can't be undone"
        for step, found in rounds.items()
    )
