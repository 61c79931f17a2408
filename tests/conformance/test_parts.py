"""Transforms, aggregators, records parts and trainers: the kit passes ours and fails a copy for each broken rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.conformance import aggregator, defense, records, step, trainer, transform
from bench.conformance.checks import Check, Failed, expect, run_checks
from bench.core.update import Update
from bench.corpus.task import Record
from bench.defense.aggregator import Aggregator, ServerStep
from bench.defense.compose import Defense
from bench.defense.defaults.mean import Mean
from bench.defense.parts import Mechanism, Promise, RecordsPart, Trainer, Training, TrainJob, Transform
from bench.plugins.find import Plugins
from bench.spec.config import Config


def wrong(checks: Any) -> str:
    """All sentences of failed checks."""
    return " | ".join(finding.says for finding in run_checks(checks) if not finding.passed)


def test_a_check_that_raises_fails_alone() -> None:
    def burst() -> str:
        raise KeyError("lost")

    def refuse() -> str:
        expect(False, "no good.")
        return "never"

    found = list(run_checks([Check("a", burst), Check("b", lambda: "fine"), Check("c", refuse)]))
    assert [(f.title, f.passed, f.says) for f in found] == [
        ("a", False, "raised KeyError: 'lost'"),
        ("b", True, "fine"),
        ("c", False, "no good."),
    ]
    assert str(found[1]) == "pass  b: fine"
    assert issubclass(Failed, Exception)


class Scale(Transform):
    """Multiplies; the subclasses below each break one rule."""

    def __init__(self, act: Callable[[Update, Any], Update]) -> None:
        self.act = act

    def apply(self, update: Update, context: Any) -> Update:
        return self.act(update, context)


def in_place(update: Update, context: Any) -> Update:
    update.values[...] *= 2
    return update


def touches_the_global_adapter(update: Update, context: Any) -> Update:
    context.global_adapter[...] = 0
    return replace(update, values=update.values * np.float32(2))


def divides_by_the_norm(update: Update, context: Any) -> Update:
    with np.errstate(all="ignore"):
        return replace(update, values=update.values / np.linalg.norm(update.values))


def remembers_elsewhere() -> Callable[[Update, Any], Update]:
    seen: list[int] = []

    def act(update: Update, context: Any) -> Update:
        seen.append(1)
        return replace(update, values=update.values * np.float32(len(seen)))

    return act


def global_randomness(update: Update, context: Any) -> Update:
    return replace(update, values=update.values + np.random.default_rng().normal(size=update.values.shape).astype("f4"))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (in_place, "it changes the update that it was given"),
        (touches_the_global_adapter, "it changes the global adapter"),
        (divides_by_the_norm, "values that are not finite"),
        (lambda u, c: replace(u, weight=7), "it changes the public weight"),
        (lambda u, c: replace(u, values=u.values.astype(np.float64)), "float64 values, expected float32"),
        (lambda u, c: replace(u, values=u.values[:-1]), "values of shape"),
        (lambda u, c: replace(u, norm_bound=1e-3), "above the 0.001 it states"),
        (lambda u, c: replace(u, values=u.values[:2], support=np.array([5, 5])), "no.* sorted|not a sorted list"),
        (lambda u, c: replace(u, values=(u.values * 0).astype(np.int64)), "int64 values, expected float32"),
        (remembers_elsewhere(), "two runs of the same seeds and states differ"),
        (global_randomness, "two runs of the same seeds and states differ"),
        (lambda u, c: c.state.update(x="text") or u, "is no array of numbers"),
    ],
)  # fmt: skip
def test_a_transform_that_breaks_a_rule_is_found(act: Callable[[Update, Any], Update], says: str) -> None:
    assert re.search(says, wrong(transform.checks(Defense(transforms=(Scale(act),)))))


def test_a_transform_that_keeps_the_rules_passes() -> None:
    def keeps(update: Update, context: Any) -> Update:
        context.state["sum"] = context.state.get("sum", np.zeros_like(update.values)) + update.values
        noise = context.secret.generator("noise", context.round).normal(size=update.values.shape).astype(np.float32)
        return replace(update, values=context.state["sum"] + noise)

    assert wrong(transform.checks(Defense(transforms=(Scale(keeps), Scale(keeps))))) == ""


class Sloppy(Mean):
    def __init__(self, rule: str) -> None:
        super().__init__(weighted=rule != "weights")
        self.rule = rule

    def weight(self, nominal_size: int) -> int:
        return nominal_size // 30 if self.rule == "weight" else super().weight(nominal_size)

    def apply(self, total: Any, silos: Sequence[str], global_adapter: Any, public: Any) -> Any:
        after = super().apply(total, silos, global_adapter, public)
        if self.rule == "order":
            after = after + np.float32(public.weights[silos[0]])
        if self.rule == "type":
            after = after.astype(np.float16)
        if self.rule == "infinite":
            after[0] = np.inf
        return after

    def implied_adapter(self, summand: Any, weight: int, global_adapter: Any, public: Any) -> Any:
        return super().implied_adapter(summand, 1 if self.rule == "adapter" else weight, global_adapter, public)

    def implied_total(self, before: Any, after: Any, silos: Sequence[str], public: Any) -> Any:
        total = super().implied_total(before, after, silos, public)
        return None if self.rule == "none" or total is None else total * (1.1 if self.rule == "total" else 1)


@pytest.mark.parametrize("rule", ["weight", "order", "type", "infinite", "adapter", "total"])
def test_an_aggregator_that_breaks_a_rule_is_found(rule: str) -> None:
    assert wrong(aggregator.checks(Sloppy(rule)))


@pytest.mark.parametrize("good", [Mean(), Mean(False), Mean(of="weights"), Sloppy("none")])
def test_aggregators_that_keep_the_rules_pass(good: Aggregator) -> None:
    assert wrong(aggregator.checks(good)) == ""


class Sloth(ServerStep):
    """Halves a move and counts; breaks one rule."""

    def __init__(self, rule: str) -> None:
        self.rule, self.has_memory = rule, rule != "hidden"

    def randomise(self, total: Any, context: Any) -> Any:
        if self.rule == "altered sum":
            total += 1
        unsaid = self.rule == "unsaid"
        noisy = total + 1 if unsaid else np.full_like(total, np.inf) if self.rule == "endless sum" else total
        return noisy, None

    def move(self, change: Any, memory: Any) -> Any:
        memory["moves"] = "one" if self.rule == "text" else memory.get("moves", np.zeros(1)) + 1
        if self.rule == "altered move":
            change *= 2
        return change * (np.nan if self.rule == "nan" else 0.5)

    def undo(self, moved: Any, memory: Any) -> Any:
        if self.rule == "never":
            return None
        if self.rule != "forgets":
            memory["moves"] = memory.get("moves", np.zeros(1)) + 1
        return moved * (3 if self.rule == "off" else 2)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("altered sum", "'randomise' changes the sum that it was given"),
        ("endless sum", "'randomise' gives no finite sum"),
        ("unsaid", "'randomise' changes a sum and names no mechanism"),
        ("text", "its memory holds what is no array"),
        ("altered move", "'move' alters the change that it was given"),
        ("nan", "'move' gives no finite move"),
        ("hidden", "it keeps a memory: say has_memory = True"),
        ("off", "'undo' is off by"),
        ("forgets", "'undo' leaves another memory than 'move'"),
        ("never", ""),
        ("good", ""),
    ],
)
def test_server_steps(rule: str, says: str) -> None:
    found = wrong(step.checks(Sloth(rule)))
    assert says in found if says else not found


class Filter(RecordsPart):
    def __init__(self, act: Callable[[list[Record]], list[Record]]) -> None:
        self.act = act

    def apply(self, records: Sequence[Record]) -> list[Record]:
        return self.act(records)  # type: ignore[arg-type]


def test_records_parts() -> None:
    assert wrong(records.checks(Filter(lambda r: [x for i, x in enumerate(r) if i % 2]))) == ""
    assert "a new id" in wrong(records.checks(Filter(lambda r: [replace(x, id=x.id + "!") for x in r])))
    assert "a record twice" in wrong(records.checks(Filter(lambda r: [*r, *r])))
    assert "without text" in wrong(records.checks(Filter(lambda r: [replace(x, text="") for x in r])))
    assert "changed the list" in wrong(records.checks(Filter(lambda r: [r.pop() for _ in range(len(r))])))
    assert "out of none" in wrong(records.checks(Filter(lambda r: r or [Record("x", "y")])))


class Odd(Trainer):
    """Trains by adding noise, and misreports in one way."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        if rule.startswith("promise"):
            self.promise = Promise("record", "add-remove", lambda coalition, victim: True)

    def train(self, job: TrainJob) -> Training:
        noise = job.order.normal(size=job.model.layout.size) * 0.01
        if self.rule == "unrepeatable":
            noise = noise + np.random.default_rng().normal(size=noise.shape)
        if self.rule != "idle":
            job.model.set_adapter(job.model.get_adapter() + noise.astype(np.float32))
        batches = {"outside": ((0, 99),), "empty": ((0, 1), ())}.get(self.rule, ((0, 1),))
        losses = {"nan": (float("nan"),), "losses": (1.0, 2.0), "empty": (1.0, float("nan"))}.get(self.rule, (1.0,))
        kind = "unheard-of" if self.rule == "promise-unknown" else "poisson-gaussian"
        logged = () if self.rule in ("promise-silent",) or self.promise is None else (self._mechanism(kind),)
        return Training(len(batches), 0 if self.rule == "tokens" else 9, losses, batches, logged)

    def plan(self, rounds: int, local: Any, nominal_size: int) -> Sequence[Mechanism]:
        if self.promise is None:
            return ()
        kind = "unheard-of" if self.rule == "promise-unknown" else "poisson-gaussian"
        return [self._mechanism(kind)] * (rounds + (self.rule == "promise-other"))

    def _mechanism(self, kind: str) -> Mechanism:
        return Mechanism(kind, {"rate": 0.5, "sigma": 2.0, "steps": 1})


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("idle", "the adapter is as it was"),
        ("unrepeatable", "two updates differ by"),
        ("outside", "records that the silo does not have"),
        ("nan", "a loss that is not finite"),
        ("losses", "1 batches and 2 losses"),
        ("tokens", "logs no tokens"),
        ("promise-silent", "makes a promise and logs no mechanism"),
        ("promise-other", "it plans"),
        ("promise-unknown", "no epsilon can be computed"),
        ("good", ""),
        ("empty", ""),
        ("promise-good", ""),
    ],
)
def test_trainers(rule: str, says: str) -> None:
    found = wrong(trainer.checks(Odd(rule)))
    assert says in found if says else not found


