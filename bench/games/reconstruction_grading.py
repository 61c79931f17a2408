"""Grades a reconstruction attack's answers against the records: the only place where guesses and truth meet.

Truth is what carries gradient: of each record all tokens but the last, which is only ever predicted. What stands in
front of every record (a BOS) is nobody's secret: truth has none, and answers lose it. What comes out is a sheet of
grades, which may be published, and the details, which may not: what was true and what was guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bench.attack.attack import Reconstruction, Target
from bench.core.errors import SiloBenchError
from bench.games.matching import Rouge, assign
from bench.games.reconstruction_sheet import RECORD_FAILURE, GradedTarget, Grades, ReconstructionSheet, Row, arranged
from bench.spec import canonical as form
from bench.stats import midranks

#: format and version of the details
DETAILS, DETAILS_VERSION = "silobench-reconstruction-details", 1
#: tokens of one guess, and characters of its text
MAX_TOKENS, MAX_CHARACTERS = 8192, 8192 * 16

Ids = tuple[int, ...]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Graded:
    """``sheet``: the grades. ``details``: private JSON with the tokens and texts of records and guesses, from which
    whoever holds it can grade again; it names the sheet's SHA-256.
    """

    sheet: ReconstructionSheet
    details: str


@dataclass(frozen=True)
class Trained:
    """One target's truth: per record all its token ids, and the text of those that carry gradient."""

    round: int
    silo: str
    steps: int
    tokens: tuple[Ids, ...]
    texts: tuple[str, ...]

    @cached_property
    def carriers(self) -> tuple[Ids, ...]:
        return tuple(ids[:-1] for ids in self.tokens)

    @cached_property
    def held(self) -> Ids:
        """The distinct tokens that carry gradient, ascending."""
        return tuple(sorted({i for ids in self.carriers for i in ids}))


@dataclass(frozen=True)
class Answer:
    """What was guessed of one target. ``held``: token ids claimed to be there, ascending. ``ranks``: of each true
    token (as ``Trained.held``) its midrank, from 1, among all ``vocabulary`` scores: all that the ranking's AUC
    depends on. ``exact``: the attack's own word that it read the tokens off, and did not rank them.
    """

    held: Ids
    vocabulary: int
    ranks: tuple[float, ...]
    sequences: tuple[Ids, ...]
    texts: tuple[str, ...]
    exact: bool


@dataclass(frozen=True)
class Marked:
    """An answer, its grades, and of each record the index of the guess that was assigned to it."""

    answer: Answer
    assigned: tuple[int | None, ...]
    grades: Grades


def grade(
    targets: Sequence[Target],
    truth: Sequence[Sequence[Sequence[int]]],
    answers: Sequence[Reconstruction],
    baseline: Sequence[Reconstruction],
    decode: Decode,
    start: Ids = (),
) -> Graded:
    """Grades of an attack's ``answers``, in any order, a target without one being a failure.

    ``truth``: per target the own token ids of each of its records, at least 2 each. ``decode``: ids to text.
    ``start``: what stands in front of every record. An answer may have it or not: a guess loses it at its beginning,
    and its tokens, where no record holds them besides, are neither counted as claimed nor ranked.
    Raises SiloBenchError for what an attack did wrong: an answer to no target or a second one, more sequences than
    records, a token that the vocabulary does not have, scores of the wrong shape or NaN.
    """
    trained = _trained(targets, truth, decode)
    sides = [_answers(side, trained, decode, start) for side in (answers, baseline)]
    rouge, units = Rouge(), dict[Ids, int]()
    graded: list[GradedTarget] = []
    rows: list[dict[str, Any]] = []
    for key, target in trained.items():
        answer, guess = (_marked(target, side.get(key), rouge) for side in sides)
        numbers = tuple(units.setdefault(ids, len(units)) for ids in target.tokens)
        grades = [one.grades if one is not None else None for one in (answer, guess)]
        graded.append(GradedTarget(target.round, target.silo, target.steps, numbers, *grades))
        rows.append(_details(target, answer, guess))
    sheet = arranged(graded)
    details = {"format": DETAILS, "version": DETAILS_VERSION, "scores": sheet.sha256, "targets": rows}
    return Graded(sheet, form.write(details))


def _trained(
    targets: Sequence[Target], truth: Sequence[Sequence[Sequence[int]]], decode: Decode
) -> dict[tuple[int, str], Trained]:
    """By round and silo, in that order."""
    if len(targets) != len(truth) or not targets:
        raise ValueError("every target needs its truth, and there must be one")
    trained = {}
    for target, records in zip(targets, truth, strict=True):
        ids = tuple(tuple(int(i) for i in record) for record in records)
        if not ids or min(map(len, ids)) < 2:
            raise ValueError("a target has at least one record, and a record at least two tokens")
        texts = tuple(decode(record[:-1]) for record in ids)
        trained[target.round, target.silo] = Trained(target.round, target.silo, target.steps, ids, texts)
    if len(trained) < len(targets):
        raise ValueError("a target stands twice")
    return {key: trained[key] for key in sorted(trained)}


