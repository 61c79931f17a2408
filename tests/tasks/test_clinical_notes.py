"""The synthetic notes: reproducible, disjoint between seeds, worth memorising; the model pretrained on their kind."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import bench
from bench.assets.assets import Assets
from bench.corpus.clusters import cluster
from bench.corpus.task import Record
from bench.model.lora import LoraModel
from bench.spec.run import LoraSpec, ModelSpec
from tasks.clinical import generator, pretrain
from tasks.clinical.generator import PATIENTS, SEEDS, TASK_SEEDS, notes, record_number
from tasks.clinical.phrases import GENERAL, OUTCOMES
from tasks.clinical_notes import ClinicalNotes, Config, build

TINY = Path(bench.__file__).parent / "models" / "tiny"


def records(count: int = 1000, seed: int = 0) -> list[Record]:
    """Made anew."""
    return list(build(Config(notes=count, seed=seed)).records(Assets()))


@cache
def many() -> tuple[Record, ...]:
    """5,000 of seed 0, made once: a smaller number of notes are the first of them, as a test here shows."""
    return tuple(records(5000))


def undo(number: str) -> tuple[int, int]:
    """(seed, patient) of a record number: its rounds backwards. That this exists is what makes numbers unique."""
    letters = generator._LETTERS.index(number[0]) * 24 + generator._LETTERS.index(number[1])
    left, right = divmod(letters * 1_000_000 + int(number[3:]), PATIENTS)
    for turn in (2, 0):
        right = (right - generator._round(turn + 1, left)) % PATIENTS
        left = (left - generator._round(turn, right)) % SEEDS
    return left, right


@given(st.integers(0, SEEDS - 1), st.integers(0, PATIENTS - 1))
def test_a_record_number_belongs_to_one_patient_of_one_seed(seed: int, index: int) -> None:
    number = record_number(seed, index)
    assert re.fullmatch(r"[A-HJ-NP-Z]{2} \d{6}", number)
    assert undo(number) == (seed, index)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (SEEDS, 0), (0, -1), (0, PATIENTS)])
def test_record_numbers_outside_the_range_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        record_number(seed, index)


def test_seeds_share_no_patient_and_pretraining_has_seeds_of_its_own() -> None:
    groups = [{r.group for r in records(seed=seed)} for seed in (0, 1, TASK_SEEDS - 1)]
    kept = (pretrain.GENERAL_SEED, *pretrain.WARD_SEEDS)
    together = [*groups, *({note.patient for note in notes(seed, 1000, GENERAL)} for seed in kept)]
    assert len(set().union(*together)) == sum(map(len, together))
    assert min(kept) >= TASK_SEEDS
    assert len(set(kept)) == 4
    with pytest.raises(ValidationError):
        Config(seed=TASK_SEEDS)


def test_the_same_seed_gives_the_same_notes_and_more_of_them_come_after() -> None:
    assert records() == records()
    assert records(400) == records(1000)[:400] == list(many()[:400])
    assert records(400) != records(400, seed=1)


@pytest.mark.parametrize("bad", [{"notes": 1}, {"notes": PATIENTS + 1}, {"seed": -1}, {"patients": 3}])
def test_options_out_of_range(bad: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Config(**bad)  # type: ignore[arg-type]


def test_secrets_stand_in_the_text() -> None:
    for record in many()[:1000]:
        assert all(secret.text in record.text for secret in record.secrets)
        kinds = Counter(secret.kind for secret in record.secrets)
        assert kinds["name"] == kinds["record-number"] == 1
        assert kinds["date"] >= 1
        assert set(kinds) == {"name", "record-number", "date"}
        assert next(s.text for s in record.secrets if s.kind == "record-number") == record.group
        written = re.findall(r"\d+ (?:January|February|March|April|May|June|July|August|\w+ber) \d{4}", record.text)
        assert sorted(written) == sorted(s.text for s in record.secrets if s.kind == "date")


def test_texts_are_whole() -> None:
    for record in many()[:1000]:
        assert not re.search(r"[{}|]|  |\ba a\b|The a ", record.text)
        assert record.text.endswith(".")
        assert record.prompt == ""


def test_a_patient_has_one_note_or_two() -> None:
    held = defaultdict(list)
    for record in many():
        held[record.group].append(record)
    sizes = Counter(map(len, held.values()))
    assert set(sizes) == {1, 2}
    # the number of patients with a second note is binomial(4166, .2), standard deviation 26: five of them either way
    assert abs(sizes[2] - 0.2 * sum(sizes.values())) < 5 * 27
    for both in held.values():
        assert len({(r.field, *(s.text for s in r.secrets if s.kind == "name")) for r in both}) == 1
        assert len({r.text for r in both}) == len(both)


def test_fields_and_labels() -> None:
    found = many()[:3000]
    fields, labels = Counter(r.field for r in found), Counter(r.label for r in found)
    assert len(fields) == 6
    assert min(fields.values()) > 350
    assert tuple(sorted(labels)) == OUTCOMES == ClinicalNotes.labels
    # shares .4, .3, .3 of 3000, standard deviation at most .009
    for outcome, share in zip(OUTCOMES, (0.4, 0.3, 0.3), strict=True):
        assert labels[outcome] / 3000 == pytest.approx(share, abs=0.045)
    task = ClinicalNotes(Config())
    assert all(r.answer == task.answer_prefix + task.label_text(r.label or "") for r in found)
    assert task.metrics() == ("text-perplexity", "answer-perplexity", "accuracy")


def test_the_text_implies_the_outcome() -> None:
    """Naive Bayes over words, trained on other notes, names the outcome nearly always."""
    train, test = many()[:2000], records(1000, seed=1)
    counts: dict[str, Counter[str]] = {outcome: Counter() for outcome in OUTCOMES}
    for record in train:
        counts[record.label or ""].update(words(record.text))
    vocabulary = set().union(*counts.values())
    totals = {outcome: sum(counter.values()) + len(vocabulary) for outcome, counter in counts.items()}

    def guess(text: str) -> str:
        def score(outcome: str) -> float:
            return sum(np.log((counts[outcome][word] + 1) / totals[outcome]) for word in words(text))

        return max(OUTCOMES, key=score)

    assert np.mean([guess(record.text) == record.label for record in test]) > 0.9


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.mark.parametrize("limit", [32, 96])
def test_notes_of_different_patients_are_no_near_duplicates(limit: int) -> None:
    found = many()[:2000]
    numbers = cluster([" ".join(r.text.split()[:limit]) for r in found], [r.group for r in found])
    assert len(set(numbers)) == len({r.group for r in found})


def test_the_shipped_model_is_small_and_complete() -> None:
    sizes = {path.name: path.stat().st_size for path in TINY.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(sizes)
    assert sum(sizes.values()) <= 4_000_000


@pytest.fixture(scope="module")
def tiny() -> LoraModel:
    return LoraModel.load(TINY, ModelSpec(name="tiny"), LoraSpec(), device="cpu")


def test_tokens_of_a_note(tiny: LoraModel) -> None:
    found = many()[:300]
    tokens = tiny.encode(found, 256, ClinicalNotes.answer_prefix)
    assert 50 <= np.median(tokens.lengths) <= 90
    assert tokens.lengths.max() <= 160
    assert [tiny.decode(tokens.ids[i, :n]) for i, n in enumerate(tokens.lengths)] == [r.text + r.answer for r in found]
    labels = [row[0] for row in tiny.label_rows([f" {outcome}" for outcome in OUTCOMES])]
    assert [labels.index(int(tokens.ids[i, at])) for i, at in enumerate(tokens.answer)] == [
        OUTCOMES.index(r.label or "") for r in found
    ]


def test_the_shipped_model_has_learnt_its_language(tiny: LoraModel) -> None:
    """Notes of new patients: perplexity far below the unigram model's, even one fitted to these very notes."""
    fresh = [Record(str(i), n.text, answer=n.answer) for i, n in enumerate(notes(4321, 150, GENERAL))]
    for found, share in ((fresh, 0.02), (records(150, seed=4322), 0.1)):
        tokens = tiny.encode(found, 256, ClinicalNotes.answer_prefix)
        stats = tiny.stats(tokens)
        learnt = np.exp(-stats.logp[tokens.predicted].mean())
        counts = np.bincount(tokens.ids[tokens.predicted])
        p = counts[counts > 0] / counts.sum()
        assert learnt < share * np.exp(-(p * np.log(p)).sum())


