"""Scrubbing: each rule by example, its recall on notes whose secrets are marked, and that it never sees the marks."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.assets.assets import Assets
from bench.corpus.task import Record, Secret
from defenses import scrub
from defenses.records.scrub import Scrub, scrubbed
from tasks.clinical_notes import Config, build


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on 3 March 2019 and 03 Mar 2019", "on [DATE] and [DATE]"),
        ("the 21st of June, 2020", "the [DATE]"),
        ("March 3, 2019; Sept. 4th 2020; May 2021", "[DATE]; [DATE]; [DATE]"),
        ("2019-03-31 or 31/12/2019 or 31.12.19", "[DATE] or [DATE] or [DATE]"),
        ("pain since 2011, worse in May", "pain since 2011, worse in May"),
        ("BP 120/80, ratio 3/4/5/6, version 1.2.3", "BP 120/80, ratio 3/4/5/6, version 1.2.3"),
        ("May 5 mg help? a 10.5.2 build; on May 5", "May 5 mg help? a 10.5.2 build; on [DATE]"),
    ],
)
def test_dates(text, expected) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to a.b+c@mail.example.org now", "write to [EMAIL] now"),
        ("see https://example.org/x?y=1 or www.example.org", "see [URL] or [URL]"),
        ("call +44 20 7946 0958", "call [PHONE]"),
        ("call (555) 123-4567 or 555-1234 or 0171 234 5678", "call [PHONE] or [PHONE] or [PHONE]"),
        ("01712345678", "[PHONE]"),
        ("2015-2018, 1000-2000 mg, 10 20, 5-10", "2015-2018, 1000-2000 mg, 10 20, 5-10"),
    ],
)
def test_addresses_and_telephones(text, expected) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("record KX 482913, bed 3", "record [RECORD], bed 3"),
        ("MRN: 00123456", "MRN: [RECORD]"),
        ("patient number 4711 and case no. 12-345", "patient number [RECORD] and case no. [RECORD]"),
        ("KX482913 / AB 1234", "[RECORD] / [RECORD]"),
        ("the patient 12 days later; B12 and T4 fine", "the patient 12 days later; B12 and T4 fine"),
    ],
)
def test_record_numbers(text, expected) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 45-year-old man, 7 months old", "a [AGE] man, [AGE]"),
        ("aged 83, at age 16, Age: 40", "aged [AGE], at age [AGE], Age: [AGE]"),
        ("57 y, 61yo", "[AGE], [AGE]"),
        ("seen, 57 years.", "seen, [AGE]."),
        ("for 3 years, 2 years ago, 14 days", "for 3 years, 2 years ago, 14 days"),
    ],
)
def test_ages(text, expected) -> None:
    assert scrubbed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Igor Linman came. Linman left with Igor.", "[NAME] came. [NAME] left with [NAME]."),
        ("started by Dr Varward and Mrs. J. O'Brien", "started by Dr [NAME] and Mrs. [NAME]"),
        ("After Anna-Maria van Steen rang", "After [NAME] rang"),
        ("Åsa Öberg and José María", "[NAME] and [NAME]"),
        ("On Monday The pain eased", "On Monday The pain eased"),
        ("Anna Berg, 57, came; Anna Berg (57) went", "[NAME], [AGE], came; [NAME] ([AGE]) went"),
    ],
)
def test_names(text, expected) -> None:
    assert scrubbed(text) == expected


def test_what_it_is_known_to_get_wrong() -> None:
    """Not wished for: said in the documentation, and a change of it should be noticed."""
    assert scrubbed("Maria was seen") == "Maria was seen"
    assert scrubbed("took Ortho Evra") == "took [NAME]"


@cache
def notes() -> tuple[Record, ...]:
    return tuple(build(Config(notes=1500)).records(Assets()))


def recall(rule, kind: str) -> float:  # type: ignore[no-untyped-def]
    """The share of marked secrets of ``kind`` that are gone: of a date the whole, of others every part of three or more
    characters (a surname, a number)."""
    gone = []
    for record in notes():
        text = rule(record.text)
        for secret in record.secrets:
            if secret.kind == kind:
                parts = [secret.text] if kind == "date" else [part for part in secret.text.split() if len(part) > 2]
                gone.append(not any(part in text for part in parts))
    return sum(gone) / len(gone)


@pytest.mark.parametrize(("kind", "least"), [("date", 0.95), ("record-number", 0.95), ("name", 0.95)])
def test_it_finds_what_is_marked_without_looking(kind, least) -> None:
    """Measured: all of 1,500 notes' dates, record numbers and names; the notes are written by templates."""
    assert recall(scrubbed, kind) >= least
    assert recall(lambda text: text, kind) == 0  # the measure itself


def test_without_names_the_rest_is_still_found() -> None:
    assert recall(lambda text: scrubbed(text, names=False), "record-number") >= 0.95
    assert recall(lambda text: scrubbed(text, names=False), "name") == 0


def test_the_marks_are_not_looked_at() -> None:
    given_notes = list(notes()[:200])
    blind = [replace(r, secrets=(), group=None, field=None) for r in given_notes]
    misled = [replace(r, secrets=(Secret("name", "the"), Secret("date", "pain"))) for r in given_notes]
    texts = [[r.text for r in Scrub().apply(records)] for records in (given_notes, blind, misled)]
    assert texts[0] == texts[1] == texts[2]


def test_the_medical_content_is_left() -> None:
    """Of the words that are neither marked, nor an age, nor a titled name, all but one in a hundred stay."""
    lost = total = 0
    for record in notes():
        marked = {word for secret in record.secrets for word in re.findall(r"\w+", secret.text)}
        text = re.sub(r"Dr \w+|\d+ (?:y|years)\b(?: old)?|aged \d+|\(\d+,|, \d+, ", " ", record.text)
        after = set(re.findall(r"\w+", scrubbed(record.text)))
        words = [word for word in re.findall(r"\w+", text) if word not in marked]
        total += len(words)
        lost += sum(word not in after for word in words)
    assert lost < 0.01 * total


def test_answers_labels_and_ids_are_left_and_prompts_are_scrubbed() -> None:
    record = Record("r", "Seen by Dr Berg", prompt="Anna Berg: ", answer="\nOutcome: Anna Berg", label="x", group="g")
    (found,) = Scrub().apply([record])
    assert found == replace(record, prompt="[NAME]: ", text="Seen by Dr [NAME]")


def test_what_becomes_of_a_record_depends_on_it_alone() -> None:
    some = list(notes()[:100])
    assert Scrub.per_record
    together = Scrub().apply(some)
    assert together == [found for record in some for found in Scrub().apply([record])]
    assert together[::-1] == Scrub().apply(some[::-1])


@settings(max_examples=30)
@given(st.text(max_size=200) | st.text("AaBb 0123456789.-/(+,'@", max_size=80))
@example("[NAME] [NAME]")
@example("A" * 50_000)
@example("1-" * 20_000)
@example("a." * 20_000 + "@")
@example("Ab " * 10_000)
def test_any_text_is_handled_in_time(text) -> None:
    once = scrubbed(text)
    assert not text.strip() or once.strip()


def test_the_defense() -> None:
    (part,) = scrub.build(scrub.Config(names=False)).records
    assert [r.text for r in part.apply([Record("r", "Anna Berg on 3 May 2020")])] == ["Anna Berg on [DATE]"]
    with pytest.raises(ValidationError):
        scrub.Config(kinds=["date"])
