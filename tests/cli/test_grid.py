"""Grids from the words of a command: names, compositions, presets, --set, and what is said where one is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli import presets
from bench.cli.grid import Request, attack_specs, expand, parse_seeds, parse_sets
from bench.core.errors import UsageError
from bench.plugins.find import Plugins
from bench.spec.run import ADVERSARIES, FederationSpec, PoolSpec
from tests.plugin_files import folders, write

ASK = Request(defense="guard", attack="peek")


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    return folders(tmp_path)


def test_a_cell_per_adversary_with_whole_configurations(plugins: Plugins) -> None:
    grid = expand(ASK, plugins)
    assert [row.adversary for row in grid.rows] == ["outsider", "server"]
    assert (grid.seeds, grid.preset) == ((0,), "small")
    run = grid.rows[0].run
    assert run.task.model_dump() == {"name": "words", "config": {"path": "NONE", "size": 10}}
    assert [part.model_dump() for part in run.defense] == [
        {"name": "guard", "config": {"epsilon": 8.0, "mode": "slow", "inner": {"depth": 2}}}
    ]
    assert grid.rows[0].attack.config == {"tries": 3}
    assert run.pool == PoolSpec(candidates=10)
    assert run.federation.rounds == 2
    assert run.federation.local.epochs == 3
    assert run.federation.local.batch == FederationSpec().local.batch


def test_comma_lists_multiply_and_plus_composes(plugins: Plugins) -> None:
    ask = Request("guard,two-words+guard", "peek,guess", adversary="server,silo,user", seeds="3,5-7")
    grid = expand(ask, plugins)
    assert len(grid.rows) == 2 * 2 * 3
    assert {row.run.defense_name for row in grid.rows} == {"guard", "two-words+guard"}
    assert grid.seeds == (3, 5, 6, 7)
    runs = [row.run.run_id(0) for row in grid.rows]
    assert runs == sorted(runs, key=runs.index)  # cells of one training are neighbours
    assert len(set(runs)) == 2


def test_the_same_request_gives_the_same_identities(plugins: Plugins) -> None:
    one, two = expand(ASK, plugins), expand(replace(ASK, sets=("federation.rounds=2", "guard.mode=slow")), plugins)
    assert [row.row_id for row in one.rows] == [row.row_id for row in two.rows]
    other = expand(replace(ASK, sets=("federation.rounds=3",)), plugins)
    assert one.rows[0].row_id != other.rows[0].row_id


def test_set_goes_over_options_over_preset(plugins: Plugins) -> None:
    sets = ("federation.rounds=8", "federation.lora.targets=[\"k_proj\"]", "guard.epsilon=1.5", "guard.inner.depth=4",
            "words.size=20", "peek.tries=9", "model.dtype=float16")  # fmt: skip
    run = expand(replace(ASK, sets=sets, model="tiny", dtype="bfloat16"), plugins).rows[0].run
    assert run.federation.rounds == 8
    assert run.federation.lora.targets == ("k_proj",)
    assert run.defense[0].config == {"epsilon": 1.5, "mode": "slow", "inner": {"depth": 4}}
    assert run.task.config["size"] == 20
    assert (run.model.name, run.model.dtype) == ("tiny", "float16")


def test_a_key_reaches_every_cell_that_has_it_and_no_other(plugins: Plugins) -> None:
    grid = expand(Request("guard,two-words", "peek", sets=("two-words.epsilon=3",)), plugins)
    found = {row.run.defense_name: row.run.defense[0].config["epsilon"] for row in grid.rows}
    assert found == {"guard": 8.0, "two-words": 3.0}


def test_all_stands_for_every_adversary_there_is(plugins: Plugins) -> None:
    rows = expand(replace(ASK, adversary="server,all"), plugins).rows
    assert [row.adversary for row in rows] == ["server", *(who for who in ADVERSARIES if who != "server")]


def test_a_task_takes_a_path_after_a_colon(plugins: Plugins) -> None:
    spec = expand(replace(ASK, task="words:some/file.jsonl"), plugins).rows[0].run.task
    assert spec.name == "words"
    assert spec.config["path"] == "SOME/FILE.JSONL"  # the task's own resolve() made it so
    with pytest.raises(UsageError, match="defense 'guard' takes nothing after ':'"):
        expand(replace(ASK, defense="guard:x"), plugins)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"defense": "gard"}, r"There is no defense 'gard'. Did you mean 'guard'\?"),
        ({"attack": "pek"}, r"There is no attack 'pek'. Did you mean 'peek'\?"),
        ({"task": "word"}, r"There is no task 'word'. Did you mean 'words'\?"),
        ({"preset": "smal"}, r"There is no preset 'smal'. Did you mean 'small'\?"),
        ({"adversary": "sever"}, r"There is no adversary 'sever'. Did you mean 'server'\?"),
        ({"sets": ("federation.round=3",)}, r"There is no key 'federation.round'. Did you mean 'federation.rounds'\?"),
        ({"sets": ("guard.epsilom=3",)}, r"There is no key 'guard.epsilom'. Did you mean 'guard.epsilon'\?"),
        ({"sets": ("two-words.epsilon=3",)}, r"There is no key 'two-words.epsilon'"),
        ({"sets": ("federation.local=3",)}, r"There is no key 'federation.local'"),
        ({"sets": ("federation.lr=3",)}, r"There is no key 'federation.lr'. Did you mean 'federation.local.lr'\?"),
        ({"sets": ("rounds=3",)}, r"There is no key 'rounds'. Did you mean 'federation.rounds'\?"),
        ({"sets": ("epsilon=3",)}, r"There is no key 'epsilon'. Did you mean 'guard.epsilon'\?"),
        ({"sets": ("=3",)}, r"--set '=3' is not of the form"),
        ({"sets": ("pool.share",)}, r"--set 'pool.share' is not of the form"),
        ({"sets": ("pool.share=.5", "pool.share=.4")}, r"--set gives pool.share twice"),
        ({"sets": ("federation.rounds=0",)}, r"^federation.rounds=0 is refused: .* greater than or equal to 1\.$"),
        ({"sets": ("federation.rounds=many",)}, r"^federation.rounds=many is refused: it should be a valid integer"),
        ({"sets": ("federation.local.lr=1000",)}, r"federation.local.lr=1000 .* less than or equal to 100"),
        ({"sets": ("pool.share=1",)}, r"pool.share=1 .* less than 1"),
        ({"sets": ("pool.share=NaN",)}, r"pool.share=NaN .* finite number"),
        ({"sets": ("guard.epsilon=0",)}, r"guard.epsilon=0 .* greater than 0"),
        ({"sets": ("guard.inner.depth=10",)}, r"guard.inner.depth=10 .* less than or equal to 9"),
        ({"sets": ("federation.partition=iidd",)}, r"federation.partition=iidd .* 'iid', .* or 'silo'"),
        ({"dtype": "int3"}, r"model.dtype=int3 .* 'float32', 'bfloat16' or 'float16'"),
        ({"secret_seed": -1}, r"secret_seed=-1 .* greater than or equal to 0"),
        ({"sets": ('federation.dropouts=[{"round": 9, "silo": 0}]',)}, r"names silo 0 in round 9"),
        ({"defense": "guard+guard"}, r"names a defense twice"),
        ({"defense": "guard+"}, r"has an empty operand"),
        ({"defense": "guard,"}, r"has an empty name"),
        ({"seeds": "x"}, r"'x' is no seed"),
        ({"seeds": "4-2"}, r"must ascend"),
        ({"seeds": "0-99999999"}, r"at most 10000 seeds"),
    ],
)  # fmt: skip
def test_bad_words_are_answered_with_one_sentence(plugins: Plugins, change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        expand(replace(ASK, **change), plugins)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_one_name_for_two_kinds_is_refused_where_both_are_used(tmp_path: Path) -> None:
    plugins = folders(tmp_path)
    (tmp_path / "attacks" / "guard.py").write_text((tmp_path / "attacks" / "peek.py").read_text())
    assert expand(ASK, plugins).rows
    with pytest.raises(UsageError, match=r"'guard' names two plug-ins of this grid \(defense and attack\)"):
        expand(replace(ASK, attack="guard"), plugins)


def test_seeds() -> None:
    assert parse_seeds("5") == (5,)
    assert parse_seeds("0-2, 7,1") == (0, 1, 2, 7)


def test_values_are_json_or_text() -> None:
    assert parse_sets(["a.b=1", "a.c=[1, 2]", "a.d=true", "a.e=plain text", "a.f=", "a.g=x=y"]) == {
        "a.b": 1, "a.c": [1, 2], "a.d": True, "a.e": "plain text", "a.f": "", "a.g": "x=y",
    }  # fmt: skip


def test_attacks_on_a_transcript_take_their_own_keys_only(plugins: Plugins) -> None:
    (spec,) = attack_specs(plugins, "peek", ["peek.tries=5"])
    assert spec.config == {"tries": 5}
    with pytest.raises(UsageError, match=r"There is no key 'federation.rounds'. Known: peek.tries"):
        attack_specs(plugins, "peek", ["federation.rounds=5"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("description = 'x'\ntask = 'words'\nrounds = 3\n", "There is no key 'rounds'"),
        ("description = 'x'\n", "'task' has no value"),
        ("description = 'x'\ntask = 'words'\n[pool]\nshare = 2.0\n", r"pool.share=2.0 is refused: .* less than 1"),
        ("description = 'x'\ntask = 'words'\n[pool]\nsahre = .2\n", "is not valid TOML"),
        ("description = 'x'\ntask = 'words'\n[pool]\nsahre = 0.2\n", r"Did you mean 'pool.share'\?"),
    ],
)  # fmt: skip
def test_a_bad_preset_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "odd.toml", text)
    with pytest.raises(UsageError, match=says) as caught:
        presets.load(path)
    assert str(path) in str(caught.value)


def test_a_preset_may_be_a_file(plugins: Plugins, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", "description = 'x'\ntask = 'words'\nseeds = '0-4'\n")
    grid = expand(replace(ASK, preset=str(path)), plugins)
    assert (grid.preset, len(grid.seeds), len(grid.rows)) == ("mine", 5, 6)


def test_the_presets_that_come_with_silobench_are_valid() -> None:
    files = Plugins().presets()
    assert {"smoke", "quick", "standard"} <= set(files)
    name, quick = presets.find(None, Plugins())
    assert name == "quick"
    pool, federation = PoolSpec(**quick.pool), FederationSpec(**quick.federation)
    members = federation.silos * pool.candidates * pool.share
    assert members >= 90
    assert federation.silos * pool.candidates - members >= 90
    assert parse_seeds(presets.load(files["standard"]).seeds) == (0, 1, 2, 3, 4)
    for path in files.values():
        presets.load(path)


def test_a_dry_run_weighs_attacks_by_their_passes_and_prints_what_bounds_a_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli.main import main

    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--adversary", "server", "--dry-run"]
    words += ["--store", str(tmp_path), "--attack", "mia,trajectory,gradient,gradient-matching,extraction"]
    assert main([*words, "--json"]) == 0
    cells = {cell["attack"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}
    trained = {name: cell["seconds"] for name, cell in cells.items() if not cell["trainings"]}
    assert trained["trajectory"] < trained["gradient"] < trained["gradient-matching"]
    assert cells["mia"]["budget"] == ""
    assert main([*words, "--set", "gradient-matching.budget=123"]) == 0
    text = capsys.readouterr().out
    assert "budget of gradient-matching: at most 123 forward and backward passes of one record for each" in text
    assert "budget of extraction: two forward passes of at most 17 records for each secret of 36 members" in text


def test_a_dry_run_counts_work_that_adversaries_share_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli.main import main

    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--adversary", "user,server", "--dry-run", "--json"]
    assert main([*words, "--store", str(tmp_path), "--attack", "mia,gradient"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    gradient = {cell["adversary"]: cell["seconds"] for cell in cells if cell["attack"] == "gradient"}
    assert gradient["server"] < gradient["user"], "the passes stand with the first adversary"
    assert gradient["server"] == next(c["seconds"] for c in cells if (c["attack"], c["adversary"]) == ("mia", "server"))
