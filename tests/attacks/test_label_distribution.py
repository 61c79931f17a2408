"""Label shares: a silo's shares are found in its first change, and expected labels in a last model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attacks import label_distribution
from attacks.label_distribution import Known, convex
from attacks.rowspace.learned import simulate
from bench.assess.plays.property import _grades
from bench.attack import attack as attack_interface
from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens, TokenStats
from bench.corpus.task import Record
from bench.model.lora import LoraModel
from bench.spec.run import LocalSpec
from bench.view.view import adapter_handle
from tests.attacks.opened import Flat, Reading, View
from tests.attacks.opened import Lent as Opened

SILOS = ("silo-0", "silo-1", "silo-2")
PREFIX = " Outcome:"
WORDS = (" home", " ward", " died")
#: records of each label that a silo trains on
HELD = ((14, 1, 1), (1, 1, 14), (5, 6, 5))
LOCAL = {"epochs": 16, "batch": 8, "optimizer": "adamw", "lr": 1e-2}
SPEC = {"federation": {"local": LOCAL}, "pool": {"candidates": 32, "share": 0.5}}


class Lent(Opened):
    def __init__(self, model: LoraModel, population: Tokens, labels: NDArray[np.int64]) -> None:
        super().__init__(model)
        self.population, self.population_labels, self.labels = population, labels, ("a", "b", "c")


def texts(model: LoraModel, held: Sequence[int], seed: int) -> tuple[Tokens, NDArray[np.int64]]:
    """Records of which ``held[k]`` have label k, in random order; what they say does not tell which."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(held)), held))
    said = [" ".join(rng.choice(["pain", "fever", "cough", "rash", "fall", "cut"], 4)) for _ in labels]
    made = [
        Record(f"{k}", text, answer=PREFIX + WORDS[y]) for k, (text, y) in enumerate(zip(said, labels, strict=True))
    ]
    return model.encode(made, 32, PREFIX), labels


@dataclass(frozen=True)
class Scene:
    initial: Flat
    uploads: tuple[Flat, ...]
    lent: Lent

    def view(self, *kinds: str) -> View:
        mean = np.mean(self.uploads, axis=0, dtype=np.float64).astype(np.float32)
        found: list[Reading] = []
        for kind in kinds:
            if kind == "upload":
                pairs = zip(SILOS, self.uploads, strict=True)
                found += [Reading("upload", frozenset({n}), one, before=self.initial) for n, one in pairs]
            else:
                found.append(Reading(kind, frozenset(SILOS), mean))
        return View(tuple(found), SPEC, self.initial if "adapter" in kinds else None)

    def ask(self, view: View, victims: Sequence[str] = SILOS, **options: Any) -> Any:
        attack = label_distribution.build(label_distribution.Config(**options))
        return attack.label_shares(view, victims, self.lent)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scene(loaded: LoraModel) -> Scene:
    local, initial = LocalSpec.model_validate(LOCAL), loaded.initial_adapter(np.random.default_rng(3))
    uploads = []
    for number, held in enumerate(HELD):
        own, _ = texts(loaded, held, seed=10 + number)
        change = simulate(loaded, initial, own, local, 32, np.random.default_rng(number))
        uploads.append((initial + change).astype(np.float32))
    return Scene(initial, tuple(uploads), Lent(loaded, *texts(loaded, (16, 16, 16), seed=1)))


def true(number: int) -> NDArray[np.float64]:
    return np.array(HELD[number]) / sum(HELD[number])


def test_one_sided_silos_are_found_in_their_uploads(scene: Scene) -> None:
    """Planted: most of a silo's records have one label, which their texts do not tell."""
    found = scene.ask(scene.view("upload"), steps=100)
    assert found.reads == tuple(f"upload of {name}, round 0" for name in SILOS)
    grades = [_grades(shares, true(k)) for k, shares in enumerate(found.shares)]
    assert min(g["similarity"] for g in grades[:2]) > 0.85, grades
    assert [g["majority"] for g in grades[:2]] == [1.0, 1.0]
    assert grades[2]["similarity"] > 0.6
    # scored against shares that have nothing to do with what was trained on, it is wrong
    assert _grades(found.shares[0], true(1))["similarity"] < 0.35
    assert _grades(found.shares[1], true(0))["similarity"] < 0.35


