"""Committed rows of an older scoring: computed anew from their own sheets, and nothing else taken on their word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.board.leaderboard import load, read_lines
from bench.board.rescoring import rescore
from bench.board.verify import verify, verify_leaderboards
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.core.versions import SCORING
from bench.spec.canonical import sha256
from bench.spec.result import Result
from bench.store.committed import pack, sheet_path
from tests.board.test_verify import membership_sheet, scored, with_figure

SHEETS = (membership_sheet(1), membership_sheet(2))


def row(sheet: str, defense: str, moved: bool = True, **changes: Any) -> Result:
    """A row whose first figure is another one than its sheet gives today, where ``moved``."""
    one = scored(sheet, defense=defense, **changes)
    return with_figure(one, 0, value=one.leakage[0].value - 0.01) if moved else one  # type: ignore[operator]


def folder_of(tmp_path: Path, *rows: Result) -> Path:
    (tmp_path / "results").mkdir()
    lines = "".join(f"{one.to_json()}\n" for one in sorted(rows, key=lambda r: r.result))
    (tmp_path / "results" / "reviews-quick.jsonl").write_text(lines)
    for sheet in SHEETS:
        path = sheet_path(tmp_path, sha256(sheet))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pack(sheet))
    return tmp_path


def test_a_row_of_an_older_scoring_gets_what_its_sheet_gives_today_and_says_what_it_supersedes(tmp_path: Path) -> None:
    old, same = row(SHEETS[0], "a", versions={"attack/mia": 1, "SCORING": SCORING - 1}), row(SHEETS[1], "b", False)
    folder = folder_of(tmp_path, old, same)
    assert {v.result.defense: v.outcome for v in verify_leaderboards(folder)} == {"a": "older", "b": "verified"}
    before = {r.defense: r.to_json() for r in load(folder)}
    (changed,) = rescore(folder)
    assert changed.leakage == scored(SHEETS[0]).leakage
    assert changed.supersedes == sha256(old.to_json())
    assert changed.versions == {"attack/mia": 1, "SCORING": SCORING}
    after = {r.defense: r for r in load(folder)}
    assert after["a"] == changed
    assert after["b"].to_json() == before["b"]
    assert {v.outcome for v in verify_leaderboards(folder)} == {"verified"}
    assert rescore(folder) == ()


def test_a_row_without_versions_stays_stale_and_gets_the_figures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, row(SHEETS[0], "a", versions={}))
    (changed,) = rescore(folder)
    assert changed.versions == {"SCORING": SCORING}
    assert {v.outcome for v in verify_leaderboards(folder)} == {"verified"}


def test_an_older_scoring_is_no_excuse(tmp_path: Path) -> None:
    """Anybody can write that an older scoring made a row: it is not good until it is computed anew."""
    verdict = verify(row(SHEETS[0], "a", versions={}), SHEETS[0])
    assert (verdict.outcome, verdict.good) == ("older", False)
    assert f"scoring 0, and this silobench has {SCORING}" in verdict.problems[0]


@pytest.mark.parametrize("kind", ["today's", "altered", "missing"])
def test_nothing_is_written_where_a_row_is_false(kind: str, tmp_path: Path) -> None:
    old = row(SHEETS[0], "a", versions={})
    other = row(SHEETS[1], "b", versions={"SCORING": SCORING} if kind == "today's" else {})
    folder = folder_of(tmp_path, old, other)
    if kind == "altered":
        sheet_path(folder, sha256(SHEETS[1])).write_bytes(pack(SHEETS[0]))
    if kind == "missing":
        sheet_path(folder, sha256(SHEETS[1])).unlink()
    (path,) = (folder / "results").iterdir()
    before = path.read_bytes()
    with pytest.raises(UsageError, match=other.result):
        rescore(folder)
    assert path.read_bytes() == before


def test_the_command_says_how_many_and_makes_the_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, row(SHEETS[0], "a", versions={}), row(SHEETS[1], "b", versions={}))
    assert main(["leaderboard", "--folder", str(folder), "--rescore"]) == 0
    out = capsys.readouterr().out
    assert "2 results computed anew from their scores" in out
    assert (folder / "README.md").exists()
    assert len(read_lines(folder / "results" / "reviews-quick.jsonl")) == 2
    assert main(["verify", str(folder)]) == 0
