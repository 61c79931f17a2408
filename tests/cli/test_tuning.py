"""Tuning: the grid of trials, who gets which, the best of each; and that held-out records play no part."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli.grid import Request
from bench.cli.main import main
from bench.cli.tuning import Attempt, _plans, best, combinations
from bench.core.errors import UsageError
from bench.plugins.find import Plugins

ASKED = Request(defense="", attack="mia", preset="smoke")


def test_combinations_by_hand() -> None:
    assert combinations(["pool.share=0.5", "federation.local.lr=1e-3,0.01"]) == [
        {"pool.share": 0.5, "federation.local.lr": 0.001},
        {"pool.share": 0.5, "federation.local.lr": 0.01},
    ]
    assert combinations(["prune.of=weights,delta"]) == [{"prune.of": "weights"}, {"prune.of": "delta"}]


@pytest.mark.parametrize(
    ("tries", "says"),
    [
        ([], "Name what to try"),
        (["federation.local.lr"], "is not of the form"),
        (["federation.local.lr=1,,2"], "is not of the form"),
        (["=1,2"], "is not of the form"),
        (["pool.share=0.1", "pool.share=0.2"], "gives pool.share twice"),
        ([f"a.b={','.join(map(str, range(40)))}", f"a.c={','.join(map(str, range(40)))}"], "1600 combinations"),
    ],
)
def test_bad_tries_are_refused(tries: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        combinations(tries)


def test_a_defense_is_tried_with_its_own_options_only_and_no_setting_twice() -> None:
    wanted = combinations(["prune.sparsity_end=0.5,0.9", "federation.local.lr=1e-3,1e-2"])
    plugins = Plugins()
    of_prune = [values for values, _ in _plans(ASKED, "prune", wanted, plugins)]
    of_fedavg = [values for values, _ in _plans(ASKED, "fedavg", wanted, plugins)]
    assert of_prune == wanted
    assert of_fedavg == [{"federation.local.lr": 0.001}, {"federation.local.lr": 0.01}]
    _, grid = _plans(ASKED, "prune", wanted, plugins)[1]
    assert grid.rows[0].run.federation.local.lr == 0.01
    assert grid.rows[0].run.defense[0].config["sparsity_end"] == 0.5


def test_an_unknown_key_is_named_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"no key 'federation\.local\.lrr'"):
        _plans(ASKED, "fedavg", [{"federation.local.lrr": 1}], Plugins())


def trial(defense: str, value: float, better: str = "lower") -> Attempt:
    return Attempt(defense, {"x.y": value}, "perplexity", value, 5.0, better, 10, (0,), ("r",))


def test_the_best_is_by_the_metric_s_own_direction_and_the_first_of_equals() -> None:
    low, high, again = trial("a", 2.0), trial("a", 3.0), trial("a", 2.0)
    assert best([high, low, again])["a"] is low
    up = [replace(t, better="higher") for t in (low, high)]
    assert best(up)["a"] is up[1]
    assert set(best([low, trial("b", 9.0)])) == {"a", "b"}
    assert low.sets == "--set x.y=2.0"


def test_a_run_of_two_trials_measures_validation_records(tmp_path: Path) -> None:
    words = ["tune", "--defense", "fedavg", "--preset", "smoke", "--json", "--store", str(tmp_path)]
    words += ["--set", "federation.rounds=1", "--set", "pool.heldout=4", "--set", "pool.validation=8"]
    words += ["--try", "federation.local.lr=1e-9,1e-2"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(words) == 0
    still, learnt = (json.loads(line) for line in out.getvalue().splitlines())
    assert still["records"] == learnt["records"] == 8
    assert still["value"] == pytest.approx(still["base"], rel=1e-4)
    assert learnt["value"] != pytest.approx(learnt["base"], rel=1e-4)
    assert len({still["runs"][0], learnt["runs"][0]}) == 2
