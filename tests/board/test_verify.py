"""Verification: every figure follows from its scores, and what was altered or is missing is found and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import games
from bench.board.verify import TOLERANCE, exit_code, verify, verify_file, verify_leaderboards, verify_store
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.core.files import write_bytes, write_text
from bench.core.versions import harness
from bench.games import membership
from bench.games.audit_sheet import make_sheet as make_audit
from bench.spec.canonical import sha256
from bench.spec.result import Leakage, Result
from bench.store.committed import pack, sheet_path
from bench.store.store import Store
from tests.results_factory import result


def membership_sheet(seed: int = 0, broken: bool = False) -> str:
    """60 members and 60 others of whom an attack knows something; ``broken``: the baseline knows all."""
    rng = np.random.default_rng(seed)
    member = np.arange(120) % 2 == 0
    scores = {"loss": rng.normal(size=120) + 2 * member, "zlib": rng.normal(size=120) + member}
    leaning = member + 0.01 * rng.normal(size=120) if broken else rng.normal(size=120)
    ids = [f"r{i:03d}" for i in range(120)]
    silos = [f"silo-{i % 3}" for i in range(120)]
    return membership.make_sheet(ids, silos, np.arange(120), member, scores, {"length": leaning}).to_json()


def scored(text: str, **changes: Any) -> Result:
    """The honest result of a sheet."""
    found = games.leakage(games.load(text))
    status = "void" if found.void else "ok"
    values = {"leakage": found.leakage, "status": status, "scores_sha256": sha256(text), "versions": harness()}
    values |= changes
    return Result.from_json(result(**values).to_json())


def with_figure(one: Result, index: int, **changes: Any) -> Result:
    figures = list(one.leakage)
    figures[index] = figures[index].model_copy(update=changes)
    return one.model_copy(update={"leakage": tuple(figures)})


SHEET = membership_sheet()


@pytest.fixture(scope="module")
def honest() -> Result:
    return scored(SHEET)


# -- honest results ------------------------------------------------------------------------------------------------


def test_an_honest_result_is_verified(honest: Result) -> None:
    assert {"auc", "tpr@10%", "advantage", "auc:baseline"} <= {one.name for one in honest.leakage}
    verdict = verify(honest, SHEET)
    assert (verdict.outcome, verdict.problems, verdict.good) == ("verified", (), True)


def test_the_order_of_figures_does_not_matter(honest: Result) -> None:
    reversed_figures = honest.model_copy(update={"leakage": honest.leakage[::-1]})
    assert verify(reversed_figures, SHEET).outcome == "verified"


def test_what_states_no_figure_needs_no_scores() -> None:
    verdict = verify(result(status="nothing-opened", leakage=()), None)
    assert (verdict.outcome, verdict.good) == ("nothing-to-verify", True)


# -- altered figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["value", "low", "high"])
@pytest.mark.parametrize("change", [10 * TOLERANCE, -10 * TOLERANCE, -0.2])
def test_every_altered_figure_is_found(honest: Result, part: str, change: float) -> None:
    for index, figure in enumerate(honest.leakage):
        stated = getattr(figure, part)
        if stated is None:
            continue
        verdict = verify(with_figure(honest, index, **{part: stated + change}), SHEET)
        assert verdict.outcome == "differs"
        assert verdict.problems == (
            f"{part} of '{figure.name}' is stated as {stated + change}, and the scores give {stated}",
        )


def test_the_last_digits_of_another_machine_are_not_an_alteration(honest: Result) -> None:
    stated = honest.leakage[0].value
    assert stated is not None
    assert verify(with_figure(honest, 0, value=stated + TOLERANCE / 10), SHEET).outcome == "verified"


def test_a_refused_figure_may_not_be_filled_in_nor_a_figure_refused(honest: Result) -> None:
    (refused,) = [i for i, one in enumerate(honest.leakage) if one.name == "tpr@0.1%"]
    assert honest.leakage[refused].value is None
    assert verify(with_figure(honest, refused, value=0.0), SHEET).outcome == "differs"
    assert verify(with_figure(honest, 0, value=None), SHEET).outcome == "differs"


@pytest.mark.parametrize("changes", [{"n": {"members": 6000, "nonmembers": 60}}, {"n": {}}, {"over": "runs"}])
def test_altered_counts_are_found(honest: Result, changes: dict[str, Any]) -> None:
    verdict = verify(with_figure(honest, 0, **changes), SHEET)
    assert verdict.outcome == "differs"
    assert "'auc'" in verdict.problems[0]


def test_a_figure_that_is_left_out_invented_or_doubled_is_found(honest: Result) -> None:
    fewer = honest.model_copy(update={"leakage": honest.leakage[1:]})
    assert verify(fewer, SHEET).problems == ("'auc' is not stated, and the scores give it",)
    more = honest.model_copy(update={"leakage": (*honest.leakage, Leakage(name="luck", value=1.0))})
    assert verify(more, SHEET).problems == ("'luck' is stated, and the scores don't give it",)
    twice = honest.model_copy(update={"leakage": (*honest.leakage, honest.leakage[0])})
    assert verify(twice, SHEET).problems == ("it states 'auc' twice",)


def test_figures_without_scores_are_not_believed() -> None:
    assert verify(result(), None).problems == ("it states leakage and names no scores",)


def test_a_void_sheet_makes_a_void_result_and_no_other() -> None:
    text = membership_sheet(broken=True)
    void = scored(text)
    assert void.status == "void"
    assert verify(void, text).outcome == "verified"
    assert verify(void.model_copy(update={"status": "ok"}), text).problems == (
        "its status is 'ok', and its scores are void",
    )
    assert verify(scored(SHEET, status="void"), SHEET).problems == (
        "its status is 'void', and its scores are not void",
    )


# -- altered, missing, hostile scores ------------------------------------------------------------------------------


def test_altered_scores_are_found(honest: Result) -> None:
    value = json.loads(SHEET)
    value["scores"]["loss"][0] += 1
    verdict = verify(honest, json.dumps(value))
    assert verdict.outcome == "differs"
    assert verdict.problems[0].startswith("its scores were altered")


def test_scores_of_another_run_under_their_own_name_do_not_pass(honest: Result) -> None:
    other = membership_sheet(seed=1)
    verdict = verify(honest.model_copy(update={"scores_sha256": sha256(other)}), other)
    assert verdict.outcome == "differs"
    assert any(problem.startswith("value of 'auc'") for problem in verdict.problems)


def test_missing_scores_are_said_and_fail(honest: Result) -> None:
    verdict = verify(honest, None)
    assert (verdict.outcome, verdict.good) == ("missing", False)
    assert str(honest.scores_sha256) in verdict.problems[0]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "[" * 100_000, '{"format": "silobench-scores", "version": 9}']
)
def test_scores_that_are_none_are_a_problem_not_a_crash(honest: Result, text: str) -> None:
    verdict = verify(honest.model_copy(update={"scores_sha256": sha256(text)}), text)
    assert verdict.outcome == "differs"
    assert verdict.problems[0].startswith("its scores can't be read")


# -- where results lie ---------------------------------------------------------------------------------------------


def boards(folder: Path, *results: Result, sheets: tuple[str, ...] = ()) -> Path:
    (folder / "results").mkdir(parents=True)
    (folder / "scores").mkdir()
    (folder / "results" / "a.jsonl").write_text("".join(f"{one.to_json()}\n" for one in results))
    for text in sheets:
        (folder / "scores" / f"{sha256(text)}.json").write_text(text)
    return folder


def test_results_of_a_store(tmp_path: Path, honest: Result) -> None:
    store = Store(tmp_path)
    store.save_scores(SHEET)
    store.save_result(honest)
    lost = store.save_result(result(seed=1, scores_sha256="0" * 64))
    found = {verdict.result.result: verdict.outcome for verdict in verify_store(store)}
    assert found == {honest.result: "verified", lost.result: "missing"}
    (only,) = verify_store(store, [honest.result])
    assert (only.outcome, exit_code([only])) == ("verified", 0)
    with pytest.raises(UsageError, match="has no result 0000000000000000"):
        verify_store(store, ["0000000000000000"])


def test_altered_scores_in_a_store_are_a_mismatch(tmp_path: Path, honest: Result) -> None:
    store = Store(tmp_path)
    store.scores_path(store.save_scores(SHEET)).write_text("{}")
    store.save_result(honest)
    (verdict,) = verify_store(store)
    assert verdict.problems[0].startswith("its scores were altered")


def test_results_of_files_and_folders(tmp_path: Path, honest: Result) -> None:
    folder = boards(tmp_path / "boards", honest, sheets=(SHEET,))
    for verdicts in (verify_leaderboards(folder), verify_file(folder / "results" / "a.jsonl")):
        assert [verdict.outcome for verdict in verdicts] == ["verified"]
    (folder / "scores").rename(folder / "results" / "scores")
    assert [verdict.outcome for verdict in verify_file(folder / "results" / "a.jsonl")] == ["verified"]
    assert [verdict.outcome for verdict in verify_leaderboards(folder)] == ["missing"]
    with pytest.raises(UsageError, match="There is no file"):
        verify_file(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("digest", ["../results/a", "/etc/passwd", "", "A" * 64, "0" * 63, "..", "\0" * 64])
def test_a_digest_from_a_file_is_no_path(tmp_path: Path, digest: str, honest: Result) -> None:
    hostile = honest.model_copy(update={"scores_sha256": digest})
    folder = boards(tmp_path / "boards", hostile)
    (verdict,) = verify_leaderboards(folder)
    assert verdict.outcome == "missing"


def test_the_exit_code_is_one_where_anything_is_wrong_or_missing(honest: Result) -> None:
    good, absent = verify(honest, SHEET), verify(honest, None)
    altered = verify(with_figure(honest, 0, value=0.1), SHEET)
    nothing = verify(result(status="error", leakage=()), None)
    assert exit_code([]) == exit_code([good, nothing]) == 0
    assert exit_code([good, absent]) == exit_code([good, altered]) == 1


def test_a_verdict_is_json(honest: Result) -> None:
    value = json.loads(json.dumps(verify(honest, None).to_json()))
    assert (value["result"], value["outcome"]) == (honest.result, "missing")
    assert len(value["problems"]) == 1


# -- rows of others ------------------------------------------------------------------------------------------------


def _audit(score: float) -> tuple[Result, str]:
    """A result that names an audit's sheet, of which the first score is ``score``, as it is and not as we write it."""
    ids, member = [f"c{k:02d}" for k in range(20)], [k % 2 == 0 for k in range(20)]
    scores = {"audit": [2.0**-k for k in range(20)]}
    text = make_audit(ids, [0] * 20, member, scores, {}, delta=1e-5).to_json().replace("[1.0,", f"[{score!r},")
    return result(result="b" * 16, scores_sha256=sha256(text), leakage=(Leakage(name="auc", value=0.5),)), text


