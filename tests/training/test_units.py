"""What the model can't tell apart, and what is cut: from a user's file to the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.assets.assets import Assets
from bench.core.errors import UsageError
from bench.corpus.planting import Planting
from bench.corpus.task import Record, Secret
from bench.plugins.find import Plugins
from bench.spec.run import FederationSpec, ModelSpec, PluginSpec, PoolSpec, RunSpec
from bench.training.materials import Materials, Workshop, data_of
from bench.training.units import separated
from defenses.records.scrub import Scrub

WORDS = [
    "river",
    "stone",
    "lamp",
    "garden",
    "copper",
    "window",
    "silent",
    "market",
    "paper",
    "bridge",
    "winter",
    "orange",
    "dancer",
    "puzzle",
    "forest",
]
POOL = PoolSpec(candidates=8, heldout=4, validation=0, population=4, min_tokens=2, max_tokens=24)


def text(seed: int, count: int = 30) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


def materials(tmp_path: Path, rows: list[dict[str, Any]], pool: PoolSpec = POOL) -> Materials:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = PluginSpec(name="jsonl", config={"path": str(path)})
    spec = RunSpec(
        task=task,
        model=ModelSpec(name="tiny"),
        pool=pool,
        federation=FederationSpec(silos=2),
        defense=(PluginSpec(name="fedavg"),),
    )
    return Workshop(Plugins(), Assets(quiet=True), "cpu").materials(spec, 0)


def test_records_with_one_header_are_one_record_to_the_model(tmp_path: Path) -> None:
    """The texts differ in their whole second half, which no model of 24 tokens sees."""
    header = text(0, 40)
    rows = [{"text": f"{header} {text(i)}"} for i in range(1, 61)]
    with pytest.raises(UsageError, match="come in 1 clusters of near-duplicates"):
        materials(tmp_path, rows)
    half = [{"text": text(i)} for i in range(100, 130)]
    found = materials(tmp_path, [*rows[:4], *half])
    held = [found.pool.clusters[f"line-{i}"] for i in range(1, 5) if f"line-{i}" in found.pool.clusters]
    assert len(set(held)) <= 1


def test_what_is_cut_and_left_out_is_counted(tmp_path: Path) -> None:
    """By hand: one record of one token, one whose prompt fills all; of the others 4 are longer than 24 tokens. One
    secret stands at the start of a text, one at its end beyond the cut, one in a prompt."""
    rows: list[dict[str, Any]] = [{"text": text(i, 4)} for i in range(30)]
    rows[0] = {"text": f"KX9 {text(50)}", "secrets": ["KX9"]}
    rows[1] = {"text": f"{text(51)} ZZ7 {text(52)} QQ8", "secrets": ["QQ8"]}
    rows[2] = {"text": text(53)}
    rows[3] = {"prompt": "My name is Anna. ", "response": text(54), "secrets": ["Anna"]}
    short, full = {"text": "a"}, {"prompt": text(55, 40), "response": "yes"}
    found = materials(tmp_path, [*rows, short, full], POOL.model_copy(update={"heldout": 10}))
    data = data_of(found)
    assert data.given == 32
    assert data.left_out == {"nothing to predict": 1, "prompt and answer leave no room for a text": 1}
    assert data.used == len(found.pool.records) == 30
    assert (data.cut, data.secrets, data.secrets_cut) == (4, 3, 1)


def test_a_file_of_which_nothing_fits_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Record 'line-1' does not fit: its prompt has .* raise pool\.max_tokens"):
        materials(tmp_path, [{"prompt": text(i, 60), "response": "yes"} for i in range(40)])


def test_labels_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    alike = ["café", "cafe\u0301", " café ", "ca\u200bfé", "\uff43afé"]
    rows = [{"text": text(i), "label": alike[i % 5] if i % 2 else "tea"} for i in range(30)]
    assert materials(tmp_path, rows).corpus.task.labels == ("café", "tea")


# -- after a defense's records part --------------------------------------------------------------------------------


def scrubbed_alike() -> list[Record]:
    """Visits of which only the date differs, twice: a and b become one row, c and d another; e and f stay apart."""
    visit, call = f"Seen on {{}}. {text(1, 12)}", f"Called on {{}}. {text(2, 12)}"
    dates = ("12 March 2021", "13 March 2021")
    texts = [form.format(date) for form in (visit, call) for date in dates]
    alike = [Record(name, text) for name, text in zip("abcd", texts, strict=True)]
    return [
        *alike,
        Record("e", text(3, 12)),
        Record("f", text(4, 12)),
        Record("g", text(5, 12), secrets=(Secret("k", "x"),)),
    ]


def play(tmp_path: Path) -> Materials:
    records = scrubbed_alike()
    base = materials(tmp_path, [{"text": text(i, 12)} for i in range(100, 130)])
    pool = replace(
        base.pool,
        records={record.id: record for record in records},
        clusters={record.id: number for number, record in enumerate(records)},
    )
    return replace(base, pool=pool)


def test_what_a_records_part_makes_the_same_is_not_asked_about(tmp_path: Path) -> None:
    """a is trained on and b is not; scrubbed they are one row, so b can't be called a non-member. c and d are both
    non-members: they stay, and count as one."""
    before = Planting("p", {"silo-0": ("a", "e")}, {"silo-0": ("b", "c", "d", "f")})
    played = play(tmp_path)
    changed, asked = separated(played, before, (Scrub(),), 48)
    assert asked.members == before.members
    assert asked.nonmembers == {"silo-0": ("c", "d", "f")}
    assert changed.undecided == 1
    clusters = changed.pool.clusters
    assert clusters["a"] == clusters["b"]
    assert clusters["c"] == clusters["d"]
    assert len(set(clusters.values())) == 5
    assert separated(changed, asked, (Scrub(),), 48)[1] == asked


def test_a_non_member_that_reads_as_a_scrubbed_member_is_one(tmp_path: Path) -> None:
    """What is asked about is the record itself, so a record that says what scrubbing made of another is trained on."""
    played = play(tmp_path)
    (scrubbed,) = Scrub().apply([played.pool.records["a"]])
    records = {**played.pool.records, "f": replace(scrubbed, id="f")}
    played = replace(played, pool=replace(played.pool, records=records))
    _, asked = separated(played, Planting("p", {"silo-0": ("a",)}, {"silo-0": ("f", "e")}), (Scrub(),), 48)
    assert asked.nonmembers == {"silo-0": ("e",)}


def test_without_a_records_part_nothing_is_touched_and_with_nobody_left_it_is_refused(tmp_path: Path) -> None:
    played = play(tmp_path)
    before = Planting("p", {"silo-0": ("a",)}, {"silo-0": ("b",)})
    assert separated(played, before, (), 48) == (played, before)
    with pytest.raises(UsageError, match="makes every non-member of silo-0 the same as a record that was trained on"):
        separated(played, before, (Scrub(),), 48)
