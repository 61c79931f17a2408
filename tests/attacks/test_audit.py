"""The audit's scores: planted canaries stand out, none do where nothing leaks; and whole runs of it, scored."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks import audit
from attacks.audit import products, ridge, spread, together
from bench.attack.attack import Guesses
from bench.board.leaderboard import planting_of
from bench.board.rows import rows
from bench.board.verify import verify_store
from bench.cli.main import main
from bench.core.adversaries import assignments
from bench.games import load
from bench.games.audit import refutes
from bench.games.audit_sheet import COUNTED, AuditSheet, make_sheet
from bench.spec.result import Result
from bench.stats import auc
from bench.store.store import Store
from tests.attacks.rounds_world import World, assert_chance, assert_order_is_irrelevant, play

ATTACK = audit.build(audit.Config())
WITH_STEPS = ("silo", "server", "server+silo", "all-but-one")


@pytest.mark.parametrize("adversary", ["user", "outsider", *WITH_STEPS])
def test_planted_canaries_stand_out(tmp_path: Path, adversary: str) -> None:
    guesses, found = play(ATTACK, World(tmp_path), adversary)
    assert found[COUNTED] > 0.95, found
    if adversary not in WITH_STEPS:
        np.testing.assert_array_equal(guesses.scores[COUNTED], guesses.scores["drop"])
    assert set(guesses.missing) == (set() if adversary in WITH_STEPS else {"weight", "inner"})
    assert guesses.reads


@pytest.mark.parametrize("adversary", ["outsider", "silo", "server"])
def test_without_a_leak_it_is_chance(tmp_path: Path, adversary: str) -> None:
    assert_chance(ATTACK, World(tmp_path, leak=False), adversary)


@pytest.mark.parametrize("adversary", ["outsider", "silo", "server"])
def test_order_and_ids_do_not_matter(tmp_path: Path, adversary: str) -> None:
    assert_order_is_irrelevant(ATTACK, World(tmp_path), adversary)


def test_nothing_opened_of_a_silo_scores_zero(tmp_path: Path) -> None:
    world = World(tmp_path)
    view = world.view("outsider")
    asked, _ = world.candidates(view)
    from dataclasses import replace

    guesses: Guesses = ATTACK.infer(replace(view, readings=()), asked, world)
    assert not guesses.scores[COUNTED].any()
    assert guesses.reads == ("nothing of silo-0", "nothing of silo-1", "nothing of silo-2")


def test_weights_of_two_gradients_by_hand() -> None:
    """Unit gradients with cosine 1/2, a step that is the first, lambda 1: [[2, .5], [.5, 2]] w = (1, .5)."""
    gradients = [np.array([3.0, 0.0], np.float32), np.array([1.0, np.sqrt(3)], np.float32), np.zeros(2, np.float32)]
    gram, onto = products(iter(gradients), 3, np.array([1.0, 0.0]))
    np.testing.assert_allclose(gram, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(onto, [1, 0.5, 0], atol=1e-7)
    np.testing.assert_allclose(ridge(gram, onto), [1.75 / 3.75, 0.5 / 3.75, 0], atol=1e-7)


def test_the_spread_is_that_of_the_densest_part() -> None:
    rng = np.random.default_rng(0)
    assert spread(rng.normal(5, 3, 20_000)) == pytest.approx(3, rel=0.05)
    heaps = np.concatenate([rng.normal(-50, 1, 10_000), rng.normal(50, 1, 10_000)])
    # 40% of all is 80% of one heap: 2.563 standard deviations wide
    assert spread(heaps) == pytest.approx(2.563 / 1.0488, rel=0.05)
    assert spread(np.array([0.0, 0.0, 0.0, 2.0])) == pytest.approx(np.std([0, 0, 0, 2]))
    assert spread(np.zeros(5)) == 1.0
    assert spread(np.array([3.0])) == 1.0
    assert spread(np.array([1.0, 3.0])) == pytest.approx(2 / 1.0488)


def test_weight_and_loss_are_added_in_units_of_their_spreads() -> None:
    weight, drop = np.array([0.0, 1.0, 5.0]), np.array([10.0, 30.0, 90.0])
    # 40% of three scores are two of them: 1 and 20 apart where they are densest
    expected = 1.0488 * (2 * weight / 1 + drop / 20)
    np.testing.assert_allclose(together(weight, drop), expected, rtol=1e-12)


def test_a_loss_of_two_heaps_outweighs_a_weight_of_noise() -> None:
    rng = np.random.default_rng(1)
    member = rng.permutation(4000) < 2000
    heaps, noise = 100 * (20.0 * member + rng.normal(size=4000)), rng.normal(0, 1e-3, 4000)
    assert (auc(together(noise, heaps), member).value or 0) > 0.99
    assert (auc(together(heaps, noise), member).value or 0) > 0.99


def test_products_in_blocks_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    gradients, direction = rng.normal(size=(5, 37)).astype(np.float32), rng.normal(size=37)
    whole = products(iter(gradients), 5, direction)
    monkeypatch.setattr(audit, "BLOCK", 20)
    for one, other in zip(whole, products(iter(gradients), 5, direction), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_regression_takes_off_what_gradients_share() -> None:
    """200 gradients that share a direction, the step being those of half of them under noise: the plain inner product
    with a record's gradient mostly tells how much of the shared direction it has."""
    rng = np.random.default_rng(1)
    member = rng.permutation(200) < 100
    share = rng.uniform(0.5, 5.0, 200)[:, None]
    gradients = (rng.normal(size=(200, 2000)) / np.sqrt(2000) + share * np.eye(2000)[0]).astype(np.float32)
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    step = unit[member].sum(0) + rng.normal(0, 0.05, 2000)
    gram, onto = products(iter(gradients), 200, step.astype(np.float64))
    inner, weight = auc(onto, member).value, auc(ridge(gram, onto), member).value
    assert inner is not None
    assert weight is not None
    assert inner < 0.7 < 0.85 < weight


