"""The reconstruction game's truth and answers, from an attack or from anybody's text.

Truth is what carries gradient: of each record all tokens but the last, which is only ever predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.attack import Reconstruction, Target
from bench.errors import SiloBenchError, UsageError
from bench.games import text as form
from bench.games.text import SHEET, SHEET_VERSION
from bench.stats import midranks

GAME = "reconstruction"
#: tokens of one record or guess, and characters of its text
MAX_TOKENS, MAX_CHARACTERS = 8192, 8192 * 16
_SIDES = ("answer", "baseline")

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What was guessed of one target. ``held``: token ids claimed to be there, ascending. ``ranks``: of each true
    token (as ``Trained.held``) its midrank, from 1, among all ``vocabulary`` scores: all that the ranking's AUC
    depends on.
    """

    held: Ids
    vocabulary: int
    ranks: tuple[float, ...]
    sequences: tuple[Ids, ...]
    texts: tuple[str, ...]
    exact: bool


@dataclass(frozen=True)
class Trained:
    """One target's truth: per record all its token ids, and the text of those that carry gradient."""

    round: int
    silo: str
    steps: int
    tokens: tuple[Ids, ...]
    texts: tuple[str, ...]

    @property
    def carriers(self) -> tuple[Ids, ...]:
        return tuple(ids[:-1] for ids in self.tokens)

    @property
    def held(self) -> Ids:
        """The distinct tokens that carry gradient, ascending."""
        return tuple(sorted({i for ids in self.carriers for i in ids}))


@dataclass(frozen=True)
class ReconstructionSheet:
    """Truth and answers of all targets, sorted by round and silo. An answer None: none was given."""

    targets: tuple[Trained, ...]
    answers: tuple[Answer | None, ...]
    baseline: tuple[Answer | None, ...]

    def to_json(self) -> str:
        """Canonical text."""
        rows = [
            {
                "round": t.round,
                "silo": t.silo,
                "steps": t.steps,
                "tokens": [list(ids) for ids in t.tokens],
                "texts": list(t.texts),
                "answer": _answer_json(a),
                "baseline": _answer_json(b),
            }
            for t, a, b in zip(self.targets, self.answers, self.baseline, strict=True)
        ]
        return form.write({"format": SHEET, "version": SHEET_VERSION, "game": GAME, "targets": rows})

    @property
    def sha256(self) -> str:
        """SHA-256 of ``to_json()`` in hexadecimal: the name of the committed scores."""
        return form.sha256(self.to_json())

    @classmethod
    def from_json(cls, text: str) -> ReconstructionSheet:
        """Parse text from anybody. Raises UsageError on anything that ``to_json`` does not write."""
        value = form.parse(text, SHEET, SHEET_VERSION)
        rows = [form.mapping(row, "targets") for row in form.entries(form.field(value, "targets"), "targets")]
        targets = tuple(_parse_target(row) for row in rows)
        keys = [(t.round, t.silo) for t in targets]
        if not keys or keys != sorted(set(keys)):
            raise UsageError("'targets' must be there, each once, in the order of round and silo.")
        sides = [
            tuple(_parse_answer(form.field(row, side), t) for row, t in zip(rows, targets, strict=True))
            for side in _SIDES
        ]
        sheet = cls(targets, *sides)
        form.require_canonical(text, sheet.to_json(), SHEET)
        return sheet


def make_sheet(
    targets: Sequence[Target],
    truth: Sequence[Sequence[Sequence[int]]],
    answers: Sequence[Reconstruction],
    baseline: Sequence[Reconstruction],
    decode: Callable[[Sequence[int]], str],
) -> ReconstructionSheet:
    """The sheet of an attack's ``answers``, in any order, a target without one being a failure.

    ``truth``: per target the token ids of each of its records, whole, at least 2 tokens each. ``decode``: ids to text.
    Raises SiloBenchError for what an attack did wrong: an answer to no target or a second one, more sequences than
    records, a token that the vocabulary does not have, scores of the wrong shape or NaN.
    """
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
    ordered = tuple(trained[key] for key in sorted(trained))
    return ReconstructionSheet(ordered, _answers(answers, ordered, decode), _answers(baseline, ordered, decode))