@pytest.mark.parametrize("score", [1e308, -1e200])
def test_one_hostile_row_hides_no_verdict_of_another(
    tmp_path: Path, honest: Result, capsys: pytest.CaptureFixture[str], score: float
) -> None:
    hostile, text = _audit(score)
    cut = result(result="c" * 16, scores_sha256="e" * 64)
    other = result(result="d" * 16, attack="\x1b[2J\nverified \u202e", status="nothing-opened", leakage=())
    lines = [cut.to_json(), "{}", '{"schema": 1e400}', hostile.to_json(), other.to_json(), honest.to_json()]
    path = tmp_path / "board" / "results" / "x.jsonl"
    for one in (text, SHEET):
        write_bytes(sheet_path(tmp_path / "board", sha256(one)), pack(one))
    sheet_path(tmp_path / "board", "e" * 64).write_bytes(b"no gzip")
    write_text(path, "\n".join(lines))
    wanted = ["differs", "differs", "nothing-to-verify", "unreadable", "unreadable", "verified"]
    for found in (verify_file(path), verify_leaderboards(tmp_path / "board")):
        assert sorted(one.outcome for one in found) == wanted
    assert main(["verify", str(path), "--store", str(tmp_path / "store")]) == 1
    out = capsys.readouterr().out
    assert "can't be read" in out
    assert "beyond 1e+150" in out
    assert "\\x1b[2J\\nverified \\u202e" in out
    assert not set(out) & {"\x1b", "\u202e"}
    assert len(out.splitlines()) == 7


def test_a_damaged_result_of_the_store_hides_no_other(tmp_path: Path, honest: Result) -> None:
    store = Store(tmp_path / "store")
    store.save_scores(SHEET)
    store.save_result(honest)
    (store.root / "results" / f"{'0' * 16}.json").write_text("{")
    assert [one.outcome for one in verify_store(store)] == ["unreadable", "verified"]
