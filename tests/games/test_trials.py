"""The sheet of games that are asked in trials."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.core.errors import SiloBenchError, UsageError
from bench.games.trials import Trial, TrialSheet, leakage, make_sheet


def trial(unit: int, grade: float | None, kind: str = "", chance: float = 0.5) -> Trial:
    answer = None if grade is None else {"accuracy": grade, "rank": grade / 2}
    return Trial(unit, kind, answer, {"accuracy": chance, "rank": chance})


def sheet(*trials: Trial) -> TrialSheet:
    return make_sheet("source", ("accuracy", "rank"), trials, "runs")


def test_means_by_kind_with_failures_as_zero() -> None:
    found = {
        r.name: r for r in leakage(sheet(trial(0, 1.0, "name"), trial(1, 0.0, "date"), trial(2, None, "name"))).leakage
    }
    assert found["accuracy"].value == pytest.approx(1 / 3)
    assert found["accuracy:name"].value == pytest.approx(1 / 2)
    assert found["accuracy:date"].value == 0.0
    assert found["accuracy:baseline"].value == 0.5
    assert found["rank:name:baseline"].value == 0.5
    assert found["accuracy"].n == {"trials": 3, "units": 3, "answered": 2}
    assert "1 of 3 unanswered" in found["accuracy"].note
    assert found["accuracy"].over == "runs"


def test_one_kind_is_not_reported_twice() -> None:
    names = [r.name for r in leakage(sheet(trial(0, 1.0, "name"), trial(1, 1.0, "name"))).leakage]
    assert names == ["accuracy", "rank", "accuracy:baseline", "rank:baseline"]


def test_trials_of_one_unit_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 2, 30).astype(float)
    alone = leakage(sheet(*(trial(i, g) for i, g in enumerate(grades)))).leakage[0]
    # every unit ten times: the same information, so an interval as wide
    again = leakage(sheet(*(trial(i, g) for i, g in enumerate(grades) for _ in range(10)))).leakage[0]
    assert again.value == pytest.approx(alone.value)
    assert again.high - again.low == pytest.approx(alone.high - alone.low, rel=0.05)  # type: ignore[operator]


def test_text_is_canonical_whatever_the_order_and_read_back() -> None:
    trials = [trial(3, 0.25, "a"), trial(1, None, "b"), trial(1, 1.0, "a")]
    one, other = sheet(*trials), sheet(*trials[::-1])
    assert one.to_json() == other.to_json()
    assert TrialSheet.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": [[0, "", [1.0], [0.5, 0.5]]]}, "grades"),
        ({"trials": [[0, "", [1.0, 2.0], [0.5, 0.5]]]}, "outside"),
        ({"trials": [[0, "", [1.0, 1.0], None]]}, "trials.0.3"),
        ({"trials": [[0, "a:b", None, [0.5, 0.5]]]}, "trials.0.1"),
        ({"trials": []}, "nothing to ask"),
        ({"figures": ["a:b", "c"]}, "figures"),
        ({"extra": 1}, "no field that is known"),
        ({"version": 2}, "upgrade"),
    ],
)
def test_malformed_text_is_refused(change: dict[str, object], message: str) -> None:
    value = json.loads(sheet(trial(0, 1.0)).to_json()) | change
    with pytest.raises(UsageError, match=message):
        TrialSheet.from_json(json.dumps(value, sort_keys=True, separators=(",", ":")))


def test_an_impossible_grade_is_the_game_s_error() -> None:
    with pytest.raises(SiloBenchError, match="outside"):
        sheet(trial(0, 1.5))
    with pytest.raises(SiloBenchError, match="expected"):
        make_sheet("source", ("accuracy",), [trial(0, 1.0)])
