"""Sums with and without a silo's part: what they tell, what they don't, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from attacks import contrast, difference
from attacks.contrast import Design
from bench.attack.attack import Candidates, Guesses, Tools
from bench.core.tokens import Tokens, TokenStats
from bench.core.update import Array, Layout
from bench.defense.public import Public, alike
from bench.stats import auc, null_margin
from bench.view.view import Reading, View

N, LENGTH, POPULATION = 300, 6, 80
SILOS = ("silo-0", "silo-1", "silo-2")
PAIRS = (("silo-0", "silo-1"), ("silo-1", "silo-2"), ("silo-0", "silo-2"))
SIZE = 400
LAYOUT = Layout(("q.lora_A", "q.lora_B"), ((1, SIZE // 2), (SIZE // 2, 1)))


# -- the arithmetic ----------------------------------------------------------------------------------------------------


def design(victim: Sequence[float], others: Sequence[float]) -> Design:
    return Design(np.array(victim, float), np.array(others, float))


def test_the_contrast_of_single_rounds_is_a_difference_of_means() -> None:
    """Two rounds with a half share, two without: (mean(3, 5) - mean(1, 2)) / (1/2) = 5."""
    drops = np.array([[3.0], [1.0], [5.0], [2.0]])
    some = design([0.5, 0, 0.5, 0], [0.5, 1, 0.5, 1])
    assert some.contrast(drops) == pytest.approx([5.0])
    assert some.drop(drops) == pytest.approx([4.0])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8),
    st.floats(-3, 3),
    st.floats(-3, 3),
)
def test_effects_that_add_up_are_found_exactly(shares: list[tuple[int, int]], a: float, b: float) -> None:
    victim, others = np.array(shares, float).T
    some = Design(victim, others)
    distinct = {s for s in shares if s != (0, 0)}
    parallel = all(p * y == q * x for p, q in distinct for x, y in distinct)
    assert some.contrasting is not parallel
    if not parallel:
        assert some.contrast((a * victim + b * others)[:, None]) == pytest.approx([a - b], abs=1e-8)
    else:
        with pytest.raises(ValueError, match="same share"):
            some.contrast(np.zeros((len(shares), 1)))


def test_an_adjustment_is_the_residual_of_the_populations_regression() -> None:
    """Against an independent formula: partial residuals through the normal equations."""
    rng = np.random.default_rng(0)
    drops, base = rng.normal(size=(3, 7)), rng.normal(size=7)
    others, others_base = rng.normal(size=(3, 50)), rng.normal(size=50)
    found = contrast.adjusted(drops, base, others, others_base, design([0.25, 0, 1], [0.75, 1, 0]))
    x = np.stack([np.ones(50), others_base, others[1]]).T
    z = np.stack([np.ones(7), base, drops[1]]).T
    expected = np.zeros(7)
    for k, share in ((0, 0.25), (2, 1.0)):
        beta = np.linalg.solve(x.T @ x, x.T @ others[k])
        sd = np.sqrt(np.square(others[k] - x @ beta).sum() / 47)
        expected += share * (drops[k] - z @ beta) / sd
    np.testing.assert_allclose(found, expected / np.sqrt(0.25**2 + 1), rtol=1e-9)


def test_few_population_records_take_the_mean_of_the_other_drops_or_none() -> None:
    rng = np.random.default_rng(0)
    drops, base = rng.normal(size=(4, 7)), rng.normal(size=7)
    some = design([1, 0, 0, 0], [0, 1, 1, 1])
    others, others_base = rng.normal(size=(4, contrast.LEAST)), rng.normal(size=contrast.LEAST)
    found = contrast.adjusted(drops, base, others, others_base, some)
    mean = np.stack([drops[0], drops[1:].mean(0)]), np.stack([others[0], others[1:].mean(0)])
    once = contrast.adjusted(mean[0], base, mean[1], others_base, design([1, 0], [0, 1]))
    np.testing.assert_allclose(found, once)
    with pytest.raises(ValueError, match="population"):
        contrast.adjusted(drops, base, others[:, 1:], others_base[1:], some)


# -- a federation whose losses are known -------------------------------------------------------------------------------


@dataclass
class Losses(Tools):
    """A model that learns of every record a little in every round, and by ``gain`` more of a silo's members in a step
    that holds the silo's part alone (shared among those summed). Records are named by their first token; those from N
    on are the population."""

    member: np.ndarray
    silo: np.ndarray
    schedule: Sequence[Sequence[str]]
    gain: float

    def __post_init__(self) -> None:
        rng = np.random.default_rng(3)
        self.difficulty = rng.normal(4, 1, N + POPULATION)
        self.noise = rng.normal(0, 0.02, (len(self.schedule), N + POPULATION))
        self.population = tokens(range(N, N + POPULATION))
        self.population_texts = ("",) * POPULATION
        self.rng = rng
        self.calls = 0

    def token_stats(self, source: Reading | None, tokens: Tokens) -> TokenStats:
        self.calls += len(tokens)
        rounds = [] if source is None else range(source.round + 1)
        losses = []
        for ids in tokens.ids:
            name = int(ids[0])
            loss = self.difficulty[name]
            for r in rounds:
                summed = source.silos if source and source.kind == "upload" and r == source.round else self.schedule[r]
                loss -= 0.15 * self.difficulty[name] + self.noise[r, name]
                if name < N and self.member[name] and self.silo[name] in summed:
                    loss -= self.gain / len(summed)
            losses.append(loss)
        logp = -np.array(losses, np.float32)[:, None] * tokens.predicted
        return TokenStats(logp.astype(np.float32), tokens.predicted)


def tokens(names: Sequence[int] | range) -> Tokens:
    ids = np.tile(np.array(names, dtype=np.int32)[:, None], (1, LENGTH))
    predicted = np.ones(ids.shape, dtype=bool)
    predicted[:, 0] = False
    return Tokens(ids, np.full(len(ids), LENGTH, np.int32), predicted, np.full(len(ids), -1, np.int32))


def candidates_of(silo: np.ndarray, order: np.ndarray | None = None, mark: str = "c") -> Candidates:
    order = np.arange(N) if order is None else order
    names = tuple(f"{mark}{k}" for k in range(len(order)))
    return Candidates(names, tuple(silo[order]), tuple(f"record {i}" for i in order), tokens(list(order)))


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = np.zeros(N, dtype=bool)
    member[rng.permutation(N)[: N // 2]] = True
    return member, rng.choice(SILOS, N)


def view_of(
    readings: Sequence[Reading],
    schedule: Sequence[Sequence[str]],
    *,
    coalition: Sequence[str] = (),
    spec: dict[str, Any] | None = None,
    initial: bool = True,
    silos: Sequence[str] = SILOS,
) -> View:
    public = Public(alike(LAYOUT), tuple(silos), dict.fromkeys(silos, 5), len(schedule), tuple(map(tuple, schedule)))
    victims = tuple(s for s in silos if s not in coalition)
    start = Path("initial.safetensors") if initial else None
    return View("test", frozenset(coalition), victims, public, spec or {}, tuple(readings), (), Path("nowhere"), start)


def adapters(rounds: Sequence[int], kind: str = "adapter") -> list[Reading]:
    return [Reading(kind, r, frozenset(), "test", handle=f"a{r}") for r in rounds]  # type: ignore[arg-type]


def linear(kind: str, round: int, *silos: str) -> Reading:
    terms = tuple((round, s, 1) for s in silos)
    return Reading(kind, round, frozenset(silos), "test", terms, handle=f"u{round}{silos}" * (kind == "upload"))  # type: ignore[arg-type]


def sums_of(schedule: Sequence[Sequence[str]]) -> list[Reading]:
    return [linear("sum" if len(silos) > 1 else "upload", r, *silos) for r, silos in enumerate(schedule)]


def infer(view: View, candidates: Candidates, tools: Tools, **config: Any) -> Guesses:
    return difference.build(difference.Config(**config)).infer(view, candidates, tools)


def found(guesses: Guesses, name: str, member: np.ndarray) -> float:
    value = auc(guesses.scores[name], member).value
    assert value is not None
    return value


def setting(gain: float, schedule: Sequence[Sequence[str]] = PAIRS) -> tuple[View, Candidates, np.ndarray, Losses]:
    member, silo = drawn()
    view = view_of([*adapters(range(len(schedule))), *sums_of(schedule)], schedule)
    return view, candidates_of(silo), member, Losses(member, silo, schedule, gain)


def test_a_planted_leak_is_found_by_contrast_where_the_drop_is_blind() -> None:
    view, candidates, member, tools = setting(0.3)
    guesses = infer(view, candidates, tools)
    assert set(guesses.scores) == {"drop", "contrast", "adjusted"}
    assert found(guesses, "contrast", member) > 0.95
    assert found(guesses, "adjusted", member) > 0.95
    assert found(guesses, "drop", member) < 0.9, "records differ in what all rounds teach of them"
    assert guesses.missing == {}
    assert guesses.reads == (
        "silo-0: models after rounds 0, 1, 2, its part in the sums of rounds 0, 2",
        "silo-1: models after rounds 0, 1, 2, its part in the sums of rounds 0, 1",
        "silo-2: models after rounds 0, 1, 2, its part in the sums of rounds 1, 2",
    )


def test_without_a_leak_it_knows_nothing() -> None:
    view, candidates, member, tools = setting(0.0)
    for name, values in infer(view, candidates, tools).scores.items():
        assert abs(found(Guesses({name: values}, ()), name, member) - 0.5) < null_margin(member, p=1e-6 / 3), name


def test_the_wrong_schedule_hides_the_leak() -> None:
    """Each silo's part where it was not: the contrast is turned round, so that the tests above can fail."""
    _, candidates, member, tools = setting(0.3)
    turned = (("silo-2",), ("silo-0",), ("silo-1",))
    view = view_of(adapters(range(3)), turned, initial=False)
    assert found(infer(view, candidates, tools), "contrast", member) < 0.1


