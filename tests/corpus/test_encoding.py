"""Records to tokens: what is cut, what carries loss, where the answer stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.corpus.encoding import encode_records, label_rows
from bench.corpus.task import Record

PREFIX = "=>"


def by_letter(texts: Sequence[str]) -> list[list[int]]:
    """A tokenizer of one token per character."""
    return [[ord(letter) for letter in text] for text in texts]


def by_pair(texts: Sequence[str]) -> list[list[int]]:
    """A tokenizer that merges two characters into one token, so that pieces joined would be cut elsewhere."""
    return [[hash_pair(text[i : i + 2]) for i in range(0, len(text), 2)] for text in texts]


def hash_pair(pair: str) -> int:
    return ord(pair[0]) * 1000 + (ord(pair[1]) if len(pair) == 2 else 0)


def test_by_hand() -> None:
    tokens = encode_records(
        by_letter, [Record("1", "abcdef", prompt="PQ", answer="=>yes"), Record("2", "xy")], 10, PREFIX
    )
    assert tokens.lengths.tolist() == [10, 2]
    assert "".join(map(chr, tokens.ids[0])) == "PQabc=>yes"
    assert "".join(map(chr, tokens.ids[1, :2])) == "xy"
    assert tokens.ids[1, 2:].tolist() == [0] * 8
    assert np.flatnonzero(tokens.predicted[0]).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert np.flatnonzero(tokens.predicted[1]).tolist() == [1]
    assert tokens.answer.tolist() == [7, -1]
    assert tokens.ids.dtype == tokens.lengths.dtype == tokens.answer.dtype == np.int32


@given(
    st.lists(
        st.tuples(
            st.text("ab", max_size=9), st.text("abc", min_size=3, max_size=40), st.sampled_from(["", "=>no", "=>yes!"])
        )
    )
)
def test_whatever_the_pieces(parts: list[tuple[str, str, str]]) -> None:
    records = [Record(str(i), text, prompt, answer) for i, (prompt, text, answer) in enumerate(parts)]
    tokens = encode_records(by_pair, records, 12, PREFIX)
    for row, record in enumerate(records):
        n = tokens.lengths[row]
        ids = tokens.ids[row, :n].tolist()
        prompt, text, label = by_pair([record.prompt, record.text, record.answer.removeprefix(PREFIX)])
        tail = by_pair([PREFIX])[0] + label if record.answer else []
        assert 2 <= n <= 12
        assert ids[: len(prompt)] == prompt
        assert ids[n - len(tail) :] == tail
        kept = ids[len(prompt) : n - len(tail)]
        assert kept == text[: len(kept)]
        assert kept
        assert len(kept) == len(text) or n == 12
        assert tokens.predicted[row].sum() == n - max(1, len(prompt))
        assert not tokens.predicted[row, : max(1, len(prompt))].any()
        assert not tokens.predicted[row, n:].any()
        if record.answer:
            assert ids[tokens.answer[row] :] == label
            assert tokens.ends[row] == n - len(tail)
            assert ids[tokens.answer[row]] == label_rows(by_pair, [record.answer.removeprefix(PREFIX)])[0][0]
        else:
            assert tokens.answer[row] == -1
            assert tokens.ends[row] == n


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (
            Record("long", "t", prompt="p" * 9, answer="=>"),
            "Record 'long' does not fit: its prompt has 9 tokens and its",
        ),
        (Record("short", "t"), "Record 'short' has 1 token"),
        (Record("empty", ""), "Record 'empty' has 0 token"),
        (Record("prompt", "", prompt="pp"), "Record 'prompt' has 2 token.* none to predict"),
        (Record("odd", "text", answer="-> yes"), "answer of record 'odd' does not begin with .*'=>'"),
        (Record("half", "text \ud800"), "Record 'half' holds half a surrogate pair"),
    ],
)
def test_what_can_not_be_encoded_is_named(record: Record, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        encode_records(by_letter, [Record("fine", "fine"), record], 11, PREFIX)


def test_the_text_keeps_one_token_at_least() -> None:
    record = Record("1", "text", prompt="p" * 8, answer="=>")
    assert encode_records(by_letter, [record], 11, PREFIX).lengths.tolist() == [11]
    with pytest.raises(UsageError, match=r"pool\.max_tokens=10"):
        encode_records(by_letter, [record], 10, PREFIX)


def test_an_answer_without_a_prefix_starts_where_it_starts() -> None:
    tokens = encode_records(by_letter, [Record("1", "q", answer="reply"), Record("2", "none")], 20, "")
    assert tokens.answer.tolist() == [1, -1]


def test_labels_are_told_apart_by_all_their_tokens() -> None:
    assert label_rows(by_letter, ["ab", "ba"]) == (tuple(map(ord, "ab")), tuple(map(ord, "ba")))
    assert label_rows(by_letter, []) == ()
    assert len(label_rows(by_letter, ["1", "10", "1 star"])) == 3  # they begin alike, and are not the same
    with pytest.raises(UsageError, match="'ab' and 'ab' are the same tokens of this model"):
        label_rows(by_letter, ["ab", "x", "ab"])
    with pytest.raises(UsageError, match="'' has no token"):
        label_rows(by_letter, ["ab", ""])


def test_text_and_answer_share_the_predicted_tokens_out() -> None:
    tokens = encode_records(
        by_letter, [Record("1", "abc", prompt="q", answer="=>x"), Record("2", "text")], 20, "=>", [7]
    )
    assert tokens.of_text().tolist() == [
        [False, False, True, True, True, False, False, False],  # lead, q, abc, =>x
        [False, True, True, True, True, False, False, False],
    ]
    part = tokens.take([0])
    np.testing.assert_array_equal(part.of_text(), tokens.of_text()[:1])
    np.testing.assert_array_equal(tokens.without_lead().of_text()[0], [False, True, True, True, False, False, False])
