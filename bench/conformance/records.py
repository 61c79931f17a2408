"""Checks of a records part: what a silo trains on stays a set of records."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.conformance.checks import Check, expect
from bench.conformance.fixtures import sentences
from bench.corpus.task import Record
from bench.defense.parts import RecordsPart


def checks(part: RecordsPart) -> Iterator[Check]:
    yield Check(f"records: {type(part).__name__}", lambda: _applies(part))


def _applies(part: RecordsPart) -> str:
    given = [Record(f"r{i}", text) for i, text in enumerate(sentences(20, 12, np.random.default_rng(0)))]
    given += [Record("copy", given[0].text)]
    before = list(given)
    first, second = list(part.apply(given)), list(part.apply(given))
    expect(given == before, "it changed the list that it was given.")
    expect(first == second, "it gives other records when asked again.")
    ids = [record.id for record in first]
    expect(set(ids) <= {record.id for record in given}, "it made a record with a new id.")
    expect(len(set(ids)) == len(ids), "it gives a record twice.")
    expect(all(record.text.strip() for record in first), "it leaves a record without text; drop it instead.")
    expect(list(part.apply([])) == [], "it makes records out of none.")
    return f"keeps {len(first)} of {len(given)} records"
