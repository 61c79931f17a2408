"""Removal of personal data by rules: patterns of English text, in a fixed order, each with its placeholder.

The rules see a record's prompt and text, nothing else: not which secrets a task has marked, and no list of names. They
follow the identifiers that HIPAA's safe harbor names (45 CFR 164.514(b)(2)) as far as a pattern finds them: e-mail and
web addresses, dates, record numbers, telephone numbers, names, ages. All ages go, not only those over 89; years that
stand alone stay, as it allows. Places, occupations and rare facts, which identify people too, stay.

Names are found by form alone: a title and what follows, or two capitalised words in a row, and then their parts
wherever they stand again. A first name alone is missed, and other things with two capitals are hit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from bench.corpus.task import Record
from bench.defense.parts import RecordsPart

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DAY, _YEAR = r"(?:3[01]|[12]\d|0?[1-9])", r"(?:1[89]|20)\d\d"
_ORDINAL = rf"{_DAY}(?:st|nd|rd|th)?"

#: (placeholder, pattern); the group ``keep``, where there is one, stands before what is replaced and stays
_PATTERNS = (
    ("[EMAIL]", r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
    ("[URL]", r"\b(?:https?://|www\.)[^\s<>\"']+"),
    ("[DATE]", rf"\b{_ORDINAL}[ -](?:of )?{_MONTH}(?:,?[ -]{_YEAR})?(?!\w)"),
    ("[DATE]", rf"\b{_MONTH} {_ORDINAL}(?:,? {_YEAR})?(?![\w/:]| ?(?:mg|mcg|ml|g|kg|units?|hours?|days?|weeks?)\b)"),
    ("[DATE]", rf"\b{_MONTH},? {_YEAR}\b"),
    ("[DATE]", rf"(?<![\d./-]){_YEAR}(?P<by>[-/.])(?:1[0-2]|0?[1-9])(?P=by){_DAY}(?!\d)"),
    ("[DATE]", rf"(?<![\d./-]){_DAY}(?P<by>[-/.]){_DAY}(?P=by)(?:{_YEAR}|\d\d)(?![\d/-]|\.\d)"),
    # after a word that says so, in any form that has digits
    (
        "[RECORD]",
        r"(?P<keep>\b(?i:record|chart|case|file|patient|account|policy|member|mrn|nhs|ssn)"
        r"(?: (?i:number|no\.?|nr\.?|id))?(?: is)?:? ?#?)(?:[A-Z]{1,4}[ -]?)?\d[\d-]{2,14}\b",
    ),
    # a few capitals and four digits or more
    ("[RECORD]", r"\b[A-Z]{1,4}[ -]?\d{4,12}\b"),
)
_AGES = (
    ("[AGE]", r"\b\d{1,3}[ -](?:years?|yrs?|months?)[ -]old\b"),
    ("[AGE]", r"(?P<keep>\b(?i:aged?|age of|age is|turned):? )\d{1,3}\b(?! (?:days|weeks|months))"),
    ("[AGE]", r"\b\d{1,3} ?(?:y/o|yo|y)\b"),
    ("[AGE]", r"(?<=, )\d{1,3} years?\b(?! (?:ago|later|of|on|before|after|now))"),
    ("[AGE]", r"(?<=\[NAME\], )\d{1,3}(?=[,.;])"),
    ("[AGE]", r"(?<=\[NAME\] \()\d{1,3}(?=[,;)])"),
)
#: groups of digits as people write telephone numbers; ``_phone`` looks at how many there are
_DIGITS = re.compile(r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,5}\) ?)?\d{2,15}(?:[ .-]\d{2,5}){0,4}(?![\w/])")

_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", "a-zß-öø-ÿ"
_WORD = rf"[{_UPPER}](?:[{_LOWER}]+|['’][{_UPPER}][{_LOWER}]+)(?:['’-]?[{_UPPER}][{_LOWER}]+)*"  # noqa: RUF001
_BETWEEN = rf"(?: [{_UPPER}]\.)?(?: (?:van|von|de|der|den|la|le|bin|al|da|di)){{0,2}} "
_TITLE = r"\b(?:Dr|Mr|Mrs|Ms|Mx|Prof|Miss|Professor|Doctor|Nurse|Sister)\.? "
_TITLED = re.compile(rf"({_TITLE})((?:[{_UPPER}]\. ?)*{_WORD})")
_RUN = re.compile(rf"\b{_WORD}(?:{_BETWEEN}{_WORD})+")
#: words that begin sentences, name times and the like, and are no part of a name
_ORDINARY = """
    A After All Also Although An And Any As At Because Been Before Being Both But By Called Came Can Could Did Do
    Does During Each Even Every For From Given Had Has Have He Her Here His How However I If In Is It Its Just Known
    Last Like May Me Most My Next No Not Now Of On Once One Only Or Our Overall Please Seen Sent She Since So Some
    Started Still Than That The Their Then There These They This Those Though Three To Today Took Two Until Very Was
    We Went Were What When Where Which While Who Why Will With Would You Your Monday Tuesday Wednesday Thursday
    Friday Saturday Sunday January February March April June July August September October November December
    Christmas Easter