# -- whole runs ----------------------------------------------------------------------------------------------------

SETS = (
    "pool.candidates=8",
    "pool.heldout=8",
    "pool.population=24",
    "pool.max_tokens=40",
    "audit.canaries=90",
)
TWO = ("federation.rounds=2", "federation.local.epochs=1")


def run(store: Path, defense: str, adversaries: str, *sets: str, secret: int | None = None) -> dict[str, Result]:
    words = ["run", "--preset", "smoke", "--defense", defense, "--attack", "audit", "--json"]
    words += [] if secret is None else ["--secret-seed", str(secret)]
    words += ["--adversary", adversaries, "--store", str(store)]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main([*words, *(part for value in (*SETS, *sets) for part in ("--set", value))]) == 0
    return {r.adversary: r for r in map(Result.from_json, out.getvalue().splitlines())}


def value(one: Result, name: str) -> float:
    found = next(row.value for row in one.leakage if row.name == name)
    assert found is not None, name
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audits")


@pytest.fixture(scope="module")
def leaking(store: Path) -> dict[str, Result]:
    """The coins are drawn from a number: how many heads there are bounds what any guesser can prove."""
    sets = ("federation.rounds=1", "federation.local.epochs=24")
    return run(store, "fedavg", "outsider,silo,server", *sets, secret=1)


def test_a_run_that_memorises_its_canaries_shows_nearly_all_that_can_be_shown(leaking: dict[str, Result]) -> None:
    server = leaking["server"]
    assert server.status == "ok"
    assert value(server, "canary_auc") > 0.95
    assert value(server, "epsilon") > 0.5 * value(server, "epsilon_limit") > 1
    assert server.audit is not None
    assert server.audit["canaries"] == 90
    assert server.audit["epsilon"] == value(server, "epsilon")
    assert (server.audit["proven"], server.audit["compared"], server.audit["unit"]) == (True, False, "record")
    assert server.claim is not None
    assert server.claim.epsilon is None