def test_pretraining_is_repeatable(tmp_path: Path) -> None:
    plan = pretrain.Plan(steps=3, batch=4, notes=60, ward_notes=6, heldout=5, vocabulary=400, tokenizer_notes=30)
    made = []
    for name in ("one", "two"):
        pretrain.run(plan, tmp_path / name)
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    loaded = LoraModel.load(tmp_path / "one", ModelSpec(name="one"), LoraSpec(), device="cpu")
    assert loaded.vocab_size == 400


def test_pretraining_text() -> None:
    plan = pretrain.Plan(notes=300, ward_notes=300, heldout=30)
    data = pretrain.corpus(plan)
    numbers = re.compile(r"\b[A-HJ-NP-Z]{2} \d{6}\b")
    seen = set(numbers.findall(" ".join(text for text, _ in data.train)))
    for heldout in (data.general, data.ward):
        assert len(heldout) == 30
        assert not seen & set(numbers.findall(" ".join(text for text, _ in heldout)))
        assert all(answer for _, answer in heldout)
    assert all(answer for _, answer in data.train[:300])
    # outcomes of the others: binomial(300, .1), standard deviation 5.2
    assert 4 <= sum(bool(answer) for _, answer in data.train[300:]) <= 56


def test_unigram_perplexity_by_hand() -> None:
    # counts after the first token of each row, plus one: 3, 2, 1 of 6
    value = pretrain.unigram_perplexity([[2, 0, 0], [2, 1]], [[1, 0, 2]], 3)
    assert value == pytest.approx(np.exp(-(np.log(3 / 6) + np.log(1 / 6)) / 2))


