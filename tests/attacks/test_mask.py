"""What supports and sizes of messages tell of the records behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from attacks import mask, sparse, supports
from attacks.supports import Support
from bench.attack.attack import Candidates, Guesses, Tools
from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Array, Layout
from bench.defense.public import Public, alike
from bench.stats import auc, null_margin
from bench.view.openers.lengths import lengths_and_headers
from bench.view.view import Kind, Reading, View

SILOS = ("silo-0", "silo-1", "silo-2")
N, POPULATION, SIZE, MEMBERS = 120, 40, 3000, 20
LAYOUT = Layout(("q.lora_A", "q.lora_B"), ((2, 500), (500, 4)))
BOUNDS = LAYOUT.offsets


# -- the arithmetic ----------------------------------------------------------------------------------------------------


def test_zeros_are_what_is_not_sent() -> None:
    values = np.array([0.0, 3, 0, -1, 5, 6, 7, 8, 0, 0, 0, 0])
    found = supports.sent(values, (0, 4, 8, 12))
    assert found.told.tolist() == [True] * 4 + [False] * 8, "a dense tensor and an empty one tell nothing"
    assert np.flatnonzero(found.there).tolist() == [1, 3]


def test_zeros_that_opened_with_noise_are_found_by_the_gap() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1e-8, 1000)
    kept = rng.permutation(1000)[:300]
    values[kept] = rng.choice([-1, 1], 300) * rng.uniform(1e-3, 1e-1, 300)
    assert np.flatnonzero(supports.sent(values, (0, 1000)).there).tolist() == sorted(kept)
    assert supports.sent(rng.normal(0, 1e-2, 1000), (0, 1000)).empty, "dense values have no such gap"


def test_only_what_is_visible_counts() -> None:
    values = np.array([0.0, 1, 0, 2, 3, 4])
    visible = np.array([False, True, False, True, True, True])
    assert supports.sent(values, (0, 6), visible).empty


@given(st.lists(st.floats(0, width=32) | st.sampled_from([0.0, 1.0, 2.0]), max_size=50))
def test_magnitudes_are_put_in_ascending_order(values: list[float]) -> None:
    found = supports.ascending(np.array(values))
    assert found.tolist() == sorted(range(len(values)), key=lambda i: (values[i], i))


def test_savage_scores_by_hand() -> None:
    assert supports.savage(np.array([5.0, 1.0, 3.0])) == pytest.approx([1 / 3 + 1 / 2 + 1, 1 / 3, 1 / 3 + 1 / 2])
    assert supports.savage(np.ones(4)).tolist() == [1, 1, 1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_savage_scores_have_mean_one(values: list[float]) -> None:
    assert supports.savage(np.array(values)).mean() == pytest.approx(1)


def test_jaccard_and_lift_by_hand() -> None:
    """Two tensors of four, which send two and one; a third, of equal magnitudes, is left out."""
    there = np.array([1, 1, 0, 0, 1, 0, 0, 0, 1, 0], dtype=bool)
    support = Support(there, np.ones(10, dtype=bool))
    size = np.array([4.0, 1, 3, 2, 9, 1, 1, 2, 7, 7])
    # {0, 2} against {0, 1}: 1 of 3; {4} against {4}: 1 of 1
    assert supports.jaccard(size, support, (0, 4, 8, 10)) == 2 / 4
    assert supports.lift(size, support) == pytest.approx((4 + 1 + 9 + 7) / 4 - (3 + 2 + 1 + 1 + 2 + 7) / 6)


def test_largest_takes_a_share_of_each_tensor() -> None:
    found = supports.largest(np.array([1.0, -9, 2, 3, 0, 0]), 0.5, (0, 4, 6))
    assert np.flatnonzero(found.there).tolist() == [1, 3]
    assert found.told.tolist() == [True] * 4 + [False] * 2


def test_the_likelihood_ratio_against_the_normal_formula() -> None:
    """One tensor, no offset: X has mean -mu and deviation sd / sqrt(m); a member moves it by -(g - mu) / m."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    known, m = rng.normal(0.3, 1, (30, 60)).astype(np.float32), 4
    support = Support(np.arange(60) % 3 == 0, np.ones(60, dtype=bool))
    model = supports.chance(known, m, support, (0, 60))
    assert model is not None
    mu, sd = known.astype(float).mean(0), known.astype(float).std(0, ddof=1) / 2

    def larger(centre: np.ndarray) -> np.ndarray:
        return np.asarray(norm.sf(model.cut, centre, sd) + norm.cdf(-model.cut, centre, sd))

    assert larger(-mu).sum() == pytest.approx(20, abs=1e-6)
    g = rng.normal(0, 1, 60)
    p, q = larger(-mu - (g - mu) / m), larger(-mu)
    expected = np.log(np.where(support.there, p / q, (1 - p) / (1 - q))).sum()
    assert model.ratio(g) == pytest.approx(expected, rel=1e-6)
    assert model.ratio(mu) == pytest.approx(0, abs=1e-9), "the average record changes nothing"
    # a record of the population, held against the others: their mean takes the place of all records'
    other = mu + rng.normal(0, 0.1, 60)
    p, q = larger(-other - (g - other) / m), larger(-other)
    expected = np.log(np.where(support.there, p / q, (1 - p) / (1 - q))).sum()
    assert model.ratio(g, other) == pytest.approx(expected, rel=1e-6)