def test_silos_are_answered_in_any_order_and_simulations_are_shared(scene: Scene) -> None:
    view, made = scene.view("upload"), scene.lent.made
    made.clear()
    one = scene.ask(view, steps=3)
    assert sum(key[1] != "before" for key in made) == 1  # type: ignore[index]
    other = scene.ask(view, SILOS[::-1], steps=3)
    assert len(made) == 2
    np.testing.assert_allclose(other.shares[::-1], one.shares, atol=1e-6)
    assert scene.ask(view, SILOS[1:2], steps=3).shares[0] == pytest.approx(one.shares[1], abs=1e-6)


def test_a_silo_s_training_is_simulated_on_as_many_records_as_it_has(scene: Scene) -> None:
    made = scene.lent.made
    made.clear()
    sizes = dict(zip(SILOS, (16, 4, 4), strict=True))
    scene.ask(replace(scene.view("upload"), sizes=sizes), steps=3)
    assert sorted(key[4] for key in made if key[1] != "before") == [4, 16]  # type: ignore[index]


def trained_on(scene: Scene, label: int, at: Flat) -> tuple[Flat, NDArray[np.float64]]:
    """What the attack's own simulation of ``label`` gives from ``at``, and the shares that it is trained on."""
    known, rng = Known.of(scene.lent), np.random.default_rng([0, label])
    assert known is not None
    rows = known.mixture(label, 0.75, 16, rng)
    own, local = known.taught.take(rng.permutation(rows)), LocalSpec.model_validate(LOCAL)
    change = simulate(scene.lent.model, at, own, local, 3, rng)
    return (at + change).astype(np.float32), np.bincount(known.taught_labels[rows], minlength=3) / 16