def test_no_utility_and_no_membership_figure_is_taken_from_it(leaking: dict[str, Result]) -> None:
    for one in leaking.values():
        assert not one.utility
        assert not {row.name for row in one.leakage} & {"auc", "advantage", "tpr@1%"}


def test_each_coalition_of_silos_is_bounded_by_itself(store: Path, leaking: dict[str, Result]) -> None:
    silo = leaking["silo"]
    found = next(row for row in silo.leakage if row.name == "epsilon")
    assert found.n["coalitions"] == len(assignments("silo", ("silo-0", "silo-1", "silo-2"))) == 3
    text = Store(store).scores(silo.scores_sha256 or "")
    sheet = load(text or "")
    assert isinstance(sheet, AuditSheet)
    assert sorted(set(sheet.coalitions)) == [0, 1, 2]
    assert len(sheet.ids) == 90


def test_scored_against_coins_that_were_not_tossed_it_proves_nothing(store: Path, leaking: dict[str, Result]) -> None:
    """Once in 10^6 by chance."""
    sheet = load(Store(store).scores(leaking["server"].scores_sha256 or "") or "")
    assert isinstance(sheet, AuditSheet)
    assert refutes(sheet, 0.5, 1e-9, 1e-6)
    other = np.random.default_rng(8).integers(0, 2, 90).astype(bool)
    again = make_sheet(sheet.ids, sheet.coalitions, other, sheet.scores, delta=sheet.delta)
    assert not refutes(again, 0.0, 0.0, 1e-6)


def test_an_audit_of_a_private_run_stays_below_its_claim_and_is_verified(store: Path) -> None:
    found = run(store, "dp-sgd", "server", *TWO)["server"]
    assert found.claim is not None
    assert found.claim.epsilon is not None
    assert found.audit is not None
    assert found.audit["compared"] is True
    assert value(found, "epsilon") < found.claim.epsilon
    (own, tail) = found.audit["claims"]
    assert own == [found.claim.epsilon, found.claim.delta]
    assert found.audit["delta"] == found.claim.delta
    assert tail[0] > own[0]
    assert tail[1] == 1e-8
    assert {verdict.outcome for verdict in verify_store(Store(store))} == {"verified"}


def test_an_ordinary_row_carries_the_audit_of_its_training(leaking: dict[str, Result]) -> None:
    server = leaking["server"]
    run_spec: Any = {k: v for k, v in server.spec["run"].items() if k != "variant"}
    ordinary = server.model_copy(
        update={"spec": {**server.spec, "run": run_spec}, "audit": None, "attack": "mia", "leakage": ()}
    )
    (row,) = rows([ordinary], leaking.values())
    bound, limit = value(server, "epsilon"), value(server, "epsilon_limit")
    assert row.epsilon() == f"∞; audit ≥ {bound:.2g} of at most {limit:.2g}"
    assert rows([ordinary.model_copy(update={"adversary": "user"})], leaking.values())[0].epsilon() == "∞"


def test_its_planting_is_that_of_the_coins(store: Path, leaking: dict[str, Result]) -> None:
    planting = planting_of(leaking["server"])
    assert planting == leaking["server"].provenance["planting"]
    text = Store(store).planting(planting or "")
    assert "canary-0" in json.dumps(json.loads(text or "{}"))


def test_an_ordinary_run_can_not_be_audited(store: Path) -> None:
    """``bench attack`` on a run without canaries."""
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--json", "--adversary", "outsider"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        sets = [part for one in (*SETS[:-1], *TWO) for part in ("--set", one)]
        assert main([*words, "--store", str(store), *sets]) == 0
        run_id = Result.from_json(out.getvalue()).run
        out.truncate(0)
        out.seek(0)
        transcript = next(p for p in (store / "runs" / run_id).rglob("manifest.json") if p.parent.name == "transcript")
        again = ["attack", str(transcript.parent), "--attack", "audit", "--adversary", "server", "--json"]
        assert main([*again, "--store", str(store)]) == 0
    found = Result.from_json(out.getvalue().strip())
    assert found.status == "not-applicable"
    assert "ordinary run" in found.note
