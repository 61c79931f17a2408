"""The generator of synthetic clinical notes: any number, the same for the same seed, about patients who do not exist.

Each patient of each seed has a record number of their own (``record_number`` is injective), so two seeds never share a
patient. Everything about patient i comes from the stream (seed, style, i), so the first notes of a longer list are the
notes of a shorter one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import TypeVar

import numpy as np

from bench.core.streams import Streams
from bench.corpus.task import Secret
from tasks.clinical import names
from tasks.clinical.phrases import FREQUENCIES, OUTCOMES, Style
from tasks.clinical.wards import Ward

T = TypeVar("T")

#: seeds are in [0, SEEDS), and a seed has PATIENTS patients; those from TASK_SEEDS on are kept for pretraining
SEEDS = 10_000
TASK_SEEDS = 9_000
PATIENTS = 50_000
#: share of patients of whom there are two notes
SECOND_NOTE = 0.2
ANSWER_PREFIX = "\nOutcome:"
OUTCOME_SHARES = (0.4, 0.3, 0.3)

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # no I and no O, as on real labels
_SLOT = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"([\d.]+)-([\d.]+)")
_FIRST_DAY = date(2015, 1, 1)
_DAYS = 3650


@dataclass(frozen=True)
class Patient:
    """An invented person. ``record`` is unique over all seeds."""

    record: str
    name: str
    female: bool
    age: int
    ward: Ward
    condition: str


@dataclass(frozen=True)
class Note:
    """One note. ``patient`` is the record number; ``outcome`` (one of OUTCOMES) is what the text implies."""

    patient: str
    ward: str
    text: str
    outcome: str
    secrets: tuple[Secret, ...]

    @property
    def answer(self) -> str:
        return f"{ANSWER_PREFIX} {self.outcome}"


def record_number(seed: int, index: int) -> str:
    """The record number of patient ``index`` of ``seed``, e.g. ``"KX 482913"``: injective over both.

    The pair goes through a four-round Feistel permutation of [0, SEEDS) x [0, PATIENTS) with public round functions,
    so numbers look unrelated and never collide. Raises ValueError outside that range.
    """
    if not (0 <= seed < SEEDS and 0 <= index < PATIENTS):
        raise ValueError(f"seed {seed} or patient {index} is out of range [0, {SEEDS}) x [0, {PATIENTS})")
    left, right = seed, index
    for turn in (0, 2):
        left = (left + _round(turn, right)) % SEEDS
        right = (right + _round(turn + 1, left)) % PATIENTS
    letters, digits = divmod(left * PATIENTS + right, 1_000_000)
    return f"{_LETTERS[letters // 24]}{_LETTERS[letters % 24]} {digits:06d}"


def _round(turn: int, value: int) -> int:
    return int.from_bytes(hashlib.sha256(f"record {turn} {value}".encode()).digest()[:8], "little")


def notes(seed: int, count: int, style: Style) -> list[Note]:
    """The first ``count`` notes of ``seed`` in ``style``, patient by patient. ``count`` is at most PATIENTS."""
    return list(islice(_all_notes(seed, style), count))


def _all_notes(seed: int, style: Style) -> Iterator[Note]:
    streams = Streams(seed)
    for index in range(PATIENTS):
        rng = streams.generator(f"clinical-notes/{style.name}", index)
        patient = _patient(record_number(seed, index), style, rng)
        day = _FIRST_DAY + timedelta(int(rng.integers(_DAYS)))
        yield _note(patient, style, rng, day)
        if rng.random() < SECOND_NOTE:
            yield _note(patient, style, rng, day + timedelta(int(rng.integers(20, 200))))


def _patient(record: str, style: Style, rng: np.random.Generator) -> Patient:
    female = bool(rng.random() < 0.5)
    ward = _pick(rng, style.wards)
    name = f"{_pick(rng, names.FEMALE if female else names.MALE)} {_surname(rng)}"
    return Patient(record, name, female, int(rng.integers(18, 97)), ward, _pick(rng, ward.conditions))


def _note(patient: Patient, style: Style, rng: np.random.Generator, day: date) -> Note:
    outcome = OUTCOMES[int(np.searchsorted(np.cumsum(OUTCOME_SHARES[:-1]), rng.random(), side="right"))]
    body = [_pick(rng, options) for options in (style.complaint, style.background, style.examination, style.treatment)]
    kept = sorted(rng.permutation(len(body))[:2])
    sentences = [_pick(rng, style.opening), *(body[i] for i in kept), _pick(rng, style.course[outcome])]
    if rng.random() < 0.25:
        sentences.append(_pick(rng, style.plan))
    writer = _Writer(patient, rng, day)
    text = " ".join(writer.fill(sentence) for sentence in sentences)
    secrets = [Secret("name", patient.name), Secret("record-number", patient.record)]
    return Note(
        patient.record, patient.ward.name, text, outcome, (*secrets, *(Secret("date", d) for d in writer.dates))
    )


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _surname(rng: np.random.Generator) -> str:
    middle = _pick(rng, names.SURNAME_MIDDLE) if rng.random() < 0.6 else ""
    return _pick(rng, names.SURNAME_START) + middle + _pick(rng, names.SURNAME_END)


class _Writer:
    """Fills the slots of one note's templates; ``SLOTS`` says what stands in ``{drug}``. Keeps the dates it wrote."""

    def __init__(self, patient: Patient, rng: np.random.Generator, day: date) -> None:
        self.patient = patient
        self.dates: list[str] = []
        self.rng = rng
        self._day = day
        self._drug = _pick(rng, patient.ward.drugs)
        self._doses = 1
        self._measure = _pick(rng, patient.ward.measures)

    def fill(self, template: str) -> str:
        """The template with every slot filled, innermost first, and a capital at its start."""
        while _SLOT.search(template):
            template = _SLOT.sub(self._slot, template)
        return template[0].upper() + template[1:]

    def _slot(self, match: re.Match[str]) -> str:
        key: str = match[1]
        if "|" in key:
            return self.pick(tuple(key.split("|")))
        bounds = _RANGE.fullmatch(key)
        if bounds is None:
            word = str(SLOTS[key.lower()](self))
            return word.capitalize() if key[0].isupper() else word
        low, high = bounds.groups()
        if "." in low:
            return f"{self.between(round(10 * float(low)), round(10 * float(high))) / 10:.1f}"
        return str(self.between(int(low), int(high)))

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def date(self, days: int) -> str:
        day = self._day + timedelta(days)
        self.dates.append(f"{day.day} {names.MONTHS[day.month - 1]} {day.year}")
        return self.dates[-1]

    def value(self, low: float, high: float) -> str:
        """A value of the last measure named, ``low`` to ``high`` of the way from good (0) to bad (1)."""
        m = self._measure
        width = m.high - m.low
        return f"{self.between(m.low + round(low * width), m.low + round(high * width))}{m.unit}"

    def pick(self, options: tuple[T, ...]) -> T:
        return _pick(self.rng, options)

    def drug(self) -> str:
        self._drug = self.pick(self.patient.ward.drugs)
        return self._drug.name

    def dose(self) -> str:
        """A dose of the last drug named."""
        self._doses = self.between(1, self._drug.most)
        return f"{self._drug.step * self._doses} {self._drug.unit}"

    def more(self) -> str:
        """A higher dose than the last one written."""
        return f"{self._drug.step * (self._doses + self.between(1, 3))} {self._drug.unit}"

    def measure(self) -> str:
        self._measure = self.pick(self.patient.ward.measures)
        return self._measure.name