def test_whoever_trained_as_a_simulation_has_its_shares(scene: Scene) -> None:
    """Each from a start of its own, and the later of two uploads is not what is compared."""
    starts = (scene.initial, scene.uploads[2])
    made = [trained_on(scene, label, at) for label, at in ((2, starts[0]), (0, starts[1]))]
    found = [
        Reading("upload", frozenset({name}), adapter, at, round=1)
        for name, at, (adapter, _) in zip(SILOS, starts, made, strict=False)
    ]
    found.append(Reading("upload", frozenset(SILOS[:1]), scene.uploads[1], scene.initial, round=2))
    scene.lent.made.clear()
    shares = scene.ask(View(tuple(found), SPEC), SILOS[:2], steps=3).shares
    for at in starts:  # both what stands before and the simulations are of one start
        assert sum(adapter_handle(at) in key for key in scene.lent.made) == 2  # type: ignore[operator]
    for got, (_, expected) in zip(shares, made, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_without_uploads_the_first_global_change_counts_for_all(scene: Scene) -> None:
    found = scene.ask(scene.view("adapter"), steps=3)
    assert found.reads == ("adapter after round 0",)
    np.testing.assert_array_equal(found.shares[0], found.shares[1])


@pytest.mark.parametrize(
    ("method", "partition", "simulates"),
    [("auto", "iid", False), ("auto", "field", True), ("auto", "dirichlet", True), ("simulated", "iid", True),
     ("expected", "dirichlet", False)],
)  # fmt: skip
def test_it_simulates_where_silos_may_differ(scene: Scene, method: str, partition: str, simulates: bool) -> None:
    view = scene.view("upload")
    divided = replace(view, spec=SPEC | {"federation": {"local": LOCAL, "partition": partition}})
    scene.lent.made.clear()
    found = scene.ask(divided, SILOS[:1], method=method, steps=3)
    assert bool(scene.lent.made) == simulates
    expected = label_distribution.expected(scene.lent, view.readings[0])  # type: ignore[arg-type]
    assert np.allclose(found.shares[0], expected, atol=1e-6) != simulates


@pytest.mark.parametrize("case", ["query", "one adapter", "rounds apart", "nothing moved"])
def test_without_a_change_of_one_round_it_is_what_the_model_expects(scene: Scene, case: str) -> None:
    at = scene.uploads[0]
    reading = Reading(
        "query" if case == "query" else "adapter", frozenset(SILOS), at, round=0 if case == "one adapter" else 2
    )
    view = View((reading,), SPEC, scene.initial if case == "rounds apart" else None)
    if case == "nothing moved":
        reading = Reading("upload", frozenset(SILOS[:1]), scene.initial, scene.initial)
        view = View((reading,), SPEC)
    expected = label_distribution.expected(scene.lent, reading)  # type: ignore[arg-type]
    np.testing.assert_allclose(scene.ask(view, SILOS[:1]).shares[0], expected, atol=1e-6)


def test_nothing_opened_is_no_answer(scene: Scene) -> None:
    assert scene.ask(View((), SPEC)).shares == (None,) * 3


def test_what_is_no_number_is_refused() -> None:
    good = np.ones((1, 3))
    for changes, observed in ((good * np.nan, good[0]), (good, good[0] * np.inf)):
        with pytest.raises(SiloBenchError, match="did not converge"):
            convex(changes, observed)
    assert convex(good, -good[0]) is None


def test_records_to_train_on_and_to_ask_about_are_apart_and_of_every_label(scene: Scene) -> None:
    known = Known.of(scene.lent)
    assert known is not None
    rows = [{tuple(row) for row in part.ids.tolist()} for part in (known.taught, known.asked)]
    whole = {tuple(row) for row in scene.lent.population.ids[:, : known.taught.ids.shape[1]].tolist()}
    assert len(rows[0] & rows[1]) <= 48 - len(whole)  # but for texts that stand there twice
    assert np.bincount(known.taught_labels).tolist() == [8, 8, 8]
    assert known.shares == pytest.approx([1 / 3] * 3)
    np.testing.assert_array_equal(
        known.words[known.taught_labels], known.taught.ids[np.arange(24), known.taught.answer]
    )


@pytest.mark.parametrize(("held", "some"), [((5, 1, 0), False), ((1, 1, 1), False), ((2, 2, 0), True)])
def test_two_labels_need_two_records_each(loaded: LoraModel, held: tuple[int, ...], some: bool) -> None:
    lent = Lent(loaded, *texts(loaded, held, seed=2))
    assert (Known.of(lent) is not None) == some


def test_a_mixture_has_the_shares_that_it_is_asked_for(scene: Scene) -> None:
    known = Known.of(scene.lent)
    assert known is not None
    rng = np.random.default_rng(0)
    for label, lean, expected in ((0, 0.75, [20, 2, 2]), (2, 0.5, [4, 4, 16]), (1, 1.0, [0, 24, 0])):
        rows = known.mixture(label, lean, 24, rng)
        assert np.bincount(known.taught_labels[rows], minlength=3).tolist() == expected
    assert len(set(known.mixture(1, 1.0, 8, rng).tolist())) == 8
    drawn = {tuple(sorted(known.mixture(1, 1.0, 4, rng).tolist())) for _ in range(20)}
    assert len(drawn) > 1  # of 70: the same 20 times once in 10^35


def test_pricing_gives_the_model_back_as_it_was(scene: Scene) -> None:
    known, model = Known.of(scene.lent), scene.lent.model
    assert known is not None
    model.set_adapter(scene.uploads[1])
    label_distribution._chances(model, scene.uploads[0], known.asked, known.words.tolist())
    np.testing.assert_array_equal(model.get_adapter(), scene.uploads[1])


@given(
    seed=st.integers(0, 10**6),
    weights=st.lists(st.sampled_from([0.0, 0.2, 1.0, 3.0]), min_size=2, max_size=5).filter(any),
)
def test_weights_of_a_sum_are_found_whatever_its_length(seed: int, weights: list[float]) -> None:
    changes = np.random.default_rng(seed).normal(size=(len(weights), 40))
    found = convex(changes, np.array(weights) @ changes)
    np.testing.assert_allclose(found, np.array(weights) / sum(weights), atol=1e-8)  # type: ignore[arg-type]


@given(st.integers(0, 10**6))
def test_weights_are_the_best_of_a_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    changes, observed = rng.normal(size=(3, 6)), rng.normal(size=6)
    found = convex(changes, observed)
    grid = [np.array(w) for w in itertools.product(np.linspace(0, 2, 11), repeat=3)]
    best = min(float(np.sum((w @ changes - observed) ** 2)) for w in grid)
    if found is None:
        assert best == pytest.approx(float(observed @ observed))
        return
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    scale = max(0.0, float(observed @ (found @ changes))) / float((found @ changes) @ (found @ changes))
    assert np.sum((scale * (found @ changes) - observed) ** 2) <= best + 1e-9


def test_noise_has_no_favourite_label_within_one_in_a_million() -> None:
    rng = np.random.default_rng(7)
    changes = rng.normal(size=(3, 30))
    changes /= np.linalg.norm(changes, axis=1, keepdims=True)
    changes = np.linalg.qr(changes.T)[0].T  # of equal length, and none nearer to another
    found = [convex(changes, rng.normal(size=30)) for _ in range(3000)]
    named = np.bincount([int(np.argmax(w)) for w in found if w is not None], minlength=3)
    assert (np.abs(named - named.sum() / 3) < 4.9 * np.sqrt(2 / 9 * named.sum())).all()


class Expecting:
    """A model that expects label k at a record's answer with probability ``chances[record, k]``, whatever stands there.
    Records are told by their first token; the token of label k is 900 + k."""

    def __init__(self, chances: np.ndarray, population: Tokens, labels: np.ndarray) -> None:
        self.chances, self.population, self.population_labels = chances, population, labels
        self.labels = ("a", "b", "c")

    word_logp = attack_interface.Tools.word_logp

    def token_stats(self, source: object, asked: Tokens) -> TokenStats:
        assert (asked.predicted.sum(axis=1) == 1).all()
        assert (asked.lengths == asked.answer + 1).all()
        logp = np.zeros(asked.ids.shape, np.float32)
        for row, at in enumerate(asked.answer):
            logp[row, at] = np.log(0.5 * self.chances[asked.ids[row, 0], asked.ids[row, at] - 900])
        return TokenStats(logp, asked.predicted, None, None)


def answered(labels: np.ndarray) -> Tokens:
    """Records of 5 tokens, the label at the fourth."""
    n = len(labels)
    ids = np.column_stack([np.arange(n), np.full((n, 2), 7), 900 + labels, np.full(n, 8)]).astype(np.int32)
    return Tokens(ids, np.full(n, 5, np.int32), np.ones((n, 5), bool), np.full(n, 3, np.int32))


def test_expected_shares_are_the_mean_over_the_population() -> None:
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    chances = np.random.default_rng(0).dirichlet([1, 1, 1], 10)
    tools = Expecting(chances, answered(labels), labels)
    found = label_distribution.expected(tools, None)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, chances.mean(axis=0), atol=1e-6)


