"""Which versions a row's numbers are of, and whether a result's are today's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.core import versions as harness
from bench.core.errors import UsageError
from bench.plugins.find import Plugin, Plugins
from bench.plugins.outline import Outline
from bench.plugins.versions import Versions, named, taking_part
from bench.spec.run import PluginSpec, Row, RunSpec
from tests.plugin_files import DEFENSE, folders, write
from tests.results_factory import result

OWN = {"TRAINING": harness.TRAINING, "VIEWS": harness.VIEWS, "SCORING": harness.SCORING}
TODAY = {"task/words": 1, "defense/guard": 3, "defense/two-words": 1, "attack/peek": 1, **OWN}


def row(defense: str = "guard+two-words", attack: str = "peek", task: str = "words") -> Row:
    parts = tuple(PluginSpec(name=name) for name in defense.split("+"))
    run = RunSpec(task=PluginSpec(name=task), defense=parts)
    return Row(run=run, attack=PluginSpec(name=attack), adversary="server")


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    found = folders(tmp_path)
    write(tmp_path / "defenses" / "guard.py", DEFENSE.replace("version = 1", "version = 3"))
    write(tmp_path / "defenses" / "silent.py", DEFENSE.replace("version = 1\n", ""))
    return found


def test_a_row_names_its_task_its_defenses_in_order_and_its_attack() -> None:
    assert named(row()) == (("task", "words"), ("defense", "guard"), ("defense", "two-words"), ("attack", "peek"))


@pytest.mark.parametrize("task", ["words", "words:some/file.jsonl", "words:a:b"])
def test_a_committed_result_names_the_same_by_its_words(task: str) -> None:
    assert taking_part(task, "guard+two-words", "peek") == named(row())


def test_versions_are_those_of_the_plug_ins_and_of_the_harness(plugins: Plugins) -> None:
    assert Versions(plugins).of(row()) == TODAY
    assert Versions(plugins).of(row("silent")) == {"task/words": 1, "defense/silent": 1, "attack/peek": 1, **OWN}


def test_a_plug_in_that_is_not_here_has_no_version(plugins: Plugins) -> None:
    with pytest.raises(UsageError, match=r"There is no attack 'peak'. Did you mean 'peek'"):
        Versions(plugins).of(row(attack="peak"))


@pytest.mark.parametrize(
    ("known", "current"),
    [
        (TODAY, True),
        ({}, False),  # from before there were versions
        ({**TODAY, "SCORING": 0}, False),
        ({**TODAY, "defense/guard": 2}, False),
        ({**TODAY, "defense/guard": 4}, False),
        ({**TODAY, "defense/more": 1}, False),
        ({key: value for key, value in TODAY.items() if key != "VIEWS"}, False),
    ],
)
def test_numbers_mean_what_they_would_today_only_under_equal_versions(
    plugins: Plugins, known: dict[str, int], current: bool
) -> None:
    versions = Versions(plugins)
    assert versions.are_current(known, named(row())) is current
    one = result(task="words:PATH", defense="guard+two-words", attack="peek", versions=known)
    assert versions.current(one) is current


def test_a_result_of_a_plug_in_that_is_gone_is_not_current(plugins: Plugins) -> None:
    known = {"task/words": 1, "defense/gone": 1, "attack/peek": 1, **OWN}
    assert not Versions(plugins).current(result(task="words", defense="gone", attack="peek", versions=known))


def test_a_plug_in_without_a_version_is_warned_of_once_whatever_names_it(plugins: Plugins, tmp_path: Path) -> None:
    said: list[str] = []
    Versions(plugins).warn([row("silent"), row("guard+silent"), row("guard")], said.append)
    assert said == [
        f"defense 'silent' ({tmp_path / 'defenses' / 'silent.py'}) says no version, which counts as 1: "
        "assign 'version = 1' beside 'api', and raise it whenever its numbers change."
    ]


def test_an_installed_plug_in_of_a_built_in_one_s_name_is_named_with_its_package(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = Plugin("defense", "guard", tmp_path / "guard.py", Outline(version=1), "installed", "t", "their-package")
    monkeypatch.setattr(plugins, "hidden", lambda kind, name: brought if (kind, name) == ("defense", "guard") else None)
    said: list[str] = []
    Versions(plugins).warn([row("guard")], said.append)
    assert said == [
        "defense 'guard' is SiloBench's own; the package 'their-package' brings one of that name too "
        f"({tmp_path / 'guard.py'}), which is not used: give it another name."
    ]


def test_nothing_is_run_to_learn_a_version(plugins: Plugins, tmp_path: Path) -> None:
    write(tmp_path / "defenses" / "bomb.py", "api = 1\nversion = 7\nraise SystemExit(9)\ndef build(config): ...\n")
    assert Versions(plugins).of(row("bomb"))["defense/bomb"] == 7