def test_order_and_ids_do_not_matter() -> None:
    view, candidates, _, tools = setting(0.3)
    order = np.random.default_rng(5).permutation(N)
    shuffled = candidates_of(np.array(candidates.silos), order, "other-")
    first, second = infer(view, candidates, tools).scores, infer(view, shuffled, tools).scores
    for name in first:
        np.testing.assert_allclose(first[name][order], second[name], rtol=0, atol=1e-9)


def test_full_participation_leaves_the_contrast_empty_and_says_so() -> None:
    view, candidates, member, tools = setting(0.6, (SILOS,) * 3)
    guesses = infer(view, candidates, tools)
    assert set(guesses.scores) == {"drop", "adjusted"}
    assert guesses.missing == {f"contrast of {s}": "its share is the same in all that is read" for s in SILOS}
    assert found(guesses, "adjusted", member) > 0.95, "what the difficulty does not explain"


def test_a_silo_that_sits_out_no_round_keeps_its_drop_beside_others_contrasts() -> None:
    schedule = (("silo-0", "silo-1"), ("silo-0", "silo-2"), ("silo-0", "silo-1"))
    view, candidates, _, tools = setting(0.3, schedule)
    guesses = infer(view, candidates, tools)
    kept = np.array(candidates.silos) == "silo-0"
    assert (guesses.scores["contrast"] == guesses.scores["drop"])[kept].all()
    assert not (guesses.scores["contrast"] == guesses.scores["drop"])[~kept].any()
    assert guesses.missing == {"contrast of silo-0": "its share is the same in all that is read; its drop stands in"}