def test_a_label_that_nobody_in_the_population_has_is_expected_nowhere() -> None:
    labels = np.array([0, 0, 1])
    chances = np.array([[0.2, 0.6, 0.2], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    tools = Expecting(chances, answered(labels), labels)
    words, shared = label_distribution.label_tokens(tools.population, labels, 3)
    assert shared == 0
    assert words.tolist() == [900, 901, -1]
    shares = label_distribution.expected(tools, None)  # type: ignore[arg-type]
    first = np.mean([0.25, 2 / 3, 0.5])
    np.testing.assert_allclose(shares, [first, 1 - first, 0], atol=1e-6)
    none = answered(labels)
    none.answer[:] = -1
    silent = Expecting(chances, none, labels)
    np.testing.assert_allclose(label_distribution.expected(silent, None), np.full(3, 1 / 3))  # type: ignore[arg-type]


def test_grades_of_label_shares() -> None:
    truth = np.array([0.5, 0.25, 0.25])
    assert _grades(truth, truth) == {"similarity": 1.0, "majority": 1.0}
    assert _grades(np.array([0.0, 0.5, 0.5]), truth) == {"similarity": 0.5, "majority": 0.0}
    assert _grades(np.array([0.4, 0.4, 0.2]), truth)["majority"] == 0.5