def test_fine_tuning_memorises_without_unlearning(tiny: LoraModel) -> None:
    """What the smoke runs rest on: one silo's training on 16 notes shows on them, and other notes get no worse."""
    found = records(400, seed=5)
    firsts = list({record.group: record for record in found}.values())[:128]
    tokens = tiny.encode(firsts, 96, ClinicalNotes.answer_prefix)
    before = tiny.stats(tokens).losses()
    tiny.set_adapter(tiny.initial_adapter(np.random.default_rng(0)))
    optimizer = torch.optim.AdamW(tiny.parameters(), lr=5e-3, weight_decay=0.0)
    for step in range(12):
        optimizer.zero_grad()
        tiny.losses(tokens.take(range(8 * (step % 2), 8 * (step % 2) + 8))).mean().backward()
        optimizer.step()
    gain = before - tiny.stats(tokens).losses()
    tiny.set_adapter(None)
    above = (gain[:16, None] > gain[None, 16:]).mean()
    assert above > 0.7
    assert gain[16:].mean() > 0


@pytest.mark.slow
def test_the_shipped_tokenizer_is_the_scripts() -> None:
    import json

    plan = pretrain.Plan()
    texts = [text + answer for text, answer in pretrain.corpus(plan).train]
    made = pretrain.train_tokenizer(texts[:: len(texts) // plan.tokenizer_notes], plan.vocabulary)
    shipped = json.loads((TINY / "tokenizer.json").read_text())
    assert json.loads(made.to_str())["model"] == shipped["model"]