#: by the name of a slot what stands in it; ``trouble`` is a symptom without its article
SLOTS: dict[str, Callable[[_Writer], object]] = {
    "name": lambda w: w.patient.name,
    "record": lambda w: w.patient.record,
    "age": lambda w: w.patient.age,
    "ward": lambda w: w.patient.ward.name,
    "condition": lambda w: w.patient.condition,
    "he": lambda w: "she" if w.patient.female else "he",
    "his": lambda w: "her" if w.patient.female else "his",
    "symptom": lambda w: w.pick(w.patient.ward.symptoms),
    "trouble": lambda w: w.pick(w.patient.ward.symptoms).removeprefix("a "),
    "test": lambda w: w.pick(w.patient.ward.tests),
    "drug": _Writer.drug,
    "dose": _Writer.dose,
    "more": _Writer.more,
    "frequency": lambda w: w.pick(FREQUENCIES),
    "measure": _Writer.measure,
    "level": lambda w: w.value(0, 1),
    "good": lambda w: w.value(0, 0.3),
    "bad": lambda w: w.value(0.6, 1),
    "date": lambda w: w.date(0),
    "earlier": lambda w: w.date(-w.between(5, 300)),
    "later": lambda w: w.date(w.between(3, 60)),
    "month": lambda w: w.pick(names.MONTHS),
    "surname": lambda w: _surname(w.rng),
    "town": lambda w: w.pick(names.TOWN_START) + w.pick(names.TOWN_END),
    "kin": lambda w: w.pick(names.KIN),
    "job": lambda w: w.pick(names.JOBS),
}
