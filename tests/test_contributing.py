"""The plug-ins that CONTRIBUTING.md shows are complete and pass the conformance kit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.conformance import check
from bench.core.adversaries import assignments
from bench.defense.compose import compose
from bench.plugins.find import Plugins, from_path
from bench.spec.run import FederationSpec
from bench.view.build import build
from tests.federation.fakes import DrawnTrainer, make_setup, run
from tests.grounds import instead
from tests.test_rooms import code_lines

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = {
    match[1]: match[0].partition("\n")[2].removesuffix("```")
    for match in re.finditer(r"```python\n# ((?:defenses|attacks|tasks)/\w+\.py)\n.*?```", TEXT, re.DOTALL)
}


def test_there_is_an_example_of_each_kind_and_no_other_code() -> None:
    assert sorted(BLOCKS) == [
        "attacks/loss_ratio.py",
        "defenses/keep_largest.py",
        "defenses/server_brake.py",
        "tasks/opening_hours.py",
    ]
    assert TEXT.count("```python") == len(BLOCKS)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_example_passes_the_kit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.conformance.attack.playground", instead)
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(BLOCKS[name])
    plugin = from_path(path)
    assert plugin.kind == name.partition("/")[0].replace("defenses", "defense").removesuffix("s")
    findings = list(check(plugin))
    assert len(findings) >= 5
    assert [f"{f.title}: {f.says}" for f in findings if not f.passed] == []


@pytest.mark.parametrize("others", ["fedshield", "secagg", "dp-fedavg", "fedsa-lora", "fedavgm"])
@pytest.mark.parametrize("name", ["defenses/keep_largest.py", "defenses/server_brake.py"])
def test_a_part_composes_with_five_others(name: str, others: str, tmp_path: Path) -> None:
    """In under 40 lines, and with defenses that know nothing of it: a federation runs, and its views are built."""
    path = tmp_path / Path(name).name
    path.write_text(BLOCKS[name])
    assert code_lines(path) < 40
    mine = from_path(path)
    named = [(mine.name, mine.build()), (others, Plugins().find("defense", others).build())]
    order = named if name.endswith("largest.py") else named[::-1]
    defense = replace(compose(order), trainer=DrawnTrainer())
    setup = make_setup(FederationSpec(silos=2, rounds=2, release="every-round"), defense)
    transcript = run(tmp_path / "run", setup)
    assert transcript.committed() == 1
    view = build(transcript, setup.parts, "silo", assignments("silo", setup.public.silos)[0], tmp_path / "view")
    if name.endswith("largest.py"):
        sent = np.asarray(transcript.truth(0, "silo-0"))
        # fedshield sums whole weights, and dp-fedavg clips: their summands hold more than the largest values
        assert others in ("fedshield", "dp-fedavg") or 0 < np.count_nonzero(sent) <= 5
        return
    first, second = (np.asarray(transcript.truth(round, "adapter"), np.float64) for round in range(2))
    assert np.linalg.norm(second - first) <= 1 + 1e-5  # its length, whatever the others make of the sum
    assert {step for _, step in view.lost} <= {type(step).__name__ for step in setup.parts.steps}
