"""What goldens are for: an answer that is none of today's harness is told from one that another processor gives."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from bench import privacy
from bench.defense.compose import fill
from bench.defense.parts import Mechanism
from tests.golden.agreement import ELSEWHERE, SEALED, UNDER_SEAL, Tolerance, disagreements, tolerance
from tests.golden.cells import Answer, answers, rounded, unshared
from tests.golden.checks import PLUGINS, recorded
from tests.golden.settings import keys

KEYS = {defense: keys(PLUGINS, defense, ("mia",)) for defense in ("dp-sgd", "fedprox", "noise", "selective-ckks")}


def golden(defense: str, attack: str = "") -> Answer:
    return {"made": {}, **unshared(recorded(KEYS[defense][attack]))}


def columns(answer: Answer) -> list[tuple[dict[str, Any], str]]:
    """Every score of every sheet, by the table that holds it."""
    sheets = [cell["sheet"] for cell in answer["cells"].values() if cell["sheet"] is not None]
    return [(sheet["scores"], name) for sheet in sheets for name in sheet["scores"]]


def redrawn(answer: Answer) -> None:
    rng = np.random.default_rng(1)
    for table, name in columns(answer):
        table[name] = rng.permutation(table[name]).tolist()


def shaken(answer: Answer) -> None:
    rng = np.random.default_rng(2)
    for table, name in columns(answer):
        values = np.asarray(table[name])
        table[name] = (values + 0.05 * np.ptp(values) * rng.standard_normal(len(values))).tolist()


def turned(answer: Answer) -> None:
    for table, name in columns(answer):
        table[name] = [-value for value in table[name]]


def one_member_swapped(answer: Answer) -> None:
    row = answer["cells"]["server"]["sheet"]["candidates"][0]
    row[3] = 1 - row[3]


def one_reading_less(answer: Answer) -> None:
    answer["cells"]["server"]["reads"].pop()


def one_score_less(answer: Answer) -> None:
    table, name = columns(answer)[0]
    del table[name]


def more_bytes(answer: Answer) -> None:
    answer["run"]["bytes"]["up_bytes"]["upload"] *= 1.05


def another_sigma(answer: Answer) -> None:
    for notes in answer["run"]["mechanisms"].values():
        notes[0][1]["sigma"] *= 1.1


def one_step_less(answer: Answer) -> None:
    for notes in answer["run"]["mechanisms"].values():
        notes[0][1]["steps"] -= 1


def half_the_rounds(answer: Answer) -> None:
    """The claim that the first of two rounds alone would give."""
    run = golden("dp-sgd")["run"]
    logged = {name: [Mechanism(*note) for note in notes if note[2] == 0] for name, notes in run["mechanisms"].items()}
    promises = fill(PLUGINS.find("defense", "dp-sgd").build({})).promises
    claim = privacy.claim(logged, promises, frozenset({"server"}), list(logged), run["nominal_sizes"])
    assert claim.epsilon is not None
    answer["cells"]["server"]["claim"] = rounded(claim.model_dump(mode="json"))


BROKEN: list[tuple[Callable[[Answer], None], str]] = [
    *((change, "mia") for change in (redrawn, shaken, turned, one_member_swapped, one_reading_less, one_score_less)),
    (half_the_rounds, "mia"),
    (more_bytes, ""),
    (another_sigma, ""),
    (one_step_less, ""),
]


@pytest.mark.parametrize(("change", "attack"), BROKEN, ids=[change.__name__ for change, _ in BROKEN])
def test_a_broken_answer_is_found_even_where_another_processor_is_allowed_for(
    change: Callable[[Answer], None], attack: str
) -> None:
    kept = golden("dp-sgd", attack)
    broken = deepcopy(kept)
    change(broken)
    assert disagreements(kept, kept, Tolerance()) == disagreements(kept, kept, ELSEWHERE) == []
    assert disagreements(kept, broken, Tolerance())
    assert disagreements(kept, broken, ELSEWHERE)


@pytest.mark.parametrize(
    ("defense", "setting", "value"),
    [
        ("fedprox", "federation.local.lr", "0.009"),
        ("fedprox", "federation.local.steps", "1"),
        ("noise", "noise.sd", "0.11"),
        ("selective-ckks", "federation.local.lr", "0.9"),
    ],
)
def test_a_run_that_differs_by_a_tenth_or_by_a_step_is_found(defense: str, setting: str, value: str) -> None:
    key = KEYS[defense]["mia"]
    fresh = answers(PLUGINS, defense, {setting: value})[key]
    assert disagreements(recorded(key), fresh, UNDER_SEAL if defense in SEALED else ELSEWHERE), (
        f"{key} is not told from {setting}={value}"
    )


def test_the_last_digit_counts_where_the_machine_is_alike_and_the_sums_are_exact() -> None:
    kept = golden("noise", "mia")
    moved = deepcopy(kept)
    table, name = columns(moved)[0]
    table[name][0] *= 1 + 1e-8
    assert disagreements(kept, rounded(moved), tolerance("noise", kept, kept))
    assert not disagreements(kept, rounded(moved), tolerance("noise", kept, {**kept, "made": {"threads": 2}}))
    assert not disagreements(kept, rounded(moved), tolerance("fedshield", kept, kept))
