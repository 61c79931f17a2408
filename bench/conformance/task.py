"""Checks of a task: records that a game can rely on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from bench.assets.assets import Assets
from bench.conformance.checks import Check, expect
from bench.corpus.organisations import organisations
from bench.corpus.task import Record, Task
from bench.plugins.find import Plugin
from bench.spec.config import Config


def checks(plugin: Plugin, config: Config) -> Iterator[Check]:
    subject = _Subject(plugin, config)
    yield Check("builds", subject.builds)
    yield Check("source", subject.source)
    yield Check("records", subject.records_are_records)
    yield Check("ids", subject.ids_unique)
    yield Check("deterministic", subject.deterministic)
    yield Check("texts", subject.texts)
    yield Check("labels", subject.labels)
    yield Check("secrets", subject.secrets)
    yield Check("organisations", subject.organisations)
    yield Check("metrics", subject.metrics)


class _Subject:
    def __init__(self, plugin: Plugin, config: Config) -> None:
        self.plugin, self.config = plugin, config
        self.assets = Assets(quiet=True)

    @cached_property
    def task(self) -> Task:
        built = self.plugin.build(self.config)
        expect(isinstance(built, Task), f"build returned {type(built).__name__}, not a Task.")
        task: Task = built
        return task

    @cached_property
    def records(self) -> Sequence[Record]:
        return self.task.records(self.assets)

    def builds(self) -> str:
        return f"build returns a Task ({type(self.task).__name__})"

    def source(self) -> str:
        expect(self.task.source.strip(), "'source' is empty: say where the records come from, and their licence.")
        return "origin and licence are stated"

    def records_are_records(self) -> str:
        others = [type(r).__name__ for r in self.records if not isinstance(r, Record)]
        expect(not others, f"records() returned {len(others)} things that are no Record, the first a {others[:1]}.")
        expect(len(self.records) >= 2, f"records() returned {len(self.records)}; a game needs members and non-members.")
        return f"{len(self.records)} records"

    def ids_unique(self) -> str:
        counts = Counter(record.id for record in self.records)
        expect("" not in counts, "a record has an empty id.")
        twice = [name for name, count in counts.items() if count > 1]
        expect(not twice, f"{len(twice)} ids occur more than once, for instance '{(twice or [''])[0]}'.")
        return "every id is unique"

    def deterministic(self) -> str:
        again = self.plugin.build(self.config).records(self.assets)
        expect(len(again) == len(self.records), f"a second call gave {len(again)} records, not {len(self.records)}.")
        for number, (one, other) in enumerate(zip(self.records, again, strict=True)):
            expect(one == other, f"a second call gave another record at position {number} ('{one.id}').")
        return "a second call gives the same records in the same order"

    def texts(self) -> str:
        for record in self.records:
            expect(record.text.strip(), f"record '{record.id}' has an empty text.")
            whole = record.prompt + record.text + record.answer
            expect("\0" not in whole, f"record '{record.id}' holds a NUL character.")
            expect(_encodable(whole), f"record '{record.id}' is no valid Unicode text (half a surrogate pair).")
        counts = Counter(record.prompt + record.text for record in self.records)
        copies = sum(count - 1 for count in counts.values())
        return f"every text can be encoded; {copies} are exact copies of another"

    def labels(self) -> str:
        task = self.task
        expect(len(set(task.labels)) == len(task.labels), "a label is listed twice.")
        texts = [task.label_text(label) for label in task.labels]
        expect(len(set(texts)) == len(texts), "two labels have the same text, so no answer could tell them apart.")
        counts: Counter[str] = Counter()
        for record in self.records:
            if record.label is not None:
                _check_answer(task, record)
                counts[record.label] += 1
        unused = [label for label in task.labels if not counts[label]]
        expect(not unused, f"no record has the label '{(unused or [''])[0]}'.")
        return ", ".join(f"{counts[label]} {label}" for label in task.labels) or "the task has no labels"

    def secrets(self) -> str:
        found: Counter[str] = Counter()
        for record in self.records:
            for secret in record.secrets:
                expect(secret.kind and secret.text, f"record '{record.id}' marks a secret without a kind or text.")
                expect(
                    secret.text in record.prompt + record.text + record.answer,
                    f"record '{record.id}' marks the {secret.kind} '{secret.text}', which its text does not hold.",
                )
                found[secret.kind] += 1
        return ", ".join(f"{n} of kind {kind}" for kind, n in sorted(found.items())) or "no secret is marked"

    def organisations(self) -> str:
        named = sum(record.silo is not None for record in self.records)
        if not self.task.organised:
            expect(not named, f"{named} records name their organisation, and the task does not say 'organised = True'.")
            return "records name no organisation"
        return f"{len(organisations(self.records))} organisations"

    def metrics(self) -> str:
        names = self.task.metrics()
        expect(names, "metrics() is empty: the first one decides whether the model learned.")
        if "accuracy" in names:
            expect(self.task.labels, "'accuracy' needs labels, and the task has none.")
        return ", ".join(names)


def _check_answer(task: Task, record: Record) -> None:
    expect(record.label in task.labels, f"record '{record.id}' has the label '{record.label}', which is not listed.")
    wanted = task.answer_prefix + task.label_text(str(record.label))
    expect(
        record.answer == wanted,
        f"record '{record.id}' answers {record.answer!r}; its label '{record.label}' makes it {wanted!r}.",
    )


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