def test_shares_that_change_are_a_contrast_too() -> None:
    """In round 1 silo-2 is away: the others' shares rise from a third to a half."""
    schedule = (SILOS, ("silo-0", "silo-1"), SILOS)
    view, candidates, member, tools = setting(3.0, schedule)
    guesses = infer(view, candidates, tools)
    assert guesses.missing == {}
    assert found(guesses, "contrast", member) > 0.95


def test_only_the_last_model_leaves_the_drop() -> None:
    _, candidates, _, tools = setting(0.3)
    view = view_of(adapters([2]), PAIRS, initial=False)
    guesses = infer(view, candidates, tools)
    assert (guesses.scores["contrast"] == guesses.scores["drop"]).all()
    assert guesses.reads[0] == "silo-0: models after round 2, its part in the sums of rounds 0, 2"
    assert set(guesses.missing) == {f"contrast of {s}" for s in SILOS}


def test_released_models_behind_an_interface_serve_as_well() -> None:
    _, candidates, member, tools = setting(0.3)
    guesses = infer(view_of(adapters(range(3), "query"), PAIRS, initial=False), candidates, tools)
    assert found(guesses, "contrast", member) > 0.95
    assert guesses.reads[0].startswith("silo-0: queries after rounds 0, 1, 2")


def test_what_sums_leave_alone_is_a_step_of_its_own() -> None:
    view, candidates, member, tools = setting(0.3, (SILOS,) * 2)
    uploads = [linear("upload", r, s) for r in range(2) for s in SILOS]
    guesses = infer(replace(view, readings=(*adapters(range(2)), *uploads)), candidates, tools)
    assert found(guesses, "contrast", member) > 0.95
    assert guesses.reads[0].endswith("alone in rounds 0, 1")
    assert guesses.missing == {}


