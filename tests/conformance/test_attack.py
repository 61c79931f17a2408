"""The kit passes attacks that read what leaked, and finds those that break, cheat or guess."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.assess.isolation import sandbox
from bench.attack.attack import Attack, Candidates, Guesses, Reconstruction
from bench.conformance import attack as kit
from bench.conformance import run_checks
from bench.conformance.playground import Playground
from bench.plugins.find import Plugins
from tests.grounds import ground as trained

Infer = Callable[[Any, Candidates, Any], Guesses]


class Drop(Attack):
    """Membership by the drop of the loss: the subclasses below break one rule each."""

    game = "membership"
    needs = frozenset({"adapter", "upload"})

    def infer(self, view: Any, candidates: Candidates, tools: Any) -> Guesses:
        before = tools.token_stats(None, candidates.tokens).losses()
        scores = np.zeros(len(candidates.ids))
        for silo in set(candidates.silos):
            rows = np.array([holder == silo for holder in candidates.silos])
            after = tools.token_stats(view.last_adapter(silo), candidates.tokens).losses()
            scores[rows] = (before - after)[rows]
        return Guesses({"drop": scores}, ("adapter",))


class Built:
    """Stands for a plug-in that builds ``attack``."""

    name = "under-test"
    path = None

    def __init__(self, attack: object) -> None:
        self.attack = attack

    def build(self, config: object) -> object:
        return self.attack


@pytest.fixture(scope="module")
def grounds() -> dict[str, Playground]:
    return {}


@pytest.fixture(autouse=True)
def shared(grounds: dict[str, Playground], monkeypatch: pytest.MonkeyPatch) -> None:
    """One training for all tests of this file."""

    def cached(game: Any, *_: Any) -> Playground:
        if game not in grounds:
            grounds[game] = trained(game)
        return grounds[game]

    monkeypatch.setattr(kit, "playground", cached)


def failed(attack: object) -> dict[str, str]:
    found = run_checks(kit.checks(Built(attack), None, {}))  # type: ignore[arg-type]
    return {finding.title: finding.says for finding in found if not finding.passed}


def test_an_attack_that_reads_the_leak_passes() -> None:
    assert failed(Drop()) == {}


def test_scores_with_the_wrong_sign_are_found() -> None:
    class Reversed(Drop):
        def infer(self, view: Any, candidates: Candidates, tools: Any) -> Guesses:
            guesses = super().infer(view, candidates, tools)
            return replace(guesses, scores={"drop": -guesses.scores["drop"]})

    assert set(failed(Reversed())) == {"planted leak"}


def test_an_attack_that_knows_something_else_is_found(grounds: dict[str, Playground]) -> None:
    ground = grounds.setdefault("membership", trained("membership"))
    planting = ground.with_other_truth().run.planting
    known = set(ground.materials.texts([i for held in planting.members.values() for i in held]))

    class Knows(Drop):
        def infer(self, view: Any, candidates: Candidates, tools: Any) -> Guesses:
            return Guesses({"x": np.array([float(text in known) for text in candidates.texts])}, ("elsewhere",))

    assert "it reads something else" in failed(Knows())["no leak"]


def test_an_attack_that_reads_the_order_is_found() -> None:
    class Ordered(Drop):
        def infer(self, view: Any, candidates: Candidates, tools: Any) -> Guesses:
            return Guesses({"place": np.arange(len(candidates.ids), dtype=float)}, ("nothing",))

    assert "changes with the order" in failed(Ordered())["order"]


def test_an_attack_that_guesses_finds_no_leak() -> None:
    class Coin(Drop):
        def infer(self, view: Any, candidates: Candidates, tools: Any) -> Guesses:
            return Guesses(
                {"coin": np.array([zlib.crc32(text.encode()) % 97 / 97 for text in candidates.texts])}, ("nothing",)
            )

    assert "planted leak" in failed(Coin())


@pytest.mark.parametrize(
    ("infer", "title", "says"),
    [
        (lambda v, c, t: 1 // 0, "every adversary", "it breaks: ZeroDivisionError"),
        (lambda v, c, t: Guesses({}, ("x",)), "every adversary", "no score"),
        (lambda v, c, t: Guesses({"s": np.zeros(3)}, ("x",)), "every adversary", "shape"),
        (lambda v, c, t: Guesses({"s": np.full(len(c.ids), np.nan)}, ("x",)), "every adversary", "NaN"),
        (lambda v, c, t: Guesses({"s": np.zeros(len(c.ids))}, ()), "every adversary", "'reads' is empty"),
    ],
)  # fmt: skip
def test_an_attack_that_breaks_is_found(infer: Infer, title: str, says: str) -> None:
    class Broken(Drop):
        def infer(self, view: Any, candidates: Candidates, tools: Any) -> Guesses:
            return infer(view, candidates, tools)

    assert says in failed(Broken())[title]


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (3, "build returned int, not an Attack"),
        (type("A", (Drop,), {"needs": frozenset()})(), "'needs' is empty"),
        (type("A", (Drop,), {"needs": frozenset({"uplaod"})})(), "'needs' names ['uplaod']"),
        (type("A", (Drop,), {"game": "chess"})(), "plays the game 'chess'"),
    ],
)
def test_an_attack_that_declares_nonsense_is_found(attack: object, says: str) -> None:
    found = failed(attack)
    assert set(found) == {"builds"}
    assert says in found["builds"]


def test_an_attack_whose_readings_never_occur_is_found() -> None:
    assert "what is never read" in failed(type("A", (Drop,), {"needs": frozenset({"metadata"})})())["every adversary"]


class Everything(Attack):
    """Claims that every token was there: full recall, and no knowledge."""

    game = "reconstruction"
    needs = frozenset({"upload"})

    def reconstruct(self, view: Any, targets: Any, tools: Any) -> list[Reconstruction]:
        size = tools.model.vocab_size
        return [Reconstruction(t, np.zeros(size), np.arange(size), (), True, "upload") for t in targets]


def test_a_reconstruction_that_claims_everything_is_found() -> None:
    assert "of records that were not trained on" in failed(Everything())["no leak"]


APART = '''
"""Membership by the drop of the loss, plus what another process has otherwise."""
import os
import numpy as np
from bench import Attack, Guesses
from bench import Config as Base

api = 1
version = 1

class Config(Base):
    mode: str = "plain"

class Drop(Attack):
    game = "membership"
    needs = frozenset({"adapter", "upload"})

    def __init__(self, config):
        self.config = config

    def infer(self, view, candidates, tools):
        before = tools.token_stats(None, candidates.tokens).losses()
        scores = np.zeros(len(candidates.ids))
        for silo in set(candidates.silos):
            rows = np.array([holder == silo for holder in candidates.silos])
            after = tools.token_stats(view.last_adapter(silo), candidates.tokens).losses()
            scores[rows] = (before - after)[rows]
        if self.config.mode == "process":
            scores = scores + os.getpid()
        if self.config.mode == "file":
            open(__file__.replace("apart.py", "truth"), "rb").close()
        read = str(os.getpid()) if self.config.mode == "reads" else "adapter"
        return Guesses({"drop": scores}, (read,))

def build(config: Config) -> Attack:
    return Drop(config)
'''


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("plain", ""),
        ("process", "gives other answers"),
        ("reads", "read something else"),
        ("file", "ends as error"),
    ],
)
def test_an_attack_that_differs_in_a_process_of_its_own_is_found(mode: str, says: str, tmp_path: Path) -> None:
    if mode == "file" and sandbox.version() == 0:
        pytest.skip("this kernel has no Landlock")
    path = tmp_path / "apart.py"
    path.write_text(APART)
    (tmp_path / "truth").write_text("what it must not read")
    plugin = Plugins([path]).find("attack", "apart")
    found = {f.title: f for f in run_checks(kit.checks(plugin, plugin.validate({"mode": mode}), {}))}
    assert found["isolation"].passed == (not says)
    assert says in found["isolation"].says
    assert all(f.passed for title, f in found.items() if title != "isolation")


def test_sheets_are_alike_up_to_rounding() -> None:
    one = {"a": [1.0, 2, "x", None, True], "b": {"c": 0.0}}
    assert kit._alike(one, {"a": [1.0005, 2, "x", None, True], "b": {"c": 5e-4}})
    for other in (
        {"a": [1.01, 2, "x", None, True], "b": {"c": 0.0}},
        {"a": [1.0, 3, "x", None, True], "b": {"c": 0.0}},
        {"a": [1.0, 2, "x", None], "b": {"c": 0.0}},
        {"a": [1.0, 2, "x", None, True], "b": {"d": 0.0}},
        {"a": [1.0, 2, "x", 0.0, True], "b": {"c": 0.0}},
    ):
        assert not kit._alike(one, other)
