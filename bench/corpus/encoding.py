"""Records to tokens: how prompt, text and answer are tokenised, cut and marked. No torch.

The pieces are tokenised one by one and never across a boundary, without special tokens, so that where the answer
starts and which token names a label do not depend on the text before it. In front of them all stands what the model's
tokenizer puts there by itself (``bench.model.text``): context only, and no part of the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.tokens import Tokens
from bench.corpus.task import Record

#: token ids of each of several strings, without special tokens
Tokenise = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class _Row:
    """One record's own tokens; those from ``start`` on carry loss, ``answer`` and ``end`` as in ``Tokens``."""

    ids: list[int]
    start: int
    answer: int
    end: int
    cut: bool


class Unfit(UsageError):
    """A record that nothing can be learnt from at this length. ``why``: the same for all of its kind."""

    def __init__(self, why: str, sentence: str) -> None:
        super().__init__(sentence)
        self.why = why


@dataclass(frozen=True)
class Fitting:
    """``tokens`` of the records that fit, row by row those at ``kept``; ``cut``: whether a row's text was cut.
    ``left_out``: how many don't fit, by reason."""

    tokens: Tokens
    kept: tuple[int, ...]
    cut: NDArray[np.bool_]
    left_out: dict[str, int]


def encode_records(
    tokenise: Tokenise,
    records: Sequence[Record],
    max_tokens: int,
    answer_prefix: str,
    lead: Sequence[int] = (),
) -> Tokens:
    """``records`` as ``Tokens`` of at most ``max_tokens`` tokens each; ``text`` is cut at its end to make room.

    ``lead``: ids in front of every record. They count against no limit, so that the same records are taken, and cut
    at the same place, with and without them; they carry no loss, while the token behind them does. ``answer`` is never
    cut; its part after ``answer_prefix`` is a piece of its own. Raises UsageError naming the record whose prompt and
    answer leave no room for its text, that has fewer than 2 tokens of its own, whose answer does not begin with
    ``answer_prefix``, or that is no valid Unicode text.
    """
    rows = [_fit(one) for one in _rows(tokenise, records, max_tokens, answer_prefix)]
    return _pad(rows, lead)


def encode_fitting(
    tokenise: Tokenise,
    records: Sequence[Record],
    max_tokens: int,
    answer_prefix: str,
    lead: Sequence[int] = (),
) -> Fitting:
    """``encode_records`` of those that fit. Raises UsageError as it does where none fits, and for what no length
    mends."""
    found = list(_rows(tokenise, records, max_tokens, answer_prefix))
    kept = [i for i, one in enumerate(found) if isinstance(one, _Row)]
    rows = [_fit(found[i]) for i in kept or range(len(found))]
    why = Counter(one.why for one in found if isinstance(one, Unfit))
    return Fitting(_pad(rows, lead), tuple(kept), np.array([row.cut for row in rows], dtype=bool), dict(why))


def _fit(one: _Row | Unfit) -> _Row:
    if isinstance(one, Unfit):
        raise one
    return one


def _rows(tokenise: Tokenise, records: Sequence[Record], max_tokens: int, answer_prefix: str) -> Iterator[_Row | Unfit]:
    for record in records:
        _check(record, answer_prefix)
    prefix = tokenise([answer_prefix])[0] if answer_prefix else []
    prompts = _tokenise_all(tokenise, [r.prompt for r in records])
    texts = _tokenise_all(tokenise, [r.text for r in records])
    labels = _tokenise_all(tokenise, [r.answer[len(answer_prefix) :] for r in records])
    for record, prompt, text, label in zip(records, prompts, texts, labels, strict=True):
        yield _row(record, prompt, text, prefix if record.answer else [], label, max_tokens)


def label_rows(tokenise: Tokenise, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The tokens of each label text. Raises UsageError where one has none, or two have the same."""
    rows = [tuple(ids) for ids in (tokenise(texts) if texts else [])]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise UsageError(f"The label text {text!r} has no token; every label needs a text of its own.")
    for i, row in enumerate(rows):
        if row in rows[:i]:
            other = texts[rows.index(row)]
            raise UsageError(
                f"The label texts {other!r} and {texts[i]!r} are the same tokens of this model, which can't tell them "
                "apart; choose other texts, or leave the labels out."
            )
    return tuple(rows)


def _check(record: Record, answer_prefix: str) -> None:
    try:
        (record.prompt + record.text + record.answer).encode()
    except UnicodeEncodeError:
        raise UsageError(f"Record '{record.id}' holds half a surrogate pair, which is no valid text.") from None
    if record.answer and not record.answer.startswith(answer_prefix):
        raise UsageError(
            f"The answer of record '{record.id}' does not begin with the task's answer prefix {answer_prefix!r}."
        )


def _tokenise_all(tokenise: Tokenise, texts: Sequence[str]) -> list[list[int]]:
    """Each distinct text once (prompts and answers repeat); no token for an empty text, whatever the tokenizer."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    found = dict(zip(distinct, tokenise(distinct), strict=True)) if distinct else {}
    return [found.get(text, []) for text in texts]


def _row(
    record: Record, prompt: list[int], text: list[int], prefix: list[int], label: list[int], max_tokens: int
) -> _Row | Unfit:
    room = max_tokens - len(prompt) - len(prefix) - len(label)
    if room < (1 if text else 0):
        return Unfit(
            "prompt and answer leave no room for a text",
            f"Record '{record.id}' does not fit: its prompt has {len(prompt)} tokens and its answer "
            f"{len(prefix) + len(label)}, which leaves no room for its text in pool.max_tokens={max_tokens}; "
            "shorten them or raise pool.max_tokens.",
        )
    whole, text = len(text), text[:room]
    ids = prompt + text + prefix + label
    if max(1, len(prompt)) >= len(ids):
        return Unfit(
            "nothing to predict",
            f"Record '{record.id}' has {len(ids)} token(s) and none to predict; give it a longer text.",
        )
    answer = len(ids) - len(label) if label else -1
    return _Row(ids, len(prompt), answer, len(prompt) + len(text), len(text) < whole)


def _pad(rows: Sequence[_Row], lead: Sequence[int]) -> Tokens:
    """Every row behind ``lead``, of which a record's first token is predicted too where it has no prompt."""
    first = len(lead)
    lengths = np.array([first + len(row.ids) for row in rows], dtype=np.int32)
    width = int(lengths.max()) if rows else 0
    ids = np.zeros((len(rows), width), dtype=np.int32)
    predicted = np.zeros((len(rows), width), dtype=np.bool_)
    for i, row in enumerate(rows):
        ids[i, : lengths[i]] = [*lead, *row.ids]
        predicted[i, max(1, first + row.start) : lengths[i]] = True
    answers = [first + row.answer if row.answer >= 0 else -1 for row in rows]
    ends = np.array([first + row.end for row in rows], dtype=np.int32)
    return Tokens(ids, lengths, predicted, np.array(answers, dtype=np.int32), first, ends)
