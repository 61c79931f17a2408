"""Identities: what changes them and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bench.spec.run import Cell, PluginSpec, Row, RunSpec


def spec(**changes: Any) -> RunSpec:
    values: dict[str, Any] = {"task": {"name": "notes"}, "defense": [{"name": "fedavg"}], **changes}
    return RunSpec.model_validate(values)


def test_a_run_s_identity_follows_everything_training_depends_on() -> None:
    base = spec()
    assert base.run_id(0) == spec().run_id(0)
    others = [
        base.run_id(1),
        spec(defense=[{"name": "other"}]).run_id(0),
        spec(defense=[{"name": "fedavg", "config": {"x": 1}}]).run_id(0),
        spec(federation={"rounds": 4}).run_id(0),
        spec(model={"name": "tiny"}).run_id(0),
        spec(secret_seed=1).run_id(0),
    ]
    assert len({base.run_id(0), *others}) == 7


def test_a_planting_is_the_same_for_every_defense_and_training_setting() -> None:
    base = spec()
    same = [
        spec(defense=[{"name": "other"}]),
        spec(federation={"rounds": 9, "local": {"lr": 0.1}, "release": "none"}),
    ]
    assert {s.planting_id(0) for s in same} == {base.planting_id(0)}
    different = [spec(pool={"candidates": 10}), spec(federation={"silos": 4}), spec(task={"name": "x"})]
    assert base.planting_id(0) not in {s.planting_id(0) for s in different} | {base.planting_id(1)}


def test_a_row_has_no_seed_and_a_cell_is_a_row_and_a_seed() -> None:
    row = Row(run=spec(), attack=PluginSpec(name="mia"), adversary="server")
    other = Row(run=spec(), attack=PluginSpec(name="mia"), adversary="silo")
    assert row.row_id != other.row_id
    assert len({Cell(row, 0).cell_id, Cell(row, 1).cell_id, Cell(other, 0).cell_id}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"federation": {"silos": 0}}, "greater than or equal to 1"),
        ({"federation": {"nonsense": 1}}, "Extra inputs are not permitted"),
        ({"federation": {"dropouts": [{"round": 9, "silo": 0}]}}, "silo 0 in round 9, but there are 3 silos"),
        ({"pool": {"share": 1.0}}, "less than 1"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**changes)
