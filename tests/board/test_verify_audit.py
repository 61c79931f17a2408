"""Verification of audits: a proven bound above the claim fails, an estimate never does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import games
from bench.board.verify import FAMILY, exit_code, is_claimed_audit, verify, verify_store
from bench.cli.commands import verify as command
from bench.core.versions import harness
from bench.games.audit import TAIL, summary
from bench.games.audit_sheet import COUNTED, AuditSheet, make_sheet
from bench.spec.canonical import sha256
from bench.spec.result import Claim, Result
from bench.store.store import Store
from tests.results_factory import result, run_spec

N = 2000
DELTA = 1e-7


def claim(epsilon: float | None, delta: float = DELTA, **changes: Any) -> Claim:
    return Claim(**{"epsilon": epsilon, "delta": delta, "unit": "record", "adjacency": "add-remove", **changes})


def sheet(accuracy: float, seed: int = 0, noise: float = 1e-3, **changes: Any) -> AuditSheet:
    """Guesses that are right with that chance, each by itself; scores otherwise all but alike."""
    rng = np.random.default_rng(seed)
    member = rng.integers(0, 2, N).astype(bool)
    told = np.where(rng.random(N) < accuracy, member, ~member)
    scores = {COUNTED: told + rng.normal(0, noise, N)}
    ids = [f"canary-{k}" for k in range(N)]
    return make_sheet(ids, [0] * N, member, scores, {"loss": rng.normal(size=N)}, **{"delta": DELTA, **changes})


def scored(one: AuditSheet, promised: Claim, tail: Claim | None = None, **changes: Any) -> Result:
    found = games.leakage(one)
    spec = {"run": {**run_spec("dp-sgd"), "variant": {"name": "audit", "config": {"repeat": one.repeat}}}}
    values = {"leakage": found.leakage, "scores_sha256": sha256(one.to_json()), "utility": (), "attack": "audit"}
    values |= {"defense": "dp-sgd", "spec": spec, "claim": promised, "audit": summary(one, promised, tail)}
    values["versions"] = harness()
    return Result.from_json(result(**{**values, **changes}).to_json())


GOOD, BAD = sheet(0.6), sheet(0.9)


def test_an_audit_within_its_claim_is_verified() -> None:
    verdict = verify(scored(GOOD, claim(1.0)), GOOD.to_json())
    assert (verdict.outcome, verdict.problems) == ("verified", ())


def test_a_claim_of_1_with_nine_right_of_ten_is_refuted() -> None:
    """Accuracy .9 is that of epsilon 2.2; under 1 it would be .73, 14 deviations below."""
    one = scored(BAD, claim(1.0))
    verdict = verify(one, BAD.to_json())
    assert verdict.outcome == "refuted"
    assert not verdict.good
    assert "exceeds 1 at delta 1e-07" in verdict.problems[0]
    assert exit_code([verdict]) == 1
    assert verify(scored(BAD, claim(2.5)), BAD.to_json()).outcome == "verified"


def test_an_estimate_above_the_claim_refutes_nothing() -> None:
    """Scores of guesses hardly better than chance with next to no spread look vastly apart to a normal fit."""
    rng = np.random.default_rng(3)
    member = rng.integers(0, 2, N).astype(bool)
    scores = {COUNTED: 1e-3 * rng.normal(size=N) + 5e-4 * member}
    one = make_sheet([f"canary-{k}" for k in range(N)], [0] * N, member, scores, delta=DELTA)
    found = {row.name: row.value for row in games.leakage(one).leakage}
    assert found["epsilon_gaussian"] is not None
    assert found["epsilon_gaussian"] > 1.0
    assert found["epsilon_gdp"] is not None
    assert found["epsilon_gdp"] > 1.0
    assert found["epsilon"] is not None
    assert found["epsilon"] < 1.0
    assert verify(scored(one, claim(1.0)), one.to_json()).outcome == "verified"


@pytest.mark.parametrize(
    "promised",
    [claim(None), claim(1.0, unit="silo"), claim(1.0, adjacency="zero-out")],
    ids=["nothing", "silos", "zero-out"],
)
def test_what_is_not_comparable_is_not_refuted(promised: Claim) -> None:
    assert verify(scored(BAD, promised), BAD.to_json()).outcome == "verified"


def test_groups_are_not_held_against_a_claim_of_records() -> None:
    one = sheet(0.9, repeat=3)
    assert verify(scored(one, claim(1.0)), one.to_json()).outcome == "verified"


def test_the_claim_at_a_smaller_delta_refutes_where_its_own_can_not() -> None:
    """No test at 10^-4 refutes a claim whose delta is 10^-3; the same mechanism's epsilon at 10^-8 it can."""
    own, tail = claim(1.0, 1e-3), claim(1.4, TAIL)
    one = sheet(0.9, delta=1e-3)
    assert verify(scored(one, own), one.to_json()).outcome == "verified"
    verdict = verify(scored(one, own, tail), one.to_json())
    assert verdict.outcome == "refuted"
    assert "exceeds 1.4 at delta 1e-08" in verdict.problems[0]
    assert verify(scored(one, own, claim(3.0, TAIL)), one.to_json()).outcome == "verified"


@pytest.mark.parametrize("claims", ["x", [["x", 1e-8]], [[1.0]], [[True, False]], [{}], None, [[1.0, 2.0]]])
def test_what_anybody_may_have_written_as_claims_is_no_crash(claims: Any) -> None:
    one = scored(GOOD, claim(1.0))
    said = {**(one.audit or {}), "claims": claims}
    verdict = verify(one.model_copy(update={"audit": said}), GOOD.to_json())
    assert verdict.outcome == "verified"


def test_audits_that_are_verified_together_share_the_significance(tmp_path: Path) -> None:
    """An accuracy that is refuted alone and not among many."""
    one = None
    for accuracy in np.arange(0.80, 0.84, 0.001):
        made = sheet(float(accuracy), noise=0.0)
        alone, many = (verify(scored(made, claim(1.1, 1e-30)), made.to_json(), k).outcome for k in (1, 10**6))
        if (alone, many) == ("refuted", "verified"):
            one = made
            break
    assert one is not None
    store = Store(tmp_path)
    digest = store.save_scores(one.to_json())
    first = store.save_result(scored(one, claim(1.1, 1e-30), scores_sha256=digest))
    assert is_claimed_audit(first)
    assert verify_store(store)[0].outcome == "refuted"
    assert [verdict.outcome for verdict in verify_store(store, [first.result])] == ["refuted"]
    assert FAMILY == 1e-4


def test_altered_figures_are_still_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    honest = scored(BAD, claim(1.0))
    quiet = tuple(row.model_copy(update={"value": 0.2}) if row.name == "epsilon" else row for row in honest.leakage)
    verdict = verify(honest.model_copy(update={"leakage": quiet}), BAD.to_json())
    assert verdict.outcome == "differs"
    assert any("'epsilon'" in problem for problem in verdict.problems)
    assert any("does not hold" in problem for problem in verdict.problems)
    store = Store(tmp_path)
    store.save_scores(BAD.to_json())
    store.save_result(honest)
    from argparse import Namespace

    assert command.main(Namespace(targets=[], store=tmp_path, json=False)) == 1
    assert "refuted" in capsys.readouterr().out
