"""Mutants of valid files end in an answer or in a sentence. ``python -m tests.fuzz`` counts them."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError
from tests.fuzz.targets import Target, targets
from tests.fuzz.world import made

NAMES = (
    *("frames", "headers of sums", "containers", "transcript manifest", "messages", "training.json", "sums.json"),
    *("harness.json", "origin.json", "npy", "view", "reading", "results", "sheets", "matrix cells", "packed texts"),
    *("plantings", "options", "jsonl task", "plug-in", "preset", "cache manifest", "cache record", "size of a model"),
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
)
#: what a case can be; those of one parser are the same on every machine
CASES = st.integers(0, 2**62)
MANY = int(os.environ.get("SILOBENCH_FUZZ_CASES", "10000"))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    found = targets(made(tmp_path_factory.mktemp("fuzz")))
    assert tuple(found) == NAMES
    return found


def hunt(target: Target, cases: int) -> None:
    @settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(CASES)
    def answers(number: int) -> None:
        assert not target.bad(number)

    answers()


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_understood_and_mutants_are_answered(known: dict[str, Target], name: str) -> None:
    target = known[name]
    for seed in target.seeds:
        try:
            target.run(seed)
        except SiloBenchError:
            assert name == "headers of sums"  # one of them is of another support
    hunt(target, 4 if target.costly else 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_mutants_are_answered(known: dict[str, Target], name: str) -> None:
    hunt(known[name], max(MANY // 10, 1) if known[name].costly else MANY)
