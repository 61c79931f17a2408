"""Plug-in files written into temporary folders, so that tests don't depend on which plug-ins are installed."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from bench.plugins.find import Plugins

DEFENSE = '''
"""A defense that {name}."""
from pydantic import Field
from bench.spec.config import Config as Base
from bench.defense.compose import Defense

api = 1
version = 1

class Inner(Base):
    depth: int = Field(2, ge=1, le=9)

class Config(Base):
    epsilon: float = Field(8.0, gt=0, le=1000)
    mode: str = "fast"
    inner: Inner = Inner()

def build(config: Config) -> Defense:
    return Defense()
'''
ATTACK = '''
"""An attack that {name}."""
from bench.attack.attack import Attack
from bench.spec.config import Config as Base

api = 1
version = 1

class Config(Base):
    tries: int = 3

class Silent(Attack):
    game = "membership"
    needs = frozenset({"adapter"})

    def infer(self, view, candidates, tools):
        raise NotImplementedError

def build(config: Config) -> Attack:
    return Silent()
'''
TASK = '''
"""A task that {name}."""
from pydantic import Field
from bench.spec.config import Config as Base
from bench.corpus.task import Record, Task

api = 1
version = 1

class Config(Base):
    path: str = "none"
    size: int = Field(10, ge=2)

class Words(Task):
    source = "made here"
    def __init__(self, size):
        self.size = size
    def records(self, assets):
        return [Record(str(i), f"record number {i}") for i in range(self.size)]

def resolve(config: Config) -> Config:
    return config.model_copy(update={"path": config.path.upper()})

def build(config: Config) -> Task:
    return Words(config.size)
'''
PRESET = """
description = "for tests"
default = true
task = "words"
seeds = "0"
adversaries = ["outsider", "server"]

[pool]
candidates = 10

[federation]
rounds = 2

[federation.local]
epochs = 3

[plugins.guard]
mode = "slow"
"""


def write(path: Path, text: str, name: str = "does nothing") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text).lstrip().replace("{name}", name))
    return path


def folders(root: Path) -> Plugins:
    """A registry of one task, two defenses, two attacks and one preset in folders of their own."""
    write(root / "defenses" / "guard.py", DEFENSE, "guards")
    write(root / "defenses" / "two_words.py", DEFENSE, "has two words")
    write(root / "attacks" / "peek.py", ATTACK, "peeks")
    write(root / "attacks" / "scores.py", "def helper(): return 1\n")
    write(root / "attacks" / "guess.py", ATTACK, "guesses")
    write(root / "tasks" / "words.py", TASK, "has words")
    write(root / "tasks" / "presets" / "small.toml", PRESET)
    return Plugins(
        folders={"defense": root / "defenses", "attack": root / "attacks", "task": root / "tasks"},
    )