def test_a_small_population_leaves_no_adjustment_and_costs_nothing() -> None:
    view, candidates, _, tools = setting(0.3)
    guesses = infer(view, candidates, tools, population=29)
    assert "adjusted" not in guesses.scores
    assert "fewer than 30" in guesses.missing["adjusted"]
    assert tools.calls == 4 * N


def test_every_record_is_asked_once_per_model() -> None:
    view, candidates, _, tools = setting(0.3)
    infer(view, candidates, tools, population=40)
    assert tools.calls <= 4 * (N + 3 * 40)


# -- who took part -----------------------------------------------------------------------------------------------------


def test_a_drop_out_shows_in_what_is_summed() -> None:
    """All three were to take part; silo-1's part is missing from round 1's sum."""
    schedule = (SILOS,) * 3
    readings = [*adapters(range(3)), *sums_of((SILOS, ("silo-0", "silo-2"), SILOS))]
    parts = difference.summed(view_of(readings, schedule))
    assert parts == [set(SILOS), {"silo-0", "silo-2"}, set(SILOS)]
    # a coalition with silo-0 sees the rest of each sum, and its own part is taken to be there
    readings = [*adapters(range(3)), linear("sum", 0, "silo-1", "silo-2"), linear("upload", 1, "silo-2")]
    parts = difference.summed(
        view_of([*readings, linear("sum", 2, "silo-1", "silo-2")], schedule, coalition=["silo-0"])
    )
    assert parts == [set(SILOS), {"silo-0", "silo-2"}, set(SILOS)]


def test_all_but_one_knows_its_victims_drop_out_by_what_is_not_left() -> None:
    readings = [*adapters(range(2)), linear("upload", 0, "silo-1")]
    view = view_of(readings, (SILOS,) * 2, coalition=["server", "silo-0", "silo-2"])
    assert difference.summed(view) == [set(SILOS), {"silo-0", "silo-2"}]


def test_without_both_adapters_the_schedule_decides() -> None:
    """A broken channel that shows one silo's upload says nothing of who else was there."""
    view = view_of([*adapters([1]), linear("upload", 0, "silo-0")], PAIRS[:2])
    assert difference.summed(view) == [set(PAIRS[0]), set(PAIRS[1])]


