"""Participation: what training did, explained by training on each organisation's kind of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attacks import participation
from attacks.participation import _weights
from attacks.rowspace.learned import simulate
from bench.assess.plays.participation import _hits
from bench.attack.attack import Organisation, Own
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.corpus.task import Record
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec
from bench.view.view import adapter_handle
from tests.attacks.opened import Flat, Lent, Reading, View

PLACES = ("silo-0", "silo-1")
#: four organisations, two for each place, and the coins
KINDS = (
    "heart valve aorta pulse murmur stent",
    "lung airway cough oxygen wheeze mask",
    "knee hip joint brace tendon cast",
    "eye lens retina vision cornea drops",
)
CAME = (1, 0)
LOCAL = {"steps": 3, "batch": 4, "optimizer": "adamw", "lr": 5e-3}


def texts(model: LoraModel, kind: int, seed: int, count: int = 10) -> Tokens:
    rng = np.random.default_rng([kind, seed])
    words = KINDS[kind].split()
    made = [" ".join(["the patient's", *rng.choice(words, 5), "was seen"]) for _ in range(count)]
    return model.encode([Record(f"{k}", text) for k, text in enumerate(made)], 32, "")


@dataclass(frozen=True)
class Scene:
    """A round of two silos, each trained on other texts of the organisation that came."""

    initial: Flat
    uploads: tuple[Flat, ...]
    organisations: tuple[Organisation, ...]
    lent: Lent

    def view(self, *kinds: str) -> View:
        mean = np.mean(self.uploads, axis=0, dtype=np.float64).astype(np.float32)
        found = []
        for kind in kinds:
            if kind == "upload":
                pairs = zip(PLACES, self.uploads, strict=True)
                found += [Reading("upload", frozenset({place}), one, self.initial) for place, one in pairs]
            else:
                found.append(Reading(kind, frozenset(PLACES), mean))
        return View(found, {"federation": {"local": LOCAL}})

    def ask(self, view: View, organisations: Sequence[Organisation] | None = None) -> Any:
        attack = participation.build(participation.Config(simulations=2))
        return attack.took_part(view, organisations or self.organisations, self.lent)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scene(loaded: LoraModel) -> Scene:
    local, initial = LocalSpec.model_validate(LOCAL), loaded.initial_adapter(np.random.default_rng(3))
    uploads = []
    for place, came in enumerate(CAME):
        own = texts(loaded, 2 * place + came, seed=1)
        change = simulate(loaded, initial, own, local, LOCAL["steps"], np.random.default_rng(40 + place))
        uploads.append((initial + change).astype(np.float32))
    fresh = [texts(loaded, kind, seed=2) for kind in range(len(KINDS))]
    organisations = tuple(Organisation(PLACES[k // 2], one, ("",) * len(one)) for k, one in enumerate(fresh))
    return Scene(initial, tuple(uploads), organisations, Lent(loaded))


@pytest.mark.parametrize(
    ("kind", "read"),
    [("upload", "upload of silo-1, round 0"), ("adapter", "adapter after round 0"),
     ("query", "queries of the released model")],
)  # fmt: skip
def test_who_took_part_is_found(scene: Scene, kind: str, read: str) -> None:
    found = scene.ask(scene.view(kind))
    assert _hits(found, CAME) == [1.0, 1.0]
    assert _hits(found, [1 - c for c in CAME]) == [0.0, 0.0]
    assert found.reads[-1] == read


def test_changes_of_all_rounds_are_explained_from_where_the_first_began(scene: Scene, loaded: LoraModel) -> None:
    """Of a second upload the change counts too, and simulations start where the silo did."""
    step = (np.float32(0.5) * (scene.uploads[0] - scene.initial)).astype(np.float32)
    second = Reading("upload", frozenset(PLACES[:1]), scene.uploads[0] + step, scene.uploads[0], round=1)
    view, asked = scene.view("upload"), scene.organisations[:2]
    lent = Lent(loaded)
    longer = replace(scene, lent=lent).ask(replace(view, readings=[second, *view.readings]), asked)
    assert {key[3] for key in lent.made} == {adapter_handle(scene.initial)}  # type: ignore[index]
    np.testing.assert_allclose(longer.scores, 1.5 * scene.ask(view, asked).scores, rtol=1e-4)
    assert longer.reads == ("upload of silo-0, round 1",)


def test_nothing_opened_and_nothing_trained_are_ties(scene: Scene) -> None:
    assert _hits(scene.ask(scene.view()), CAME) == [0.5, 0.5]
    still = View([Reading("adapter", frozenset(PLACES), scene.initial)], {"federation": {"local": LOCAL}})
    assert _hits(scene.ask(still), CAME) == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["upload", "query"])
def test_the_order_of_texts_and_of_organisations_is_irrelevant(scene: Scene, kind: str) -> None:
    order, view = [3, 0, 2, 1], scene.view(kind)
    mixed = []
    for k in order:
        one = scene.organisations[k]
        rows = np.random.default_rng(k).permutation(len(one.tokens))
        mixed.append(Organisation(one.place, one.tokens.take(rows), one.texts))
    plain, other = scene.ask(view).scores, scene.ask(view, mixed).scores
    np.testing.assert_allclose(other, plain[order], rtol=1e-4, atol=1e-5)


def test_a_coalition_s_own_kind_is_no_evidence_for_others(scene: Scene, loaded: LoraModel) -> None:
    """A silo of the coalition moved the global adapter too: its part is explained by its own texts."""
    own = texts(loaded, 1, seed=2)
    scene.lent.own = Own(own, ("",) * len(own), (PLACES[0],) * len(own), np.ones(len(own), np.bool_))
    try:
        asked = [scene.organisations[1], scene.organisations[2]]
        shared = scene.ask(scene.view("adapter"), asked).scores
    finally:
        scene.lent.own = None
    alone = scene.ask(scene.view("adapter"), asked).scores
    assert shared == pytest.approx([alone[0] / 2, alone[1]], rel=1e-6)  # the same column twice


@given(
    seed=st.integers(0, 10**6),
    coefficients=st.lists(st.floats(-3, 3).map(lambda x: round(x, 3)), min_size=1, max_size=6),
)
def test_weights_are_the_sum_s_coefficients(seed: int, coefficients: list[float]) -> None:
    """However alike the columns are, and however long: against a sum written down."""
    rng = np.random.default_rng(seed)
    common = 3 * rng.normal(size=50)
    columns = [(common + rng.normal(size=50)) * 10.0**k for k in range(len(coefficients))]
    units = [column / np.linalg.norm(column) for column in columns]
    observed = sum((c * unit for c, unit in zip(coefficients, units, strict=True)), np.zeros(50))
    np.testing.assert_allclose(_weights(observed, columns), coefficients, atol=1e-8)


def test_noise_has_no_favourite_within_one_in_a_million() -> None:
    rng = np.random.default_rng(11)
    columns = [rng.normal(size=40) + k for k in range(4)]
    wins = sum(w[0] > w[1] for w in (_weights(rng.normal(size=40), columns) for _ in range(2000)))
    assert abs(wins - 1000) < 4.9 * np.sqrt(500)


def test_what_is_no_number_is_refused() -> None:
    good = np.ones(3)
    for observed, simulated in ((good * np.nan, good), (good, good * np.inf)):
        with pytest.raises(SiloBenchError, match="did not converge"):
            _weights(observed, [simulated])
    assert _weights(good, [np.zeros(3)]).tolist() == [0.0]
