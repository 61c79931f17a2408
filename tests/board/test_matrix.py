"""The table of attacks against defenses: short cells that anybody can read, and the Markdown made from them."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.board import matrix
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.core.versions import harness
from bench.plugins.find import Plugins
from bench.spec.result import Leakage
from tests.results_factory import auc, result

PLAYED = {"mia": "membership", "source": "source"}


def some() -> list[matrix.Entry]:
    source = (
        Leakage(name="source_accuracy", value=0.75, low=0.5, high=0.9),
        Leakage(name="source_accuracy:baseline", value=0.34),
    )
    found = [
        result(
            defense="plain", adversary="server", leakage=(auc(0.9, 0.8, 0.95), Leakage(name="auc:baseline", value=0.53))
        ),
        result(defense="plain", adversary="server", attack="source", leakage=source),
        result(defense="sealed", adversary="server", status="nothing-opened", leakage=(), reads=()),
        result(defense="sealed", adversary="server", attack="source", status="not-applicable", leakage=(), reads=()),
        result(defense="plain", adversary="user", leakage=(auc(0.7, 0.6, 0.8),)),
    ]
    return [matrix.entry(one, PLAYED) for one in found]


def test_the_table_is_this_text() -> None:
    text = matrix.render(some())
    server = text.split("## server\n\n")[1]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in server.strip().split("\n")]
    assert lines[0] == ["defense", "mia", "source"]
    assert lines[2] == ["plain (1)", "0.900 [0.800, 0.950]", "0.750 [0.500, 0.900]"]
    assert lines[3] == ["sealed (1)", "—", "n/a"]
    assert lines[4] == ["*blind*", "0.530", "0.340"]
    assert text.index("## user") < text.index("## server")


def test_several_seeds_are_one_cell_with_an_interval_over_runs() -> None:
    runs = [
        result(defense="plain", seed=s, leakage=(auc(v, v - 0.05, v + 0.05),)) for s, v in enumerate((0.8, 0.85, 0.9))
    ]
    text = matrix.render([matrix.entry(r, PLAYED) for r in runs])
    assert "| plain (3) | 0.850 [" in text
    low, high = text.split("0.850 [")[1].split("]")[0].split(", ")
    assert float(low) <= 0.75  # at least the hull of the runs' own limits
    assert float(high) >= 0.94


def test_a_cell_of_fewer_seeds_than_its_row_says_so() -> None:
    found = [result(defense="plain", seed=s, leakage=(auc(0.8, 0.7, 0.9),)) for s in (0, 1)]
    found.append(
        result(defense="plain", seed=0, attack="source", leakage=(Leakage(name="source_accuracy", value=0.5),))
    )
    assert "] | 0.500 (1) |" in " ".join(matrix.render([matrix.entry(one, PLAYED) for one in found]).split())


def test_cells_are_kept_once_and_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / f"a{matrix.CELLS}", tmp_path / f"b{matrix.CELLS}"
    entries = {e.result: e for e in some()}
    matrix.save(one, entries, Plugins())
    matrix.save(other, dict(reversed(entries.items())), Plugins())
    assert one.read_bytes() == other.read_bytes()
    assert matrix.page_of(one).read_bytes() == matrix.page_of(other).read_bytes()
    assert matrix.page_of(one) == tmp_path / "a.md"
    assert matrix.load(one) == entries


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"result": "x"}', '{"result": 1, "unknown": 2}'])
def test_a_malformed_cell_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / f"x{matrix.CELLS}"
    matrix.save(file, {e.result: e for e in some()}, Plugins())
    lines = [*gzip.decompress(file.read_bytes()).decode().splitlines(), line]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(UsageError, match=f"line {len(lines)}"):
        matrix.load(file)


def test_text_from_a_cell_can_not_leave_its_place() -> None:
    one = matrix.entry(result(defense="a | b\n# c <img>", adversary="x|y", attack="mia"), PLAYED)
    text = matrix.render([one])
    assert "<img>" not in text
    assert "\n# c" not in text


def test_stale_cells_are_counted_and_fail_no_check() -> None:
    entries = [matrix.entry(result(seed=s), PLAYED) for s in (0, 1, 2)]
    page, fresh = matrix.render(entries, {entries[0].result}), matrix.render(entries)
    assert "Stale: 1 of 3 cells" in page
    assert "Stale" not in fresh
    assert matrix.agrees(page, fresh)
    assert not matrix.agrees(page.replace("0.93", "0.94"), fresh)
    assert not matrix.agrees(None, fresh)


def test_a_cell_is_stale_by_its_versions_alone() -> None:
    plugins = Plugins()
    parts = {"task": "clinical-notes", "defense": "fedavg", "attack": "mia"}
    mia = plugins.find("attack", "mia").version
    now = {"task/clinical-notes": 1, "defense/fedavg": 1, "attack/mia": mia, **harness()}
    one = matrix.entry(result(**parts, versions=now, fingerprint="0" * 64), PLAYED)
    old = matrix.entry(result(**parts, versions=now | {"VIEWS": 0}), PLAYED)
    unknown = matrix.entry(result(**parts, seed=1), PLAYED)
    assert matrix.stale([one], plugins) == frozenset()
    assert matrix.stale([old, unknown], plugins) == {old.result, unknown.result}
    assert "versions" not in unknown.model_dump()


def bench(*words: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(list(words))
    return code, out.getvalue()


def test_missing_cells_are_run_and_known_ones_are_not(tmp_path: Path) -> None:
    sets = ("pool.candidates=8", "pool.heldout=8", "pool.population=16", "federation.rounds=1", "pool.max_tokens=40")
    words = ["matrix", "--preset", "smoke", "--defense", "fedavg", "--adversary", "outsider,server", "--json"]
    words += ["--folder", str(tmp_path), "--drop-runs", *(part for s in sets for part in ("--set", s))]
    code, out = bench(*words, "--attack", "mia", "--store", str(tmp_path / "one"))
    assert (code, json.loads(out)["added"]) == (0, 2)
    assert not list((tmp_path / "one" / "runs").glob("*/transcript"))
    # another store knows nothing, and the table does
    code, out = bench(*words, "--attack", "mia,source", "--store", str(tmp_path / "two"))
    assert (code, json.loads(out)["added"]) == (0, 2)
    assert bench("matrix", "--check", "--folder", str(tmp_path))[0] == 0
    page = next((tmp_path / "matrix").glob("*.md"))
    page.write_text(page.read_text() + "edited")
    assert bench("matrix", "--check", "--folder", str(tmp_path))[0] == 1
    code, out = bench(
        *words, "--attack", "mia", "--seeds", "1", "--minutes", "0.0000001", "--store", str(tmp_path / "two")
    )
    assert json.loads(out)["left"] == 2


def test_cells_that_two_processes_add_at_once_are_all_there(tmp_path: Path) -> None:
    """Both at the same file, many times over: without a lock one's cells are lost in nearly every trial."""
    code = (
        "import sys; from pathlib import Path; from bench.board import matrix; "
        "from bench.plugins.find import Plugins; from tests.results_factory import result\n"
        "for seed in range(int(sys.argv[2]), 40, 2):\n"
        "    matrix.add(Path(sys.argv[1]), [result(seed=seed)], {'mia': 'membership'}, Plugins())\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen([*command, part], cwd=root, env=environment) for part in ("0", "1")]
    assert [one.wait(timeout=120) for one in running] == [0, 0]
    (file,) = matrix.files(tmp_path)
    assert sorted(one.seed for one in matrix.load(file).values()) == list(range(40))
    assert {path.suffix for path in file.parent.iterdir()} == {".gz", ".md"}
