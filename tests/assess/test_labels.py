"""Labels that begin alike, from a user's file to their accuracy; and what is refused before anything is trained."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.store.store import Store

WORDS = "river stone lamp garden copper window silent market paper bridge winter orange dancer puzzle forest candle"
SMALL = [
    *("--model", "tiny", "--set", "pool.candidates=8", "--set", "pool.heldout=12", "--set", "pool.validation=0"),
    *("--set", "pool.population=8", "--set", "federation.rounds=1", "--set", "federation.local.epochs=1", "--quiet"),
    *("--set", "federation.silos=2", "--adversary", "outsider", "--attack", "mia"),
]

ALIKE = '''
"""A task whose labels are written alike."""
from bench import Config as Base, Record, Task
api = 1
version = 1
class Config(Base):
    pass
class Alike(Task):
    labels = ("yes", "no")
    answer_prefix = "\\nLabel:"
    def records(self, assets):
        raise AssertionError("nothing may be read")
    def label_text(self, label):
        return " same"
    def metrics(self):
        return ("{metric}",)
def build(config) -> Task:
    return Alike()
'''


def numbered(path: Path) -> Path:
    """Records whose labels are " 1" and " 10": with these tokens one goes on from the other."""
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS.split(), k=28)) for _ in range(90)]
    rows = ({"text": text, "label": ("1", "10")[i % 2]} for i, text in enumerate(texts))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_labels_that_begin_alike_are_scored_and_measured(tmp_path: Path) -> None:
    task = f"jsonl:{numbered(tmp_path / 'a.jsonl')}"
    words = ["run", "--task", task, "--defense", "fedavg", "--store", str(tmp_path / "s")]
    assert main([*words, *SMALL]) == 0
    (result,) = Store(tmp_path / "s").results()
    found = {one.name: one for one in result.utility}
    assert list(found) == ["text-perplexity", "answer-perplexity", "accuracy", "text-gain"]
    assert found["accuracy"].n == found["text-gain"].n == 12
    assert found["text-gain"].base == 0
    assert result.learned is ((found["text-gain"].low or 0) > 0)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("accuracy", "label texts ' same' and ' same' are the same tokens of this model"),
        ("accuraci", "There is no metric 'accuraci'. Did you mean 'accuracy'?"),
    ],
)
def test_a_dry_run_refuses_what_could_not_be_measured(
    metric: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "alike.py"
    path.write_text(ALIKE.replace("{metric}", metric))
    words = ["run", "--task", "alike", "--plugin", str(path), "--defense", "fedavg", "--store", str(tmp_path / "s")]
    assert main([*words, *SMALL, "--dry-run"]) == 2
    assert says in capsys.readouterr().err