def _answers(
    answers: Sequence[Reconstruction], targets: dict[tuple[int, str], Trained], decode: Decode, start: Ids
) -> dict[tuple[int, str], Answer]:
    found: dict[tuple[int, str], Answer] = {}
    for answer in answers:
        key = answer.target.round, answer.target.silo
        if key not in targets or key in found:
            why = "twice" if key in found else "and was not asked to"
            raise SiloBenchError(f"the attack answers for {key[1]} in round {key[0]} {why}")
        found[key] = _checked(answer, targets[key], decode, start)
    return found


def _checked(answer: Reconstruction, target: Trained, decode: Decode, start: Ids) -> Answer:
    where = f"the attack's answer for {target.silo} in round {target.round}"
    scores = np.asarray(answer.token_scores, dtype=np.float64)
    if scores.ndim != 1 or np.isnan(scores).any():
        raise SiloBenchError(f"{where} needs one score per token, none of them NaN")
    if len(scores) <= target.held[-1]:
        raise SiloBenchError(f"{where} scores {len(scores)} tokens, and the vocabulary has more")
    if len(answer.sequences) > len(target.tokens):
        raise SiloBenchError(f"{where} has {len(answer.sequences)} sequences for {len(target.tokens)} records")
    sequences = tuple(tuple(int(i) for i in sequence) for sequence in answer.sequences)
    held = tuple(sorted({int(i) for i in answer.token_set}))
    if any(len(sequence) > MAX_TOKENS for sequence in sequences):
        raise SiloBenchError(f"{where} has a sequence of more than {MAX_TOKENS} tokens")
    if any(not 0 <= i < len(scores) for ids in (held, *sequences) for i in ids):
        raise SiloBenchError(f"{where} holds a token that the vocabulary of {len(scores)} does not have")
    free = sorted({i for i in start if i < len(scores)} - {i for ids in target.tokens for i in ids})
    asked = np.delete(np.arange(len(scores)), free)
    ranks = tuple(midranks(scores[asked])[np.searchsorted(asked, target.held)].tolist())
    sequences = tuple(_own(sequence, start) for sequence in sequences)
    texts = tuple(decode(sequence)[:MAX_CHARACTERS] for sequence in sequences)
    return Answer(tuple(i for i in held if i not in free), len(asked), ranks, sequences, texts, bool(answer.exact))


def _own(sequence: Ids, start: Ids) -> Ids:
    return sequence[len(start) :] if sequence[: len(start)] == start else sequence


def _marked(target: Trained, answer: Answer | None, rouge: Rouge) -> Marked | None:
    """``answer`` with its grades, guesses being assigned to records one to one (``matching.assign``)."""
    if answer is None:
        return None
    claimed = set(answer.held)
    recalls = [len(claimed & set(ids)) / len(set(ids)) for ids in target.carriers]
    assigned = tuple(assign(target.carriers, answer.sequences))
    rows = tuple((recalls[i], *_guess_figures(target, i, answer, guess, rouge)) for i, guess in enumerate(assigned))
    return Marked(answer, assigned, Grades(rows, _target_figures(target, answer)))


def _guess_figures(target: Trained, record: int, answer: Answer, guess: int | None, rouge: Rouge) -> Row:
    """ROUGE-1, -2, -L, exact text and exact tokens of the guess assigned to the record; zeros where it got none."""
    if guess is None:
        return RECORD_FAILURE[1:]
    carriers, text = target.carriers[record], target.texts[record]
    # the last token can't be read from an update, so a guess may have it or not
    in_order = answer.sequences[guess] in (carriers, target.tokens[record])
    exact = in_order or answer.texts[guess].strip() == text.strip()
    return *rouge.f1(text, answer.texts[guess]), float(exact), float(in_order)


def _target_figures(target: Trained, answer: Answer) -> Row:
    """Precision of the claimed tokens, and AUC of the scores of tokens that were there against all others'."""
    held = target.held
    m, n = len(held), answer.vocabulary - len(held)
    # a vocabulary of which every token was there leaves nothing to rank against
    area = (sum(answer.ranks) - m * (m + 1) / 2) / (m * n) if n else 0.5
    return len(set(held) & set(answer.held)) / len(answer.held) if answer.held else 0.0, area


def _details(target: Trained, answer: Marked | None, baseline: Marked | None) -> dict[str, Any]:
    return {
        "round": target.round,
        "silo": target.silo,
        "steps": target.steps,
        "records": [{"tokens": ids, "text": text} for ids, text in zip(target.tokens, target.texts, strict=True)],
        "answer": _answer_details(answer),
        "baseline": _answer_details(baseline),
    }


def _answer_details(one: Marked | None) -> dict[str, Any] | None:
    if one is None:
        return None
    answer = one.answer
    guesses = zip(answer.sequences, answer.texts, strict=True)
    return {
        "held": answer.held,
        "vocabulary": answer.vocabulary,
        "ranks": answer.ranks,
        "guesses": [{"tokens": ids, "text": text} for ids, text in guesses],
        "exact": answer.exact,
        "assigned": one.assigned,
        "grades": {"records": one.grades.records, "target": one.grades.target},
    }
