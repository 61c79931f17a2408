"""What attacks are lent: every record goes through a model once, however the questions are grouped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.assess.tools import Memo
from bench.core.tokens import Tokens, TokenStats
from tests.grounds import untrained


def records(count: int) -> Tokens:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, count).astype(np.int32)
    ids = np.zeros((count, int(lengths.max())), dtype=np.int32)
    for row, n in enumerate(lengths):
        ids[row, :n] = rng.integers(1, 1000, n)
    predicted = (np.arange(ids.shape[1]) < lengths[:, None]) & (np.arange(ids.shape[1]) > 0)
    return Tokens(ids, lengths, predicted, np.full(count, -1, np.int32))


def fake(tokens: Tokens) -> TokenStats:
    """Statistics that are a function of the token alone, so that a misplaced row would show."""
    logp = np.where(tokens.predicted, -tokens.ids / 7.0, 0.0).astype(np.float32)
    return TokenStats(logp, tokens.predicted, logp * 2, logp * 3, first=tokens.predicted & (tokens.ids % 2 == 0))


@given(st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=12), min_size=1, max_size=5))
def test_any_grouping_and_order_gives_the_same_rows_and_forwards_each_record_once(groups: list[list[int]]) -> None:
    memo, all_records = Memo(), records(12)
    for rows in groups:
        tokens = all_records.take(rows)
        found, expected = memo.stats("adapter", tokens, fake), fake(tokens)
        np.testing.assert_array_equal(found.logp, expected.logp)
        np.testing.assert_array_equal(found.mean, expected.mean)
        np.testing.assert_array_equal(found.sd, expected.sd)
        np.testing.assert_array_equal(found.first, expected.first)
    assert memo.forwarded == len({row for rows in groups for row in rows})


def test_adapters_are_kept_apart() -> None:
    memo, tokens = Memo(), records(3)
    first = memo.stats("a", tokens, fake)
    other = memo.stats("b", tokens, lambda t: replace(fake(t), logp=fake(t).logp + 1))
    assert memo.forwarded == 6
    assert not np.array_equal(first.logp, other.logp)


def test_the_same_tokens_predicted_elsewhere_are_another_question() -> None:
    memo, tokens = Memo(), records(1)
    memo.stats("a", tokens, fake)
    fewer = tokens.predicted.copy()
    fewer[:, 1] = False
    memo.stats("a", Tokens(tokens.ids, tokens.lengths, fewer, tokens.answer), fake)
    assert memo.forwarded == 2


def test_gradients_are_taken_once_for_all_who_share_a_memo() -> None:
    ground = untrained("membership")
    ids = sorted(ground.materials.pool.silos["silo-0"])[:6]
    tokens = ground.materials.tokens(ids)
    at = ground.view.last_adapter(ground.view.victims[0]).adapter  # type: ignore[union-attr]
    one = np.stack(list(ground.tools().record_gradients(at, tokens)))
    computed = ground.memo.gradients.computed
    again = np.stack(list(ground.tools().record_gradients(at, tokens.take([3, 1, 0]))))
    assert ground.memo.gradients.computed == computed == 6
    np.testing.assert_array_equal(again, one[[3, 1, 0]])


def test_gradients_are_taken_at_the_adapter_that_is_asked_about() -> None:
    from bench.model.gradients import record_gradients

    ground = untrained("membership")
    tokens = ground.materials.tokens(sorted(ground.materials.pool.silos["silo-0"])[:3])
    at = ground.view.last_adapter(ground.view.victims[0]).adapter  # type: ignore[union-attr]
    found = np.stack(list(ground.tools().record_gradients(at, tokens)))
    np.testing.assert_allclose(found, np.stack(list(record_gradients(ground.materials.model, at, tokens))), atol=1e-6)
    base = np.stack(list(ground.tools().record_gradients(None, tokens)))
    assert np.abs(found - base).max() > 1e-3


def test_a_gradient_pass_leaves_the_statistics_that_a_forward_pass_would_give() -> None:
    ground = untrained("membership")
    tokens = ground.materials.tokens(sorted(ground.materials.pool.silos["silo-0"])[:6])
    reading = ground.view.last_adapter(ground.view.victims[0])
    assert reading is not None
    apart, shared = replace(ground, memo=Memo()), replace(ground, memo=Memo())
    expected = apart.tools().token_stats(reading, tokens)
    list(shared.tools().record_gradients(reading.adapter, tokens))
    found = shared.tools().token_stats(reading, tokens)
    assert (apart.memo.forwarded, shared.memo.forwarded) == (6, 0)
    assert expected.mean is not None
    assert found.mean is not None
    np.testing.assert_allclose(found.logp, expected.logp, atol=1e-5)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)


def test_an_adapter_whose_b_is_zero_is_the_base_model_to_the_memo() -> None:
    ground = untrained("membership")
    tokens = ground.materials.tokens(sorted(ground.materials.pool.silos["silo-0"])[:3])
    start = ground.materials.model.initial_adapter(np.random.default_rng(0))
    base = ground.tools().token_stats(None, tokens)
    np.testing.assert_array_equal(ground.tools().stats_under(start, tokens).logp, base.logp)
    assert ground.memo.forwarded == 3
    moved = start.copy()
    moved[-1] = 1.0  # of a lora_B
    assert not np.array_equal(ground.tools().stats_under(moved, tokens).logp, base.logp)
    assert ground.memo.forwarded == 6


def test_what_is_computed_once_is_computed_once_for_each_key() -> None:
    ground = untrained("membership")
    made = []
    for key in ("a", "b", "a"):
        made.append(ground.tools().once(key, lambda key=key: made.append(key) or key))  # type: ignore[misc]
    assert made == ["a", "a", "b", "b", "a"]


def test_words_are_priced_by_one_pass_as_by_a_text_for_each() -> None:
    from bench.attack.attack import Tools

    ground = untrained("membership")
    tokens = ground.materials.tokens(sorted(ground.materials.pool.silos["silo-0"])[:4])
    reading = ground.view.last_adapter(ground.view.victims[0])
    at, words = np.array([1, 3, 2, 1]), [7, 9, 300]
    tools = ground.tools()
    found = tools.word_logp(reading, tokens, at, words)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found, Tools.word_logp(tools, reading, tokens, at, words), atol=1e-5)
    answered = replace(tokens, answer=tokens.lengths - 1)
    forwarded = ground.memo.forwarded
    last = tools.word_logp(reading, answered, answered.answer, words)
    np.testing.assert_allclose(last, Tools.word_logp(tools, reading, tokens, answered.answer, words), atol=1e-5)
    assert np.isfinite(tools.token_stats(reading, tokens).losses()).all()
    assert ground.memo.forwarded == forwarded + 12, "the three texts of each record; the records themselves are known"
