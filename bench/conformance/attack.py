"""Checks of an attack: it finds what is there, finds nothing where nothing is, and does not depend on order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, MutableMapping
from functools import cached_property
from typing import Any, get_args

import numpy as np

from bench.assess.isolation.parent import Origin, isolated
from bench.assess.plays.table import Assessment
from bench.attack.attack import Attack, Target
from bench.attack.by_game import question
from bench.conformance.checks import Check, Failed, expect
from bench.conformance.playground import Playground, playground, setting
from bench.core.errors import UsageError
from bench.games.catalog import GAMES
from bench.plugins.find import Plugin, Plugins
from bench.spec.config import Config, canonical_json
from bench.spec.run import ADVERSARIES, PluginSpec
from bench.view.view import Kind

#: the figure that decides, by game, and what a run that memorised its records must give at the strongest adversary
HEADLINE = {name: game.headline for name, game in GAMES.items()} | {"extraction": "inferred", "audit": "canary_auc"}
PLANTED = {
    "membership": 0.8,
    "reconstruction": 0.5,
    "source": 0.8,
    "participation": 0.8,
    "extraction": 0.5,
    "audit": 0.8,
}
#: how much more of the trained records' tokens a reconstruction must recall than of others'
DIFFERENCE = 0.2
#: of 1 and the number itself: how far a number of the scores may lie from what another process gives
ALIKE = 1e-3


def checks(plugin: Plugin, config: Config, grounds: MutableMapping[str, Playground]) -> Iterator[Check]:
    subject = _Subject(plugin, config, grounds)
    yield Check("builds", subject.builds)
    try:
        game = subject.attack.game
    except Exception:
        return  # the check above has said why
    yield Check("every adversary", subject.every_adversary)
    if game in PLANTED:
        yield Check("planted leak", subject.planted)
    if game in ("membership", "reconstruction"):
        yield Check("no leak", subject.no_leak)
        yield Check("order", subject.candidate_order if game == "membership" else subject.target_order)
    if plugin.path is not None:
        yield Check("isolation", subject.elsewhere)


class _Subject:
    def __init__(self, plugin: Plugin, config: Config, grounds: MutableMapping[str, Playground]) -> None:
        self.plugin, self.config = plugin, config
        self._grounds = grounds

    @cached_property
    def attack(self) -> Any:
        built = self.plugin.build(self.config)
        expect(isinstance(built, Attack), f"build returned {type(built).__name__}, not an Attack.")
        attack: Attack = built
        try:
            question(attack)
        except UsageError as error:
            raise Failed(str(error)) from None
        unknown = sorted(set(attack.needs) - set(get_args(Kind)))
        expect(not unknown, f"'needs' names {unknown[:1]}; readings are of kind {', '.join(get_args(Kind))}.")
        expect(attack.needs, "'needs' is empty: an attack that reads nothing is a baseline.")
        return attack

    @cached_property
    def ground(self) -> Playground:
        return self.ground_of("all-but-one")

    def ground_of(self, who: str) -> Playground:
        """The run that the attack is made on as ``who``: trained once for all that share it."""
        variant = self.attack.variant(who)
        named = None if variant is None else variant.model_dump(mode="json")
        key = canonical_json([setting(self.attack.game), self.attack.ground, named])
        if key not in self._grounds:
            own = [] if self.plugin.path is None else [self.plugin.path]
            known = Plugins([path for path in own if path.parent.name != "attacks"])
            self._grounds[key] = playground(self.attack.game, self.attack.ground, variant, known)
        return self._grounds[key]

    @cached_property
    def found(self) -> dict[str, Assessment]:
        return {who: self.ground_of(who).assess(self.plugin.name, self.attack, who) for who in ADVERSARIES}

    def builds(self) -> str:
        return f"plays the {self.attack.game} game, needs {' or '.join(sorted(self.attack.needs))}"

    def every_adversary(self) -> str:
        for who, one in self.found.items():
            expect(one.status != "error", f"as {who} it breaks: {one.note}")
        able = [who for who, one in self.found.items() if one.status == "ok"]
        expect(able, "no adversary of a run in the clear can make it: 'needs' asks for what is never read.")
        for who in able:
            expect(self.found[who].reads, f"as {who} it does not say what it read ('reads' is empty).")
        return f"works as {', '.join(able)}"

    def planted(self) -> str:
        game = self.attack.game
        value, who = self._strongest(self.ground)
        expect(
            value >= PLANTED[game],
            f"on a run that memorised its records its best {HEADLINE[game]} is {value:.3f} (as {who}); "
            f"at least {PLANTED[game]} is there to be found.",
        )
        return f"{HEADLINE[game]} {value:.3f} as {who}, on a run that memorised its records"

    def no_leak(self) -> str:
        """Scored against members that were drawn independently, an attack knows no more than chance or its baseline."""
        value, who = self._strongest(self.ground)
        other = self.ground_of(who).with_other_truth()
        if self.attack.game == "membership":
            found = other.assess(self.plugin.name, self.attack, who)
            auc = next((row for row in found.leakage if row.name == "auc"), None)
            chance = None if auc is None else auc.value
            expect(
                auc is not None and chance is not None and abs(chance - 0.5) <= margin(auc.n),
                f"scored against other members than those trained on, its AUC is {chance}: it reads something else.",
            )
            return f"AUC {chance:.3f} against members that were not trained on"
        less = _figure(other.assess(self.plugin.name, self.attack, who), "token_recall") or 0.0
        expect(
            value - less >= DIFFERENCE,
            f"it recalls {less:.3f} of the tokens of records that were not trained on, {value:.3f} of those that were.",
        )
        return f"recalls {less:.3f} of the tokens of records that were not trained on, {value:.3f} of those that were"

    def candidate_order(self) -> str:
        ground = self.ground_of(self._strongest(self.ground)[1])
        ids = sorted(i for v in ground.view.victims for i in ground.materials.pool.silos[v])
        order = np.random.default_rng(3).permutation(len(ids))
        shuffled = [ids[k] for k in order]
        one, other = (
            self.attack.infer(ground.view, ground.candidates(asked), ground.tools(asked, self.attack.shadows)).scores
            for asked in (ids, shuffled)
        )
        expect(set(one) == set(other), "it gives other scores when the candidates are shuffled.")
        for name in one:
            before, after = np.asarray(one[name], float), np.asarray(other[name], float)
            expect(before.shape == (len(ids),), f"score '{name}' has shape {before.shape}, expected ({len(ids)},).")
            expect(np.isfinite(before).all(), f"score '{name}' holds values that are not finite.")
            spread = float(np.ptp(before)) or 1.0
            far = float(np.abs(before[order] - after).max()) / spread
            expect(far <= 1e-3, f"score '{name}' of a candidate changes with the order of the candidates.")
        return f"{len(one)} scores are the same in any order of the candidates"

    def target_order(self) -> str:
        ground = self.ground
        targets = [Target(0, victim, 1, 1) for victim in ground.view.victims]
        one = list(self.attack.reconstruct(ground.view, targets, ground.tools()))
        other = list(self.attack.reconstruct(ground.view, targets[::-1], ground.tools()))
        expect(len(one) == len(other), "it answers other targets when their order changes.")
        size = ground.materials.model.vocab_size
        for answer in one:
            expect(answer.target in targets, "it answers a target that it was not asked about.")
            shape = np.shape(answer.token_scores)
            expect(shape == (size,), f"'token_scores' has shape {shape}, expected ({size},): one per token.")
            expect(
                len(answer.sequences) <= answer.target.records,
                f"it gives {len(answer.sequences)} sequences for {answer.target.records} records.",
            )
        return f"{len(one)} of {len(targets)} targets answered, in any order"

    def elsewhere(self) -> str:
        """In a process of its own, as attacks that are not built in are run, it gives the same answers."""
        able = [who for who, one in self.found.items() if one.status == "ok"]
        expect(able, "no adversary of a run in the clear can make it.")
        who = able[-1]  # who sees most
        ground, here = self.ground_of(who), self.found[who]
        spec = PluginSpec(name=self.plugin.name, config=self.config.model_dump(mode="json"))
        apart = isolated(self.attack, Origin(self.plugin, spec, ground.run.spec, ground.materials))
        there = ground.assess(self.plugin.name, apart, who)
        expect(there.status == here.status, f"in a process of its own it ends as {there.status}: {there.note}")
        expect(there.reads == here.reads, "in a process of its own it says that it read something else.")
        expect(
            _alike(json.loads(here.sheet or "null"), json.loads(there.sheet or "null")),
            "in a process of its own it gives other answers: it uses something besides the view and what it is lent.",
        )
        return f"the same answers as {who} in a process that holds the view alone"

    def _strongest(self, ground: Playground) -> tuple[float, str]:
        name = HEADLINE[self.attack.game]
        known = [(value, who) for who, one in self.found.items() if (value := _figure(one, name)) is not None]
        if not known:
            raise Failed(f"no adversary got a figure '{name}'.")
        return max(known)


def _alike(one: Any, other: Any) -> bool:
    """Whether two sheets are the same, numbers up to ``ALIKE``."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ALIKE, abs_tol=ALIKE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


def margin(n: Mapping[str, int]) -> float:
    """How far an AUC of so many members and non-members lies from 1/2 by chance, once in 10^6 (two-sided normal; its
    variance is (m + n + 1) / (12 m n), Mann and Whitney 1947)."""
    members, others = n["members"], n["nonmembers"]
    return 4.9 * float(np.sqrt((members + others + 1) / (12 * members * others)))


def _figure(one: Assessment, name: str) -> float | None:
    return next((row.value for row in one.leakage if row.name == name), None)
