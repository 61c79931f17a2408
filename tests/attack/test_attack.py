"""The interface of attacks: what the harness lends by default, and what an attack that plays no game says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.attack.attack import Attack, Guesses, Reconstruction, Target, Tools, until
from bench.core.tokens import Tokens, TokenStats
from bench.spec.run import FederationSpec, PluginSpec, PoolSpec, RunSpec

TOKENS = Tokens(
    np.array([[1, 2, 3, 4], [5, 6, 7, 0], [8, 9, 0, 0]], np.int32),
    np.array([4, 3, 2], np.int32),
    np.array([[0, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 0]], bool),
    np.array([3, -1, 1], np.int32),
)


class Priced(Tools):
    """Prices a token by its id and by what stands before it; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Tokens] = []

    def token_stats(self, source: Any, tokens: Tokens) -> TokenStats:
        self.asked.append(tokens)
        before = np.concatenate([np.zeros((len(tokens), 1)), np.cumsum(tokens.ids, 1)[:, :-1]], 1)
        logp = -(tokens.ids + before / 1000 + (10 if source is None else 0))
        return TokenStats(np.where(tokens.predicted, logp, 0).astype(np.float32), tokens.predicted)


class Silent(Attack):
    """Plays no game."""

    game = "membership"
    needs = frozenset({"adapter"})


# -- records up to a position --------------------------------------------------------------------------------------


def test_a_record_up_to_a_position_is_predicted_there_alone() -> None:
    found = until(TOKENS, np.array([2, 1, 1]))
    np.testing.assert_array_equal(found.ids, [[1, 2, 3], [5, 6, 7], [8, 9, 0]])
    np.testing.assert_array_equal(found.lengths, [3, 2, 2])
    np.testing.assert_array_equal(found.predicted, [[0, 0, 1], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(found.answer, [2, 1, 1])
    assert (found.ids.dtype, found.lengths.dtype, found.answer.dtype) == (np.int32, np.int32, np.int32)


@given(st.lists(st.integers(1, 7), max_size=5))
def test_whatever_the_position_it_is_the_last_of_its_record(at: list[int]) -> None:
    n = len(at)
    whole = Tokens(
        np.arange(8 * n, dtype=np.int32).reshape(n, 8), np.full(n, 8, np.int32), np.ones((n, 8), bool), np.full(n, -1)
    )
    found = until(whole, np.array(at, np.int64))
    assert len(found) == n
    assert found.ids.shape == (n, max(at, default=1) + 1)
    np.testing.assert_array_equal(found.lengths, np.array(at) + 1)
    assert [list(np.flatnonzero(row)) for row in found.predicted] == [[position] for position in at]
    # the records themselves are left as they were
    assert whole.predicted.all()


# -- what is lent by default ---------------------------------------------------------------------------------------


def test_a_word_s_price_is_that_of_the_record_with_the_word_in_its_place() -> None:
    tools = Priced()
    found = tools.word_logp(None, TOKENS, np.array([2, 1, 1]), [30, 40])
    # word + what stands before it / 1000 + 10 for the base model
    np.testing.assert_allclose(found, -np.array([[40.003, 50.003], [40.005, 50.005], [40.008, 50.008]]), atol=1e-5)
    assert found.dtype == np.float64
    assert [int(asked.ids[0, 2]) for asked in tools.asked] == [30, 40]
    np.testing.assert_array_equal(TOKENS.ids[0], [1, 2, 3, 4])


def test_no_words_cost_nothing() -> None:
    tools = Priced()
    assert tools.word_logp(None, TOKENS, np.array([1, 1, 1]), []).shape == (3, 0)
    assert tools.asked == []


def test_without_a_memo_everything_is_made_whenever_it_is_asked_for() -> None:
    made = iter(range(3))
    assert [Priced().once("key", lambda: next(made)) for _ in range(3)] == [0, 1, 2]


def test_tools_that_run_no_adapter_say_whose_they_are() -> None:
    with pytest.raises(TypeError, match="Priced runs no adapter of an attack's own making"):
        Priced().stats_under(np.zeros(3, np.float32), TOKENS)


def test_nothing_is_lent_that_was_not_asked_for() -> None:
    tools = Priced()
    assert (tools.own, tools.shadows, tools.labels, len(tools.population_labels)) == (None, (), (), 0)


def test_tools_without_statistics_are_none() -> None:
    with pytest.raises(TypeError, match="token_stats"):
        Tools()  # type: ignore[abstract]


# -- an attack's defaults ------------------------------------------------------------------------------------------


def test_an_attack_only_looks_at_any_ordinary_run_as_everybody_unless_it_says_more() -> None:
    attack = Silent()
    assert attack.variant("server") is None
    assert attack.behaviour is None
    assert attack.only is None
    assert (attack.shadows, attack.openers, attack.adaptive, attack.knows) == (0, (), False, "candidates")
    assert (attack.turn, attack.ground) == (2, "fedavg")


def test_a_row_passes_every_candidate_forward_and_searches_nothing() -> None:
    spec = RunSpec(
        task=PluginSpec(name="t"),
        defense=(PluginSpec(name="d"),),
        pool=PoolSpec(candidates=7),
        federation=FederationSpec(silos=4),
    )
    assert Silent().work(spec) == 28
    assert Silent().budget(spec) == ""


def test_answers_that_say_nothing_more_are_complete() -> None:
    assert Guesses({"loss": np.zeros(2)}, ("adapter",)).missing == {}
    answer = Reconstruction(Target(0, "silo-0", 1, 1), np.zeros(4), np.zeros(0, np.int64), (), False)
    assert answer.reads == ""
