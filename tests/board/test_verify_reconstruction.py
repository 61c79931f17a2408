"""Reconstructions: verified from grades alone, and what lies behind these stays with its owner."""

from __future__ import annotations

import gzip
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from bench import games
from bench.attack.attack import Reconstruction, Target
from bench.board.leaderboard import add
from bench.board.verify import verify, verify_leaderboards, verify_store
from bench.core.errors import UsageError
from bench.core.files import write_text
from bench.games import reconstruction, reconstruction_grading
from bench.games.reconstruction_sheet import RECORD_FIGURES
from bench.spec.canonical import sha256
from bench.store.store import Store
from tests.board.test_verify import scored, with_figure
from tests.results_factory import result


def reconstruction_of_three() -> reconstruction.Graded:
    targets = [Target(0, f"silo-{i}", 1, 1) for i in range(3)]
    truth = [[[1, 2, 3, 4]], [[5, 6, 7]], [[8, 9]]]

    def answer(target: Target, ids: tuple[int, ...]) -> Reconstruction:
        scores = np.zeros(20)
        scores[list(ids)] = 1.0
        return Reconstruction(target, scores, np.array(ids, dtype=np.int64), (ids,), True)

    answers = [answer(targets[0], (1, 2, 3)), answer(targets[1], (5, 7))]
    guessed = [answer(target, (1,)) for target in targets]
    return reconstruction.grade(targets, truth, answers, guessed, lambda ids: " ".join(map(str, ids)))


def old_sheet() -> str:
    """What a reconstruction's sheet was in version 1."""
    target = {
        "round": 0,
        "silo": "a",
        "steps": 1,
        "tokens": [[1, 2]],
        "texts": ["w1"],
        "answer": None,
        "baseline": None,
    }
    value = {"format": "silobench-scores", "version": 1, "game": "reconstruction", "targets": [target]}
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def test_a_reconstruction_is_verified_too() -> None:
    text = reconstruction_of_three().sheet.to_json()
    assert verify(scored(text, attack="inversion"), text).outcome == "verified"


def test_altered_figures_of_a_reconstruction_are_found() -> None:
    text = reconstruction_of_three().sheet.to_json()
    honest = scored(text, attack="inversion")
    for index in range(len(honest.leakage)):
        verdict = verify(with_figure(honest, index, value=0.123456), text)
        assert verdict.outcome == "differs"


def test_altered_grades_of_a_reconstruction_are_found() -> None:
    text = reconstruction_of_three().sheet.to_json()
    honest = scored(text, attack="inversion")
    value = json.loads(text)
    value["targets"][1]["answer"]["records"][0][RECORD_FIGURES.index("exact")] = 1.0
    better = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert better != text
    assert games.load(better).to_json() == better
    assert verify(honest, better).problems[0].startswith("its scores were altered")
    renamed = honest.model_copy(update={"scores_sha256": sha256(better)})
    assert any("'exact'" in problem for problem in verify(renamed, better).problems)


def test_a_reconstruction_is_verified_without_grading_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    text = reconstruction_of_three().sheet.to_json()
    honest = scored(text, attack="inversion")
    for name in ("assign", "Rouge", "grade"):
        monkeypatch.delattr(reconstruction_grading, name)
    assert verify(honest, text).outcome == "verified"


def test_a_sheet_that_held_texts_is_a_problem_that_says_what_to_do() -> None:
    text = old_sheet()
    verdict = verify(result(scores_sha256=sha256(text)), text)
    assert verdict.outcome == "differs"
    (problem,) = verdict.problems
    assert "version 1, and this silobench reads version 2" in problem
    assert problem.endswith("run it again with --refresh.")


# -- the details --------------------------------------------------------------------------------------------------


def private(folder: Path) -> dict[str, tuple[int, float, bytes]]:
    """Mode, time and contents of every file below ``details`` folders."""
    return {
        path.name: (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("details/*")
    }


def test_details_are_open_to_their_owner_only(tmp_path: Path) -> None:
    store, graded = Store(tmp_path), reconstruction_of_three()
    text = graded.sheet.to_json()
    path = store.details_path(sha256(text))
    former = os.umask(0)
    try:
        assert store.save_scores(text, "no text yet") == sha256(text)
        path.chmod(0o644)
        store.save_scores(text, graded.details)
    finally:
        os.umask(former)
    assert path == tmp_path / "details" / f"{sha256(text)}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == graded.details
    assert "6 7" not in text
    assert '"text":"5 6"' in graded.details
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    with pytest.raises(UsageError, match="no SHA-256"):
        store.details_path("../results/a")


def test_details_are_not_readable_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(descriptor: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", look)
    former = os.umask(0)
    try:
        write_text(tmp_path / "a" / "details", "text", private=True)
    finally:
        os.umask(former)
    assert seen[0] == 0o600


def test_verifying_neither_reads_nor_writes_details(tmp_path: Path) -> None:
    graded = reconstruction_of_three()
    text = graded.sheet.to_json()
    one = scored(text, attack="inversion")
    store = Store(tmp_path)
    store.save_result(one)
    store.save_scores(text)
    assert [verdict.outcome for verdict in verify_store(store)] == ["verified"]
    assert private(tmp_path) == {}
    store.save_scores(text, "altered")
    before = private(tmp_path)
    assert [verdict.outcome for verdict in verify_store(store)] == ["verified"]
    assert private(tmp_path) == before != {}


def test_details_never_reach_a_leaderboard(tmp_path: Path) -> None:
    store, folder, graded = Store(tmp_path / "store"), tmp_path / "boards", reconstruction_of_three()
    text = graded.sheet.to_json()
    store.save_scores(text, graded.details)
    one = store.save_result(scored(text, attack="inversion"))
    add(store, [one.result], folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"results", "scores"}
    raw = [path.read_bytes() for path in files]
    contents = [gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for data in raw]
    assert not any(b"1 2 3" in data or b'"text"' in data for data in contents)
    assert [verdict.outcome for verdict in verify_leaderboards(folder)] == ["verified"]


def test_a_sheet_that_held_texts_is_not_added_to_a_leaderboard(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "boards"
    one = store.save_result(result(attack="inversion", scores_sha256=store.save_scores(old_sheet())))
    with pytest.raises(UsageError, match="version 1, and this silobench reads version 2"):
        add(store, [one.result], folder)
    assert not folder.exists()
