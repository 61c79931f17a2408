"""Audits on the leaderboard and after a run: beside the claim that they are about, and in a table of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.board.leaderboard import planting_of, render
from bench.board.report import render as report
from bench.board.rows import over_runs, rows
from bench.spec.result import Claim, Leakage, Result
from tests.board.test_leaderboard import cells
from tests.results_factory import result, run_spec

CLAIM = Claim(epsilon=7.99, delta=0.003, unit="record", adjacency="add-remove")
N = {"canaries": 300, "in": 150, "guesses": 300, "correct": 200, "coalitions": 1}


def figure(name: str, value: float | None, **more: Any) -> Leakage:
    return Leakage(name=name, value=value, n=N, over="coins of this run's canaries", **more)


def audit(bound: float = 0.31, limit: float = 3.1, claim: Claim | None = CLAIM, **changes: Any) -> Result:
    spec = {"run": {**run_spec("dp-sgd"), "variant": {"name": "audit", "config": {"canaries": 300, "repeat": 1}}}}
    said = {"epsilon": bound, "limit": limit, "canaries": 300, "unit": "record", "proven": True}
    leakage = (
        figure("epsilon", bound),
        figure("epsilon_limit", limit),
        figure("epsilon_gdp", 0.5),
        figure("epsilon_gaussian", 9.5),
        figure("canary_auc", 0.6, low=0.55, high=0.65),
        figure("epsilon:baseline", 0.0),
    )
    compared = claim is not None and claim.epsilon is not None
    values = {"defense": "dp-sgd", "attack": "audit", "spec": spec, "leakage": leakage, "utility": (), "claim": claim}
    return result(**{**values, "audit": {**said, "compared": compared}, **changes})


def ordinary(**changes: Any) -> Result:
    return result(**{"defense": "dp-sgd", "claim": CLAIM, **changes})


def page(*results: Result) -> str:
    return render(results)["reviews.md"]


def test_the_row_of_the_same_training_carries_its_audit() -> None:
    (row,) = cells(page(ordinary(), audit()), "outsider")
    assert row["ε"] == "7.99 (δ 0.003, record); audit ≥ 0.31 of at most 3.1"
    (row,) = cells(page(ordinary()), "outsider")
    assert row["ε"] == "7.99 (δ 0.003, record)"


def test_only_its_adversary_and_its_training_do() -> None:
    other = ordinary(spec={"run": run_spec("dp-sgd", federation__rounds=5)})
    text = page(ordinary(), other, ordinary(adversary="server"), audit())
    found = {(r["defense"], r["ε"]) for r in cells(text, "outsider")}
    assert {e for _, e in found} == {"7.99 (δ 0.003, record); audit ≥ 0.31 of at most 3.1", "7.99 (δ 0.003, record)"}
    assert all("audit" in e for d, e in found if "rounds=3" in d)
    assert cells(text, "server")[0]["ε"] == "7.99 (δ 0.003, record)"


def test_the_largest_of_several_says_of_how_many() -> None:
    (row,) = cells(page(ordinary(), audit(), audit(0.5, 3.0, seed=1)), "outsider")
    assert row["ε"].endswith("audit ≥ 0.5 of at most 3, the largest of 2")


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "void"},
        {"audit": {"epsilon": 1.0, "limit": 3.0, "unit": "group of 3", "compared": False}},
        {"audit": {"epsilon": 1.0, "limit": 3.0, "unit": "record", "compared": False}},
        {"audit": {"epsilon": "1", "limit": None, "unit": "record", "compared": True}},
        {"audit": None},
    ],
    ids=["void", "groups", "other unit", "malformed", "none"],
)
def test_what_says_nothing_about_the_claim_is_not_beside_it(changes: dict[str, Any]) -> None:
    (row,) = cells(page(ordinary(), audit(**changes)), "outsider")
    assert row["ε"] == "7.99 (δ 0.003, record)"


def test_where_nothing_is_claimed_the_audit_still_stands() -> None:
    (row,) = cells(page(ordinary(claim=Claim()), audit(claim=Claim())), "outsider")
    assert row["ε"] == "∞; audit ≥ 0.31 of at most 3.1"


def test_audits_have_a_table_of_their_own_and_no_other_row() -> None:
    text = page(ordinary(), audit(), audit(0.5, seed=1))
    assert len(cells(text, "outsider")) == 1
    first, second = cells(text, "Audits")
    assert first["proven ε ≥"] == "0.31"
    assert (first["at most"], first["if Gaussian ε ≥"], first["estimated ε"]) == ("3.1", "0.5", "9.5")
    assert first["AUC of canaries"] == "0.600 [0.550, 0.650]"
    assert (first["canaries"], first["ε claimed"], first["seed"]) == ("300", "7.99 (δ 0.003, record)", "0")
    assert (second["proven ε ≥"], second["seed"]) == ("0.5", "1")
    assert "no bound" in text
    assert "## Audits" not in page(ordinary())


def test_an_audit_alone_makes_no_other_table() -> None:
    text = page(audit())
    assert "## outsider" not in text
    assert len(cells(text, "Audits")) == 1


def test_settings_of_canaries_do_not_tell_ordinary_rows_apart() -> None:
    (row,) = cells(page(ordinary(), audit()), "outsider")
    assert row["defense"] == "dp-sgd"


def test_groups_are_marked_as_not_compared() -> None:
    said = {"epsilon": 1.0, "limit": 3.0, "unit": "group of 3", "compared": False, "canaries": 40}
    (row,) = cells(page(audit(audit=said)), "Audits")
    assert row["canaries"] == "40, group of 3"
    assert row["ε claimed"].endswith("not compared")


def test_bounds_over_runs_are_not_averaged() -> None:
    found = over_runs([figure("epsilon", 0.2), figure("epsilon", 3.4), figure("epsilon", 0.0)])
    assert (found.value, found.low, found.high, found.over) == (3.4, None, None, "runs")
    assert found.n["runs"] == 3
    assert "largest of 3" in found.note


def test_after_a_run_one_sentence_says_what_was_proven() -> None:
    said = report([audit()], Path("store"), color=False, width=400)
    assert "epsilon at least 0.310" in said
    assert "with canaries" in said
    assert "a record's epsilon towards anyone who holds the released adapter is at least 0.31" in said
    assert "would have shown 3.1" in said
    assert "7.99 is claimed" in said
    assert "refuted" not in said
    assert "refuted at that confidence" in report([audit(8.5, 9.0)], Path("store"), color=False)
    nothing = report([audit(0.0, claim=Claim())], Path("store"), color=False)
    assert "proves nothing" in nothing
    assert "no proof of privacy" in nothing
    assert "nothing finite is claimed" in nothing


def test_after_a_run_of_both_the_ordinary_row_carries_it() -> None:
    said = " ".join(report([ordinary(), audit()], Path("store"), color=False, width=400).split())
    assert "7.99 (δ 0.003, record); audit ≥ 0.31 of at most 3.1" in said


def test_the_planting_of_an_audit_is_what_it_says() -> None:
    from bench.spec.run import RunSpec

    spec = RunSpec.model_validate(
        {"task": {"name": "t"}, "defense": [{"name": "d"}], "variant": {"name": "audit", "config": {}}}
    )
    run = spec.model_dump(mode="json")
    one = audit(spec={"run": run}, provenance={"planting": "0123456789abcdef"})
    assert planting_of(one) == "0123456789abcdef"
    assert planting_of(one.model_copy(update={"provenance": {"planting": "../x"}})) is None
    run.pop("variant")
    ordinary_spec = RunSpec.model_validate(run)
    assert planting_of(audit(spec={"run": run})) == ordinary_spec.planting_id(0)


def test_rows_without_audits_are_as_they_were() -> None:
    (row,) = rows([ordinary()])
    assert row.audits == ()
