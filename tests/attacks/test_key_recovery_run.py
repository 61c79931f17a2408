"""The attack as its users meet it: a row of a run with a trained model, at two precisions of the release."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.spec.result import Result

#: a federation of seconds whose tensors fill ciphertexts
SMALL = (
    "pool.candidates=8",
    "pool.validation=4",
    "pool.heldout=8",
    "pool.population=16",
    "pool.max_tokens=48",
    "federation.local.epochs=1",
    "federation.rounds=1",
    "federation.lora.rank=64",
    "clinical-notes.notes=200",
)


def row(store: Path, precision: str) -> Result:
    out = io.StringIO()
    sets = (*SMALL, f"federation.release_precision={precision}")
    words = ["run", "--preset", "smoke", "--defense", "fedshield", "--attack", "key-recovery", "--adversary", "server"]
    words += ["--json", "--store", str(store), *(part for value in sets for part in ("--set", value))]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(words) == 0
    (found,) = [Result.from_json(line) for line in out.getvalue().splitlines() if line.startswith("{")]
    return found


@pytest.mark.slow
def test_a_run_says_what_opened_and_from_which_precision_on_nothing_would(tmp_path: Path) -> None:
    found = row(tmp_path, "float64")
    assert found.status == "ok"
    assert set(found.reads) == {f"upload of silo-{i}, round 0" for i in range(3)}
    assert "out of its reach, which is no proof of safety" in found.note

    found = row(tmp_path, "float16")
    assert found.status == "nothing-opened"
    assert not found.leakage