# -- silos that send what their members' gradients make largest --------------------------------------------------------


@dataclass
class Silos(Tools):
    """Each record has a gradient of its own, of coordinates that differ in size. ``upload`` is one step on a silo's
    members, sparsified."""

    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.scale = np.exp(rng.normal(0, 1, SIZE))
        self.common = self.scale * rng.normal(0, 0.3, SIZE)
        self.silo = np.repeat(SILOS, N // len(SILOS))
        self.member = np.zeros(N, dtype=bool)
        for name in SILOS:
            self.member[rng.permutation(np.flatnonzero(self.silo == name))[:MEMBERS]] = True
        self.population = tokens(range(N, N + POPULATION))
        self.population_texts = ("",) * POPULATION
        self.rng = rng

    def gradient(self, name: int) -> Array:
        rng = np.random.default_rng((self.seed, 17, name))
        return (self.common + self.scale * rng.standard_normal(SIZE)).astype(np.float32)

    def record_gradients(self, at: Array | None, tokens: Tokens) -> Iterator[Array]:
        assert at is not None, "at an adapter of zeros all gradients are zero"
        return (self.gradient(int(ids[0])) for ids in tokens.ids)

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        raise AssertionError("no forward pass is needed")

    def step(self, name: str, leak: bool = True) -> Array:
        """Minus the mean gradient of the silo's members; without a ``leak``, of records that nobody asks about."""
        rows = np.flatnonzero(self.member & (self.silo == name))
        rows = rows if leak else rows + 10_000
        return np.asarray(-np.mean([self.gradient(int(i)) for i in rows], axis=0), dtype=np.float32)


def tokens(names: Sequence[int] | range) -> Tokens:
    ids = np.tile(np.array(names, dtype=np.int32)[:, None], (1, 4))
    return Tokens(ids, np.full(len(ids), 4, np.int32), ids >= 0, np.full(len(ids), -1, np.int32))


def candidates_of(tools: Silos, order: np.ndarray | None = None, mark: str = "c") -> Candidates:
    order = np.arange(N) if order is None else order
    silos, texts = tuple(map(str, tools.silo[order])), ("",) * len(order)
    return Candidates(tuple(f"{mark}{k}" for k in range(len(order))), silos, texts, tokens(list(order)))


class Folder:
    """Views with these readings, all of round 0, which starts from ``start``."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        self.start = np.random.default_rng(8).normal(0, 0.5, SIZE).astype(np.float32)
        save_file({"adapter": self.start}, root / "start.safetensors")

    def reading(self, kind: Kind, silo: str, values: np.ndarray, how: str = "test", **more: np.ndarray) -> Reading:
        self.count += 1
        path = self.root / f"{self.count}.safetensors"
        save_file({"values": values, **more}, path)
        start = self.root / "start.safetensors"
        return Reading(kind, 0, frozenset({silo}), how, ((0, silo, 1),), f"h{self.count}", False, path, start)

    def view(self, readings: Sequence[Reading]) -> View:
        public = Public(alike(LAYOUT), SILOS, dict.fromkeys(SILOS, MEMBERS), 1, (SILOS,))
        start = self.root / "start.safetensors"
        return View("test", frozenset({"server"}), SILOS, public, {}, tuple(readings), (), self.root, start)

    def delta(self, silo: str, delta: np.ndarray) -> Reading:
        return self.reading("upload", silo, delta, adapter=self.start + delta)

    def weights(self, silo: str, adapter: np.ndarray) -> Reading:
        return self.reading("upload", silo, adapter, adapter=adapter)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def sparsified(values: np.ndarray, share: float) -> np.ndarray:
    return np.where(supports.largest(values, share, BOUNDS).there, values, np.float32(0)).astype(np.float32)


def infer(view: View, candidates: Candidates, tools: Tools, **config: Any) -> Guesses:
    return mask.build(mask.Config(**config)).infer(view, candidates, tools)


def found(guesses: Guesses, name: str, member: np.ndarray) -> float:
    value = auc(guesses.scores[name], member).value
    assert value is not None
    return value


def top_k(folder: Folder, tools: Silos, leak: bool = True) -> View:
    return folder.view([folder.delta(s, sparsified(tools.step(s, leak), 0.1)) for s in SILOS])


def test_the_support_of_top_k_gives_its_members_away(folder: Folder) -> None:
    tools = Silos()
    guesses = infer(top_k(folder, tools), candidates_of(tools), tools)
    assert set(guesses.scores) == {"jaccard", "lift", "likelihood"}
    assert found(guesses, "likelihood", tools.member) > 0.95
    assert found(guesses, "jaccard", tools.member) > 0.6
    assert found(guesses, "lift", tools.member) > 0.6
    assert guesses.reads == tuple(f"zeros of the upload of {s}, round 0" for s in SILOS)


def test_a_silo_that_trained_on_others_gives_nothing_away(folder: Folder) -> None:
    tools = Silos()
    guesses = infer(top_k(folder, tools, leak=False), candidates_of(tools), tools)
    for name in guesses.scores:
        assert abs(found(guesses, name, tools.member) - 0.5) < null_margin(tools.member, p=1e-6 / 3), name


def test_only_the_support_is_read_not_the_values(folder: Folder) -> None:
    """Values of other silos on the right support, and of other signs: the same scores."""
    tools = Silos()
    honest = infer(top_k(folder, tools), candidates_of(tools), tools)
    rng = np.random.default_rng(1)
    stripped = []
    for s in SILOS:
        there = sparsified(tools.step(s), 0.1) != 0
        stripped.append(folder.delta(s, np.where(there, rng.uniform(1, 2, SIZE), 0).astype(np.float32)))
    other = infer(folder.view(stripped), candidates_of(tools), tools)
    for name, values in honest.scores.items():
        np.testing.assert_allclose(other.scores[name], values)


def test_a_public_mask_tells_nothing(folder: Folder) -> None:
    """One mask for all silos, of public randomness; what is sent on it is each silo's own step."""
    tools = Silos()
    there = np.random.default_rng(6).random(SIZE) < 0.5
    readings = [folder.delta(s, np.where(there, tools.step(s), 0).astype(np.float32)) for s in SILOS]
    guesses = infer(folder.view(readings), candidates_of(tools), tools)
    for name in guesses.scores:
        assert abs(found(guesses, name, tools.member) - 0.5) < null_margin(tools.member, p=1e-6 / 3), name


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_pruned_weights_give_members_away(folder: Folder, noise: float) -> None:
    """Half of the silo's own weights, the smallest, are zero; or nearly, as CKKS opens them."""
    tools = Silos()
    rng = np.random.default_rng(2)
    readings = []
    for s in SILOS:
        kept = sparsified(folder.start + 0.3 * tools.step(s), 0.5)
        readings.append(folder.weights(s, (kept + rng.normal(0, noise, SIZE)).astype(np.float32)))
    guesses = infer(folder.view(readings), candidates_of(tools), tools)
    assert found(guesses, "likelihood", tools.member) > 0.95
    assert guesses.reads[0] == "pruned weights of the upload of silo-0, round 0"


def test_order_and_ids_do_not_matter(folder: Folder) -> None:
    tools = Silos()
    view, order = top_k(folder, tools), np.random.default_rng(5).permutation(N)
    first = infer(view, candidates_of(tools), tools).scores
    second = infer(view, candidates_of(tools, order, "other-"), tools).scores
    for name in first:
        np.testing.assert_allclose(first[name][order], second[name], rtol=1e-9, atol=1e-9)


def test_a_dense_update_has_no_support_to_tell(folder: Folder) -> None:
    tools = Silos()
    guesses = infer(folder.view([folder.delta(s, tools.step(s)) for s in SILOS]), candidates_of(tools), tools)
    assert not guesses.scores
    assert "neither" in guesses.missing["jaccard"]


def test_what_is_read_of_a_message_counts_and_what_is_kept_back_too(folder: Folder) -> None:
    """Half of the coordinates open, with zeros among them."""
    tools = Silos()
    where = np.flatnonzero(np.random.default_rng(3).random(SIZE) < 0.9).astype(np.int64)
    readings = []
    for s in SILOS:
        values = np.zeros(SIZE, np.float32)
        values[where] = sparsified(tools.step(s), 0.1)[where]
        readings.append(folder.reading("partial", s, values, support=where))
    guesses = infer(folder.view(readings), candidates_of(tools), tools)
    assert guesses.reads[0] == "zeros of what is read of the upload of silo-0, round 0"
    assert guesses.reads[1] == "coordinates that are kept back of silo-0, silo-1, silo-2, round 0"
    assert found(guesses, "likelihood", tools.member) > 0.9


def test_a_selective_mask_made_from_the_first_sum_is_a_support_of_it(folder: Folder) -> None:
    tools = Silos()
    total = np.sum([tools.step(s) for s in SILOS], axis=0)
    where = np.flatnonzero(~supports.largest(total, 0.2, BOUNDS).there).astype(np.int64)
    dense = np.zeros(SIZE, np.float32)
    dense[where] = 1
    guesses = infer(
        folder.view([folder.reading("partial", s, dense, support=where) for s in SILOS]), candidates_of(tools), tools
    )
    assert set(guesses.reads) == {"coordinates that are kept back of silo-0, silo-1, silo-2, round 0"}
    assert found(guesses, "likelihood", tools.member) > 0.75, "sixty records behind one support"


# -- sizes -------------------------------------------------------------------------------------------------------------


def lengths(folder: Folder, tools: Silos, leak: bool) -> View:
    """Thirty frames of equal parts, each as long as the log energy of the silo's step there; a fixed header before."""
    cuts = np.linspace(0, SIZE, 31).astype(int)
    readings = []
    for s in SILOS:
        step = tools.step(s, leak)
        frames = [64.0, *np.rint(1e6 * (20 + supports.profile(step, list(cuts))))]
        how = "the lengths of 'upload' depend on the update"
        readings.append(replace(folder.reading("metadata", s, np.array(frames), how), before_path=None))
    return folder.view(readings)


class Blocks(Silos):
    """Records of which each has its energy in frames of its own."""

    def gradient(self, name: int) -> Array:
        rng = np.random.default_rng((self.seed, 23, name))
        return np.repeat(np.exp(1.5 * rng.standard_normal(30)), SIZE // 30).astype(np.float32)


def test_lengths_that_follow_the_update_give_members_away(folder: Folder) -> None:
    tools = Blocks()
    tools.member[:] = False
    tools.member[[0, 40, 80]] = True  # one record per silo, so that the profile is its own
    view = lengths(folder, tools, leak=True)
    guesses = infer(view, candidates_of(tools), tools)
    assert set(guesses.scores) == {"size"}
    assert guesses.reads[0] == "lengths of messages of silo-0, 1 rounds, 30 frames"
    assert found(guesses, "size", tools.member) > 0.95


def test_lengths_of_other_records_tell_nothing(folder: Folder) -> None:
    tools = Blocks()
    guesses = infer(lengths(folder, tools, leak=False), candidates_of(tools), tools)
    assert abs(found(guesses, "size", tools.member) - 0.5) < null_margin(tools.member)


def test_the_harness_words_its_lengths_as_this_attack_reads_them() -> None:
    import inspect

    assert f'"{sparse._LENGTHS}' in inspect.getsource(lengths_and_headers)


def test_headers_alone_are_no_support(folder: Folder) -> None:
    tools = Silos()
    view = folder.view([folder.reading("metadata", "silo-0", np.ones(3), "3 header bytes depend on the update")])
    guesses = infer(view, candidates_of(tools), tools)
    assert not guesses.scores
    assert "neither" in guesses.missing["jaccard"]