def test_the_names_of_scores_depend_on_public_things() -> None:
    """All coalitions of an adversary must give the same scores, whether or not one of them saw the drop-out."""
    member, silo = drawn()
    tools = Losses(member, silo, (SILOS,) * 2, 0.3)
    spec = {"federation": {"dropouts": [{"round": 1, "silo": 1, "stage": "train"}]}}
    view = view_of([*adapters(range(2)), *sums_of((SILOS,) * 2)], (SILOS,) * 2, spec=spec)
    assert "contrast" in infer(view, candidates_of(silo), tools).scores


# -- differences of updates --------------------------------------------------------------------------------------------


class Gradients(Losses):
    """Every record has a direction of its own; ``record_gradients`` gives its negative, since training goes against
    gradients."""

    def direction(self, name: int) -> Array:
        return np.random.default_rng((9, name)).standard_normal(SIZE).astype(np.float32)

    def record_gradients(self, at: Array | None, tokens: Tokens) -> Iterator[Array]:
        assert at is not None, "at an adapter of zeros all gradients are zero"
        return (-self.direction(int(ids[0])) for ids in tokens.ids)


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., tuple[View, Candidates, np.ndarray, Gradients]]:
    """A view that holds nothing but differences to silo-0's part (the first silo's, in each of 3 rounds)."""

    def make(gain: float, members: int = 40) -> tuple[View, Candidates, np.ndarray, Gradients]:
        _, silo = drawn()
        member = np.zeros(N, dtype=bool)
        for name in SILOS:
            member[np.flatnonzero(silo == name)[:members]] = True
        tools = Gradients(member, silo, (SILOS,) * 3, 0.0)
        rng, readings = np.random.default_rng(1), []
        for r in range(3):
            parts = {
                s: gain * sum(tools.direction(int(i)) for i in np.flatnonzero(member & (silo == s)))
                + rng.standard_normal(SIZE)
                for s in SILOS
            }
            for s in SILOS[1:]:
                path = tmp_path / f"{r}-{s}.safetensors"
                save_file({"values": (parts[s] - parts["silo-0"]).astype(np.float32)}, path)
                terms = ((r, "silo-0", -1), (r, s, 1))
                readings.append(Reading("difference", r, frozenset({"silo-0", s}), "test", terms, path=path))
        start = tmp_path / "start.safetensors"
        save_file({"adapter": np.ones(SIZE, np.float32)}, start)
        view = replace(view_of(readings, (SILOS,) * 3), initial_path=start)
        return view, candidates_of(silo), member, tools

    return make


Told = Callable[..., tuple[View, Candidates, np.ndarray, Gradients]]


def test_a_difference_of_two_parts_tells_members_of_both(told: Told) -> None:
    view, candidates, member, tools = told(1.0, members=12)
    guesses = infer(view, candidates, tools)
    assert set(guesses.scores) == {"projection"}
    silo = np.array(candidates.silos)
    for name in SILOS:
        assert found(Guesses({"p": guesses.scores["projection"][silo == name]}, ()), "p", member[silo == name]) > 0.95
    assert guesses.reads[0] == "difference -silo-0 of round 0 +silo-1 of round 0"


def test_a_difference_of_noise_tells_nothing(told: Told) -> None:
    view, candidates, member, tools = told(0.0)
    assert abs(found(infer(view, candidates, tools), "projection", member) - 0.5) < null_margin(member)


def test_differences_without_any_adapter_leave_nothing_to_project(told: Told) -> None:
    view, candidates, _, tools = told(1.0)
    guesses = infer(replace(view, initial_path=None), candidates, tools)
    assert not guesses.scores
    assert "no adapter" in guesses.missing["projection"]


def test_the_xor_of_two_plaintexts_is_no_combination() -> None:
    _, candidates, _, tools = setting(0.3)
    words = Reading("xor", 0, frozenset(SILOS[:2]), "xor", ((0, "silo-0", 1), (0, "silo-1", 1)))
    guesses = infer(view_of([words], PAIRS, initial=False), candidates, tools)
    assert not guesses.scores
    assert "xor" not in difference.Difference.needs
