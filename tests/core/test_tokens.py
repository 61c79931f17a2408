"""Tokenised records as arrays: rows are taken with their padding trimmed, contents have a name, losses are means."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.tokens import Tokens, TokenStats

IDS = [[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [6, 7, 8, 9, 9]]


def tokens() -> Tokens:
    """Three records of 3, 2 and 5 tokens; the second names no label."""
    ids = np.array(IDS, dtype=np.int32)
    predicted = ids > 0
    predicted[:, 0] = False
    return Tokens(ids, np.array([3, 2, 5], np.int32), predicted, np.array([2, -1, 4], np.int32))


def test_padding_is_trimmed_to_the_longest_record_that_is_taken() -> None:
    two = tokens().take([1, 0])
    assert two.ids.tolist() == [[4, 5, 0], [1, 2, 3]]
    assert two.lengths.tolist() == [2, 3]
    assert two.predicted.tolist() == [[False, True, False], [False, True, True]]
    assert two.answer.tolist() == [-1, 2]
    assert (len(tokens()), len(two)) == (3, 2)


def test_a_record_may_be_taken_twice_and_none_at_all() -> None:
    assert tokens().take(np.array([1, 1])).ids.tolist() == [[4, 5], [4, 5]]
    nothing = tokens().take([])
    assert len(nothing) == 0
    assert nothing.ids.shape == nothing.predicted.shape == (0, 0)


@given(st.lists(st.integers(0, 2), max_size=5), st.data())
@settings(max_examples=30)
def test_taking_twice_is_taking_what_both_name(rows: list[int], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=4)) if rows else []
    assert tokens().take(rows).take(again).digest == tokens().take([rows[i] for i in again]).digest


def test_the_digest_by_hand() -> None:
    one = Tokens(np.array([[1, 2]], np.int32), np.array([2], np.int32), np.array([[False, True]]), np.array([-1], "i4"))
    raw = b"(1, 2)" + b"\1\0\0\0\2\0\0\0" + b"\2\0\0\0" + b"\0\1" + b"\xff" * 4
    assert one.digest == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("name", ["ids", "lengths", "predicted", "answer"])
def test_the_digest_follows_every_array(name: str) -> None:
    values = getattr(tokens(), name).copy()
    values.flat[-1] = not values.flat[-1] if values.dtype == bool else values.flat[-1] - 1
    assert replace(tokens(), **{name: values}).digest != tokens().digest


def test_the_digest_names_contents_and_not_how_they_lie_in_memory() -> None:
    turned = replace(tokens(), ids=np.asfortranarray(tokens().ids))
    assert not turned.ids.flags.c_contiguous
    assert turned.digest == tokens().digest
    # the same bytes as another number of records are other records
    flat = tokens()
    one_row = Tokens(flat.ids.reshape(1, -1), flat.lengths, flat.predicted.reshape(1, -1), flat.answer)
    assert one_row.digest != flat.digest


def test_a_record_s_loss_is_the_mean_over_its_predicted_tokens() -> None:
    logp = np.array([[9, -1, -3, 9], [9, -0.5, 9, 9]], np.float32)
    predicted = np.array([[False, True, True, False], [False, True, False, False]])
    losses = TokenStats(logp, predicted).losses()
    assert losses.dtype == np.float64
    assert losses.tolist() == [2.0, 0.5]


def test_what_is_not_predicted_counts_nothing_whatever_stands_there() -> None:
    logp = np.array([[np.nan, -2], [np.inf, -np.inf]], np.float32)
    predicted = np.array([[False, True], [False, False]])
    assert TokenStats(logp, predicted).losses().tolist() == [2.0, 0.0]


def test_losses_are_summed_in_double_precision() -> None:
    # 2^24 + 1 has no float32: summed in float32 the ones would be lost
    logp = np.array([[-(2.0**24), -1, -1, -1]], np.float32)
    assert TokenStats(logp, np.ones((1, 4), bool)).losses().tolist() == [(2**24 + 3) / 4]


def test_what_was_not_asked_for_is_none() -> None:
    stats = TokenStats(np.zeros((1, 1), np.float32), np.zeros((1, 1), bool))
    assert (stats.mean, stats.sd, stats.choices, stats.first) == (None, None, None, None)