"""


class Scrub(RecordsPart):
    """Replaces what the rules find by placeholders such as [DATE], in prompt and text; the answer and everything else
    of a record is left as it is, and no record is dropped. ``names`` False leaves names alone (and ages of which only
    a name beside them tells that they are ages)."""

    per_record = True

    def __init__(self, names: bool = True) -> None:
        self.names = names

    def apply(self, records: Sequence[Record]) -> Sequence[Record]:
        return [replace(r, prompt=scrubbed(r.prompt, self.names), text=scrubbed(r.text, self.names)) for r in records]


def scrubbed(text: str, names: bool = True) -> str:
    """``text`` with placeholders. Of two rules that could take the same characters the earlier one does."""
    text = _replaced(text, _PATTERNS)
    text = _DIGITS.sub(_phone, text)
    if names:
        text = _without_names(text)
    return _replaced(text, _AGES)


def _replaced(text: str, rules: Sequence[tuple[str, str]]) -> str:
    for placeholder, pattern in rules:
        text = re.sub(pattern, lambda match, put=placeholder: (match.groupdict().get("keep") or "") + put, text)  # type: ignore[misc]
    return text


def _phone(match: re.Match[str]) -> str:
    """A placeholder for 7 to 15 digits that are grouped, prefixed or long like a telephone number; else as it was."""
    found = match.group()
    groups = re.findall(r"\d+", found)
    written = len(groups) > 2 or found[0] in "+(" or bool(re.fullmatch(r"\d{3}[ .-]\d{4}|\d{10,15}", found))
    return "[PHONE]" if written and 7 <= sum(map(len, groups)) <= 15 else found


def _without_names(text: str) -> str:
    """Titled names and runs of capitalised words first, then the parts of what was found, wherever else they stand."""
    parts: dict[str, None] = {}

    def titled(match: re.Match[str]) -> str:
        parts[match.group(2)] = None
        return f"{match.group(1)}[NAME]"

    def run(match: re.Match[str]) -> str:
        before, name, after = _split_run(match.group().split(" "))
        if sum(word[0].isupper() for word in name) < 2:
            return match.group()
        parts.update(dict.fromkeys(word for word in name if len(word) > 2 and word[0].isupper()))
        return " ".join([*before, "[NAME]", *after])

    text = _RUN.sub(run, _TITLED.sub(titled, text))
    if parts:
        again = "|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True))
        text = re.sub(rf"\b(?:{again})\b", "[NAME]", text)
    return re.sub(r"\[NAME\](?: \[NAME\])+", "[NAME]", text)


def _split_run(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Ordinary words at its start, the rest, ordinary words at its end."""
    ordinary = frozenset(_ORDINARY.split())
    own = [place for place, word in enumerate(words) if word not in ordinary] or [len(words)]
    return words[: own[0]], words[own[0] : own[-1] + 1], words[own[-1] + 1 :]