def _answers(
    answers: Sequence[Reconstruction], targets: Sequence[Trained], decode: Callable[[Sequence[int]], str]
) -> tuple[Answer | None, ...]:
    wanted = {(t.round, t.silo): t for t in targets}
    found: dict[tuple[int, str], Answer] = {}
    for answer in answers:
        key = answer.target.round, answer.target.silo
        if key not in wanted or key in found:
            why = "twice" if key in found else "and was not asked to"
            raise SiloBenchError(f"the attack answers for {key[1]} in round {key[0]} {why}")
        found[key] = _checked(answer, wanted[key], decode)
    return tuple(found.get((t.round, t.silo)) for t in targets)


def _checked(answer: Reconstruction, target: Trained, decode: Callable[[Sequence[int]], str]) -> Answer:
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
    ranks = tuple(midranks(scores)[list(target.held)].tolist())
    texts = tuple(decode(sequence)[:MAX_CHARACTERS] for sequence in sequences)
    return Answer(held, len(scores), ranks, sequences, texts, bool(answer.exact))


def _answer_json(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {
        "held": list(answer.held),
        "vocabulary": answer.vocabulary,
        "ranks": list(answer.ranks),
        "sequences": [list(ids) for ids in answer.sequences],
        "texts": list(answer.texts),
        "exact": answer.exact,
    }


def _parse_target(row: Mapping[str, Any]) -> Trained:
    value = dict(row)
    tokens = tuple(_ids(ids, "tokens") for ids in form.entries(form.field(value, "tokens"), "tokens"))
    if not tokens or min(map(len, tokens)) < 2:
        raise UsageError("A target needs a record, and a record at least two tokens.")
    return Trained(
        form.integer(form.field(value, "round"), "round"),
        form.label(form.field(value, "silo"), "silo"),
        form.integer(form.field(value, "steps"), "steps"),
        tokens,
        _texts(form.field(value, "texts"), len(tokens)),
    )


def _parse_answer(value: Any, target: Trained) -> Answer | None:
    if value is None:
        return None
    answer = form.mapping(value, "answer")
    vocabulary = form.integer(form.field(answer, "vocabulary"), "vocabulary")
    held = _ids(form.field(answer, "held"), "held", form.MAX_ENTRIES)
    ranks = form.numbers(form.field(answer, "ranks"), "ranks", len(target.held))
    sequences = tuple(_ids(ids, "sequences") for ids in form.entries(form.field(answer, "sequences"), "sequences"))
    biggest = max((i for ids in (target.held, held, *sequences) for i in ids), default=0)
    if biggest >= vocabulary or not all(1 <= rank <= vocabulary for rank in ranks):
        raise UsageError("An answer holds a token or a rank beyond its vocabulary.")
    m = len(ranks)
    if not m * (m + 1) / 2 <= sum(ranks) <= m * (2 * vocabulary - m + 1) / 2:
        raise UsageError("An answer's ranks can't be those of different tokens.")
    if held != tuple(sorted(set(held))) or len(sequences) > len(target.tokens):
        raise UsageError("An answer's 'held' must ascend, and it may have no more sequences than records.")
    exact = form.field(answer, "exact")
    if not isinstance(exact, bool):
        raise UsageError("'exact' must be true or false.")
    texts = _texts(form.field(answer, "texts"), len(sequences))
    return Answer(held, vocabulary, tuple(ranks), sequences, texts, exact)


def _ids(value: Any, what: str, most: int = MAX_TOKENS) -> Ids:
    ids = tuple(form.integer(i, what) for i in form.entries(value, what))
    if len(ids) > most or any(i < 0 for i in ids):
        raise UsageError(f"'{what}' must hold at most {most} token ids, none negative.")
    return ids


def _texts(value: Any, count: int) -> tuple[str, ...]:
    texts = tuple(form.string(t, "texts") for t in form.entries(value, "texts", count))
    if any(len(text) > MAX_CHARACTERS for text in texts):
        raise UsageError(f"'texts' must hold at most {MAX_CHARACTERS} characters each.")
    return texts
