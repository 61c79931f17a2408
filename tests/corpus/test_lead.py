"""Tokens with a start in front of them: what is a record's own."""

from __future__ import annotations

from collections import Counter

import numpy as np

from attacks import lookup
from attacks.poisoning import _lie
from bench.attack.attack import Candidates, until
from bench.core.records import joined
from bench.core.tokens import Tokens
from bench.corpus.encoding import encode_records
from bench.corpus.task import Record
from bench.games.baselines import carriers, inclusion

BOS = 3


def encoded(*texts: str, lead: tuple[int, ...] = (BOS,)) -> Tokens:
    letters = [Record(str(i), text, answer="=y" if "!" in text else "") for i, text in enumerate(texts)]
    return encode_records(lambda given: [[ord(c) for c in text] for text in given], letters, 12, "=", lead)


def test_a_lead_moves_positions_and_is_nobodys_own() -> None:
    with_lead, without = encoded("abc", "de!"), encoded("abc", "de!", lead=())
    assert (with_lead.lead, without.lead) == (1, 0)
    assert with_lead.lengths.tolist() == [n + 1 for n in without.lengths.tolist()]
    assert with_lead.answer.tolist() == [-1, int(without.answer[1]) + 1]
    assert np.flatnonzero(with_lead.predicted[0]).tolist() == [1, 2, 3]  # the first letter has a context now
    assert [row.tolist() for row in with_lead.own()] == [row.tolist() for row in without.own()]
    stripped = with_lead.without_lead()
    for name in ("ids", "lengths", "predicted", "answer", "lead"):
        np.testing.assert_array_equal(getattr(stripped, name), getattr(without, name))


def test_the_lead_is_kept_by_whoever_makes_tokens_of_tokens() -> None:
    tokens = encoded("abc", "defg")
    made = [tokens.take([1]), joined([tokens, tokens]), until(tokens, np.array([1, 2])), _lie(tokens, tokens, 0.5, 0)]
    assert [one.lead for one in made] == [1] * 4


def test_lies_keep_the_start_and_never_draw_it() -> None:
    tokens, population = encoded("abcdefgh"), encoded("uv", "wx")
    for copy in range(50):
        lie = _lie(tokens, population, 0.0, copy).ids[0].tolist()
        assert lie[:2] == [BOS, ord("a")]
        assert BOS not in lie[1:]


def test_a_record_is_not_half_found_because_all_begin_alike() -> None:
    tokens = encoded("ab", "xy")
    asked = Candidates(("0", "1"), ("silo-0", "silo-0"), ("ab", "xy"), tokens)
    held = {"silo-0": [Counter([BOS, ord("a"), ord("b")])]}
    assert lookup.overlap(asked, held).tolist() == [1.0, 0.0]


def test_the_blind_guess_is_of_a_records_own_tokens() -> None:
    """The population's tokens without the start: what is most common is none that everybody knows."""
    population = encoded("aab", "aac").without_lead()
    assert {int(i) for row in carriers(population) for i in row} == {ord("a")}
    assert int(np.argmax(inclusion(population, 256, 1))) == ord("a")
    assert population.lead == 0
