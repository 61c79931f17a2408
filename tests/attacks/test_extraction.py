"""Extraction: what was memorised is found, what was not is chance, and nothing is taken on the attack's word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attacks import extraction
from bench.assess.assess import Assessor
from bench.assess.plays.extraction import CHOICES, _ranked, discoverable, questions
from bench.assess.tools import Memo
from bench.attack.attack import Attack, Filled
from bench.corpus.planting import Planting
from bench.spec.run import RunSpec
from tests.trained import train


def spec() -> RunSpec:
    return RunSpec.model_validate(
        {
            "task": {"name": "clinical-notes", "config": {"notes": 300, "seed": 0}},
            "model": {"name": "tiny"},
            "pool": {"candidates": 8, "validation": 0, "heldout": 6, "population": 40, "max_tokens": 64},
            "federation": {
                "silos": 2,
                "rounds": 1,
                "lora": {"rank": 16, "alpha": 32, "targets": ["q_proj", "v_proj", "up_proj", "down_proj"]},
                "local": {"epochs": 50, "batch": 6, "lr": 2e-2},
            },
            "defense": [{"name": "fedavg", "config": {}}],
            "secret_seed": 5,
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Assessor:
    """A run that has memorised its records."""
    return Assessor(train(spec(), tmp_path_factory.mktemp("store")), Memo())


def figures(table: Assessor, attack: Attack, adversary: str = "server") -> dict[str, float]:
    found = table.assess("extraction", attack, adversary)
    assert found.status == "ok", found.note
    return {f.name: float(f.value or 0.0) for f in found.leakage}


def test_what_was_memorised_is_extracted(table: Assessor) -> None:
    found = figures(table, extraction.build(extraction.Config()))
    assert found["discoverable"] > 0.9
    assert found["inferred"] > 0.9
    assert found["greedy"] > 0.8
    assert found["discoverable:baseline"] < 0.1
    assert {"discoverable:name", "discoverable:date", "discoverable:record-number"} <= set(found)


def test_records_that_were_not_trained_on_are_chance(table: Assessor) -> None:
    swapped = Planting(table.run.planting.id, table.run.planting.nonmembers, table.run.planting.members)
    other = Assessor(replace(table.run, case=replace(table.run.case, plantings=(swapped, swapped))), table.memo)
    found = other.assess("extraction", extraction.build(extraction.Config()), "server")
    inferred = next(f for f in found.leakage if f.name == "inferred")
    # its own intervals would be wide: every secret is right with chance 1/16 (ties are none), 8 records
    n = inferred.n["trials"]
    assert inferred.value is not None
    assert inferred.value < 1 / CHOICES + 4.9 * np.sqrt(1 / CHOICES * (1 - 1 / CHOICES) / inferred.n["units"])
    assert n >= 15
    values = {f.name: f.value for f in found.leakage}
    assert values["discoverable"] == 0.0


class Boaster(Attack):
    """Claims everything, and reads nothing but what opened."""

    game = "extraction"
    needs = frozenset({"adapter", "upload"})

    def fill(self, view, blanks, tools):  # type: ignore[no-untyped-def]
        return Filled({}, tuple(np.zeros(len(b.choices)) for b in blanks), ("nothing",))


def test_an_attack_can_not_claim_a_probability(table: Assessor) -> None:
    found = figures(table, Boaster())
    assert found["discoverable"] == 0.0
    assert found["inferred"] == 0.0  # it named no reading: failures


def test_blanks_hold_the_secret_once_in_random_places(table: Assessor) -> None:
    asked = questions(table, ("silo-0", "silo-1"), np.random.default_rng(0))
    members = {i for held in table.run.planting.members.values() for i in held}
    texts = {table.materials.pool.records[i].text for i in members}
    for one in asked:
        blank = one.blank
        secret = blank.choices[one.truth]
        assert blank.before + secret + blank.after in texts
        assert len(set(blank.choices)) == len(blank.choices) <= CHOICES
        assert len(blank.filled) == len(blank.inserted) == len(blank.choices)
        # the probability is that of the secret's own tokens
        row = blank.inserted.ids[one.truth][blank.inserted.predicted[one.truth]]
        assert table.materials.model.decode(row.tolist()).strip() == secret
    places = [one.truth for one in asked]
    assert len(set(places)) > 5


def test_a_secret_is_as_probable_in_its_whole_record_as_alone(table: Assessor) -> None:
    """Where the whole record begins with the same tokens, it is measured there, by a pass that is made anyway."""
    from bench.assess.plays.extraction import _measure, _secret
    from bench.assess.plays.table import Seat, tools

    seat = Seat(0, *table._build("server")[0])
    asked = questions(table, seat.victims, np.random.default_rng(2))
    shared = 0
    lent = tools(table, "extraction", "server", seat)
    reading = seat.view.last_adapter("silo-0")
    for one, found in zip(asked, _measure(asked, [reading] * len(asked), lent), strict=True):
        alone = one.blank.inserted.take([one.truth])
        record, here = _secret(one)
        assert record.ids[0][here].tolist() == alone.ids[0][alone.predicted[0]].tolist()
        shared += len(record.ids[0]) > int(alone.lengths[0])
        stats = lent.token_stats(reading, alone)
        logp = float(stats.logp[0][alone.predicted[0]].sum())
        assert lent.token_stats(reading, record).logp[0][here].sum() == pytest.approx(logp, abs=1e-3)
        assert found["discoverable"] == discoverable(logp)
    assert shared > len(asked) / 2


def test_the_same_blanks_in_another_order_get_the_same_answers(table: Assessor) -> None:
    from bench.assess.plays.table import Seat, tools

    views = table._build("server")
    seat = Seat(0, *views[0])
    asked = [q.blank for q in questions(table, seat.victims, np.random.default_rng(1))][:12]
    attack = extraction.build(extraction.Config())
    one = attack.fill(seat.view, asked, tools(table, "extraction", "server", seat)).scores
    other = attack.fill(seat.view, asked[::-1], tools(table, "extraction", "server", seat)).scores[::-1]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("p", "expected"),
    # 1 - (1 - p)^100 >= 1/2 exactly from p = 1 - 2^(-1/100) on
    [(1.0, 1.0), (1 - 2**-0.01 + 1e-9, 1.0), (1 - 2**-0.01 - 1e-9, 0.0), (1e-12, 0.0)],
)
def test_discoverable_by_probability(p: float, expected: float) -> None:
    assert discoverable(float(np.log(p))) == expected


def test_ranks_and_ties() -> None:
    assert _ranked(np.array([3.0, 2.0, 1.0, 0.0]), 0) == {"inferred": 1.0, "exposure": 1.0}
    assert _ranked(np.array([3.0, 2.0, 1.0, 0.0]), 3) == {"inferred": 0.0, "exposure": 0.0}
    assert _ranked(np.array([3.0, 2.0, 1.0, 0.0]), 1) == {"inferred": 0.0, "exposure": 0.5}
    tied = _ranked(np.zeros(4), 2)
    assert tied["inferred"] == 0.25
    assert tied["exposure"] == pytest.approx((2 - np.log2(2.5)) / 2)


def test_a_wrong_answer_is_an_error_of_the_row(table: Assessor) -> None:
    class Short(Boaster):
        def fill(self, view, blanks, tools):  # type: ignore[no-untyped-def]
            return Filled({}, (), ())

    found = table.assess("extraction", Short(), "server")
    assert found.status == "error"
    assert "blanks" in found.note


def test_without_marked_secrets_the_endings_are_asked_for(table: Assessor, tmp_path: Path) -> None:
    pool = table.materials.pool
    bare = {i: replace(r, secrets=()) for i, r in pool.records.items()}
    materials = replace(table.materials, pool=replace(pool, records=bare))
    other = Assessor(replace(table.run, case=replace(table.run.case, materials=materials)), table.memo)
    asked = questions(other, ("silo-0",), np.random.default_rng(0))
    assert {q.blank.kind for q in asked} == {"ending"}
    assert all(len(q.blank.choices) == 2 for q in asked)
    assert all(q.blank.after == "" for q in asked)
