"""The registry: lazy, refuses a name twice, answers a typo, reads files without running them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.core.errors import SiloBenchError, UsageError
from bench.defense.compose import Defense
from bench.plugins import find as registry
from bench.plugins.find import KINDS, Plugin, Plugins, from_path, package_folder
from bench.plugins.outline import Outline
from tests.plugin_files import ATTACK, DEFENSE, folders, write


def test_lists_names_and_summaries_of_plug_ins_only(tmp_path: Path) -> None:
    plugins = folders(tmp_path)
    assert plugins.names("defense") == ("guard", "two-words")
    assert plugins.names("attack") == ("guess", "peek")  # scores.py has no api: a module of the folder
    assert plugins.find("defense", "guard").summary == "A defense that guards."
    assert plugins.find("defense", "two-words").path == tmp_path / "defenses" / "two_words.py"


def test_listing_and_finding_run_no_plug_in(tmp_path: Path) -> None:
    write(tmp_path / "defenses" / "bomb.py", '"""Explodes."""\napi = 1\nraise SystemExit(9)\ndef build(config): ...\n')
    plugins = Plugins(folders={"defense": tmp_path / "defenses"})
    assert plugins.find("defense", "bomb").summary == "Explodes."


def test_imports_once_when_used_and_builds_with_defaults(tmp_path: Path) -> None:
    plugin = folders(tmp_path).find("defense", "guard")
    before = set(sys.modules)
    module = plugin.module()
    assert {name.rpartition(".")[2] for name in set(sys.modules) - before} >= {"guard"}
    assert plugin.module() is module
    assert isinstance(plugin.build(), Defense)
    assert plugin.validate({"epsilon": 2}).model_dump() == {"epsilon": 2.0, "mode": "fast", "inner": {"depth": 2}}


def test_a_typo_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    plugins = folders(tmp_path)
    with pytest.raises(
        UsageError, match=r"There is no defense 'gaurd'. Did you mean 'guard'\? Known: guard, two-words"
    ):
        plugins.find("defense", "gaurd")
    with pytest.raises(UsageError, match=r"no plug-in 'peak'. Did you mean 'peek'"):
        plugins.search("peak")


def test_a_name_twice_is_refused_naming_both_files(tmp_path: Path) -> None:
    plugins = folders(tmp_path)
    write(tmp_path / "defenses" / "other.py", DEFENSE + '\nname = "guard"\n')
    with pytest.raises(UsageError, match=r"Two plug-ins are called defense 'guard': .*guard\.py and .*other\.py"):
        plugins.names("defense")


def test_a_path_that_takes_an_existing_name_is_refused(tmp_path: Path) -> None:
    folders(tmp_path)
    path = write(tmp_path / "mine" / "guard.py", DEFENSE)
    plugins = Plugins([path], folders={"defense": tmp_path / "defenses"})
    with pytest.raises(UsageError, match="Two plug-ins are called defense 'guard'"):
        plugins.find("defense", "guard")


def test_an_installed_package_replaces_nothing_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path)
    theirs = write(tmp_path / "theirs" / "guard.py", DEFENSE)
    brought = Plugin("defense", "guard", theirs, Outline(version=1), "installed", "theirs.guard", "their-package")
    monkeypatch.setattr(registry, "_installed", lambda kind: [brought] if kind == "defense" else [])
    plugins = Plugins(folders={"defense": tmp_path / "defenses"})
    assert plugins.find("defense", "guard").path == tmp_path / "defenses" / "guard.py"
    assert plugins.hidden("defense", "guard") is brought
    assert plugins.hidden("defense", "two-words") is None


def test_an_assigned_name_counts(tmp_path: Path) -> None:
    write(tmp_path / "defenses" / "file.py", DEFENSE + '\nname: str = "other-name"\n')
    assert Plugins(folders={"defense": tmp_path / "defenses"}).names("defense") == ("other-name",)


@pytest.mark.parametrize("name", ["Upper", "a b", "a+b", "a.b", "-a", "pool", "model", "federation", ""])
def test_names_that_would_break_the_command_line_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "defenses" / "file.py", DEFENSE + f'\nname = "{name}"\n')
    plugins = Plugins(folders={"defense": tmp_path / "defenses"})
    with pytest.raises(UsageError, match=r"can't name a plug-in|There is no defense"):
        plugins.find("defense", name)


def test_another_api_is_refused_when_it_is_used_and_shown_when_listed(tmp_path: Path) -> None:
    write(tmp_path / "defenses" / "new.py", DEFENSE.replace("api = 1", "api = 2"))
    write(tmp_path / "defenses" / "old.py", DEFENSE)
    plugins = Plugins(folders={"defense": tmp_path / "defenses"})
    assert plugins.names("defense") == ("new", "old")
    assert plugins.find("defense", "old").build()
    with pytest.raises(UsageError, match=r"new\.py asks for plug-in api 2, and this silobench offers api 1"):
        plugins.find("defense", "new")


def test_a_file_that_is_not_python_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "defenses" / "torn.py", "api = 1\ndef build(:\n")
    plugins = Plugins(folders={"defense": tmp_path / "defenses"})
    with pytest.raises(UsageError, match=r"torn\.py line 2 is not valid Python"):
        plugins.find("defense", "torn")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_like_it\n" + DEFENSE, "ModuleNotFoundError: No module named 'nothing_like_it'"),
        (DEFENSE + "\nraise ValueError('no luck')\n", "ValueError: no luck"),
        (DEFENSE.replace("class Config", "class Options").replace("config: Config", "config"), "no class 'Config'"),
        (DEFENSE.replace("class Config(Base)", "class Config"), "no class 'Config'"),
        ("from bench.spec.config import Config\napi = 1\ndef build(config): ...\n", "no class 'Config' of its own"),
    ],
)
def test_a_module_that_fails_to_import_is_a_usage_error_with_file_and_cause(
    tmp_path: Path, text: str, says: str
) -> None:
    write(tmp_path / "defenses" / "bad.py", text)
    plugin = Plugins(folders={"defense": tmp_path / "defenses"}).find("defense", "bad")
    with pytest.raises(UsageError, match=r"bad\.py") as caught:
        plugin.module()
    assert says in str(caught.value)


def test_a_build_that_fails_is_a_sentence_with_exit_code_one(tmp_path: Path) -> None:
    plugin = folders(tmp_path).find("attack", "peek")
    assert plugin.path is not None
    plugin.path.write_text(plugin.path.read_text().replace("return Silent()", "raise NotImplementedError"))
    with pytest.raises(SiloBenchError, match=r"attack 'peek' .* failed to build: NotImplementedError") as caught:
        plugin.build()
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("returns", ["MembershipAttack", "bench.SourceAttack", "'Attack'"])
def test_an_attack_of_whichever_game_is_one_by_what_build_returns(tmp_path: Path, returns: str) -> None:
    assert from_path(write(tmp_path / "one.py", ATTACK.replace("-> Attack", f"-> {returns}"))).kind == "attack"


def test_the_kind_of_a_path_is_assigned_or_annotated_or_its_folder(tmp_path: Path) -> None:
    assert from_path(write(tmp_path / "x" / "a.py", DEFENSE)).kind == "defense"
    assert from_path(write(tmp_path / "x" / "b.py", ATTACK)).kind == "attack"
    bare = ATTACK.replace("-> Attack", "")
    assert from_path(write(tmp_path / "attacks" / "c.py", bare)).kind == "attack"
    assert from_path(write(tmp_path / "x" / "d.py", bare + '\nkind = "task"\n')).kind == "task"
    with pytest.raises(UsageError, match="its kind is unknown"):
        from_path(write(tmp_path / "x" / "e.py", bare))


def test_a_path_that_is_no_plug_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        from_path(tmp_path / "none.py")
    with pytest.raises(UsageError, match="it is no plug-in"):
        from_path(write(tmp_path / "plain.py", "x = 1\n"))


def test_a_path_may_import_modules_of_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "parts.py", "VALUE = 41\n")
    text = DEFENSE + "\nfrom .parts import VALUE\nANSWER = VALUE + 1\n"
    assert from_path(write(tmp_path / "whole.py", text)).module().ANSWER == 42


def test_two_folders_with_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    one = from_path(write(tmp_path / "one" / "same.py", DEFENSE + "\nWHERE = 1\n"))
    two = from_path(write(tmp_path / "two" / "same.py", DEFENSE + "\nWHERE = 2\n"))
    assert (one.module().WHERE, two.module().WHERE) == (1, 2)


def test_every_built_in_file_that_assigns_api_is_found() -> None:
    plugins = Plugins()
    packages = {"defense": "defenses", "attack": "attacks", "task": "tasks"}
    for kind in KINDS:
        files = {p.stem for p in package_folder(packages[kind]).glob("*.py") if "\napi = 1\n" in p.read_text()}
        built_in = {p.path.stem for p in plugins.all(kind) if p.origin == "built-in" and p.path is not None}
        assert built_in == files
        assert all(plugin.summary and not plugin.broken for plugin in plugins.all(kind))