def test_the_plain_trainer_passes() -> None:
    from bench.defense.defaults.trainer import GradientTrainer

    assert wrong(trainer.checks(GradientTrainer())) == ""


def test_a_defense_whose_builds_share_a_part_is_found(tmp_path: Any) -> None:
    (tmp_path / "shared.py").write_text(
        '"""One aggregator for all."""\nfrom bench.spec.config import Config as Base\n'
        "from bench.defense.defaults.mean import Mean\n"
        "from bench.defense.compose import Defense\napi = 1\nMEAN = Mean()\nclass Config(Base): ...\n"
        "def build(config): return Defense(aggregator=MEAN)\n"
    )
    plugin = Plugins(folders={"defense": tmp_path}).find("defense", "shared")
    config: Config = plugin.validate({})
    assert "two builds share one aggregator" in wrong(defense.checks(plugin, config))


def test_parts_that_cannot_work_together_are_found(tmp_path: Any) -> None:
    (tmp_path / "torn.py").write_text(
        '"""Puts integers on a grid again."""\nfrom bench.spec.config import Config as Base\n'
        "from bench.conformance.fixtures import ToGrid\nfrom bench.defense.compose import Defense\napi = 1\n"
        "class Config(Base): ...\ndef build(config): return Defense(transforms=(ToGrid(), ToGrid()))\n"
    )
    plugin = Plugins(folders={"defense": tmp_path}).find("defense", "torn")
    assert "composed with a plain defense it is refused" in wrong(defense.checks(plugin, plugin.validate({})))
