"""Versions of what the harness's numbers mean."""

from __future__ import annotations

import pytest

from bench.core import versions


def test_a_result_is_told_all_three_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("TRAINING", 7), ("VIEWS", 8), ("SCORING", 9)):
        monkeypatch.setattr(versions, name, number)
    assert versions.harness() == {"TRAINING": 7, "VIEWS": 8, "SCORING": 9}


def test_versions_count_from_1_and_no_caller_can_change_them() -> None:
    found = versions.harness()
    assert all(type(number) is int and number >= 1 for number in found.values())
    found["TRAINING"] = 99
    assert versions.harness()["TRAINING"] == versions.TRAINING != 99


def test_every_number_of_the_module_is_one_that_results_are_told() -> None:
    assert {name for name in vars(versions) if name.isupper()} == set(versions.harness())
