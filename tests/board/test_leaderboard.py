"""The leaderboard: a pure function of the results, in which nothing is lost, invented or flattered."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from bench.board.leaderboard import add, check, load, planting_of, read_lines, render, stale_ids, write
from bench.core.errors import UsageError
from bench.core.versions import harness
from bench.games.membership import make_sheet
from bench.spec.canonical import sha256
from bench.spec.result import Claim, Leakage, Organisation, Result, Utility
from bench.store.store import Store
from tests.results_factory import auc, result, run_spec

GOLDEN = Path(__file__).parents[1] / "golden" / "reviews.md"


def golden_results() -> list[Result]:
    noisy = result(
        defense="noisy",
        leakage=(auc(0.51, 0.43, 0.59), Leakage(name="tpr@1%", value=None, note="needs 500 non-members")),
        utility=(Utility(name="perplexity", value=28.4, base=28.31),),
        learned=False,
        claim=Claim(epsilon=8.0, delta=0.001, unit="record", adjacency="add-remove"),
    )
    sealed = result(defense="sealed", adversary="server", status="nothing-opened", leakage=(), reads=())
    return [noisy, result(defense="plain"), sealed]


def cells(text: str, section: str) -> list[dict[str, str]]:
    """The rows of the table below the heading that starts with ``## section``, by column."""
    lines = text.split(f"\n## {section}")[1].split("\n## ")[0].split("\n")
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


def outsider(*results: Result, stale: Any = ()) -> list[dict[str, str]]:
    return cells(render(results, stale)["reviews.md"], "outsider")


def test_the_page_is_this_text() -> None:
    results = golden_results()
    pages = render(results, {results[1].result})
    assert sorted(pages) == ["README.md", "reviews.md"]
    assert pages["reviews.md"].startswith(GOLDEN.read_text() + "\n## How to read this\n")
    assert "not a proof of security" in pages["reviews.md"]
    assert "| [reviews](reviews.md) | quick     | noisy, plain, sealed | mia       | 3         |" in pages["README.md"]


def test_equal_results_give_equal_bytes_in_any_order() -> None:
    results = [
        result(defense=defense, attack=attack, adversary=adversary, seed=seed, task=task)
        for defense in ("a", "b+c")
        for attack in ("mia", "other")
        for adversary in ("user", "server")
        for seed in range(3)
        for task in ("reviews", "notes")
    ]
    expected = render(results, {results[3].result})
    for number in range(5):
        shuffled = [Result.from_json(one.to_json()) for one in results]
        random.Random(number).shuffle(shuffled)
        assert render(shuffled, {results[3].result}) == expected


def test_adversaries_stand_from_the_least_able_to_the_most() -> None:
    names = ["all-but-one", "silo", "server+silo", "user", "server", "outsider"]
    text = render([result(adversary=name) for name in names])["reviews.md"]
    places = [
        text.index(f"\n## {name}:") for name in ("user", "outsider", "silo", "server", "server+silo", "all-but-one")
    ]
    assert places == sorted(places)


# -- leakage -------------------------------------------------------------------------------------------------------


def test_the_worst_attack_counts() -> None:
    (row,) = outsider(
        result(attack="weak", leakage=(auc(0.6, 0.5, 0.7),)),
        result(attack="strong", leakage=(auc(0.81, 0.7, 0.9, n={"members": 30, "nonmembers": 40}),)),
        result(attack="middling", leakage=(auc(0.7, 0.6, 0.8),)),
    )
    assert row["membership AUC"] == "0.810 [0.700, 0.900]"
    assert (row["by"], row["n"]) == ("strong", "30/40")


def test_the_baseline_stands_beside_the_attack() -> None:
    baseline = Leakage(name="auc:baseline", value=0.55, low=0.45, high=0.65)
    (row,) = outsider(result(leakage=(auc(0.93, 0.89, 0.962), baseline)))
    assert row["no view"] == "0.550 [0.450, 0.650]"


@pytest.mark.parametrize(
    ("status", "shown", "word"),
    [
        ("nothing-opened", "—", "mia —"),
        ("not-applicable", "n/a", "mia n/a"),
        ("error", "error", "mia error"),
        ("void", "void", "mia void"),
        ("refused", "refused", "mia refused"),
    ],
)
def test_a_row_without_a_figure_says_why_and_invents_none(status: str, shown: str, word: str) -> None:
    leakage = (auc(0.99, 0.98, 1.0),) if status == "void" else ()
    one = result(status=status, leakage=leakage, note="the reason")
    text = render([one])["reviews.md"]
    (row,) = cells(text, "outsider")
    assert row["membership AUC"] == shown
    assert row["status"] == word
    assert "0.5" not in row["membership AUC"]
    assert "0.99" not in text
    assert ("- fedavg, quick, mia, seed 0: " in text) == (status not in ("nothing-opened", "not-applicable"))


def test_an_error_beside_other_seeds_is_counted_and_explained() -> None:
    good = [result(seed=seed) for seed in (0, 1)]
    bad = result(seed=2, status="error", leakage=(), note="ValueError: singular | <b>matrix</b>\nsecond line")
    text = render([*good, bad])["reviews.md"]
    (row,) = cells(text, "outsider")
    assert row["status"] == "mia ok (2), error (1)"
    assert row["seeds"] == "3"
    assert "- fedavg, quick, mia, seed 2: error: ValueError: singular \\| &lt;b>matrix&lt;/b> second line\n" in text


def test_a_thinned_row_counts_and_says_what_it_missed() -> None:
    text = render([result(status="thinned", note="rounds 0-3 were dropped")])["reviews.md"]
    (row,) = cells(text, "outsider")
    assert (row["membership AUC"], row["status"]) == ("0.930 [0.890, 0.962]", "mia thinned")
    assert "seed 0: thinned: rounds 0-3 were dropped" in text


def test_reconstruction_has_its_own_column() -> None:
    (row,) = outsider(result(), result(attack="inversion", leakage=rebuilt(0.95, 0.9, 0.5)))
    assert row["reconstruction"] == "recall 0.950 [0.900, 0.980], precision 0.900, ROUGE-L 0.500"
    assert row["membership AUC"] == "0.930 [0.890, 0.962]"


def rebuilt(recall: float, precision: float, rouge: float) -> tuple[Leakage, ...]:
    return (
        Leakage(name="token_recall", value=recall, low=recall - 0.05, high=recall + 0.03),
        Leakage(name="token_precision", value=precision),
        Leakage(name="rouge_l", value=rouge),
    )


def test_naming_every_token_is_no_strong_reconstruction() -> None:
    everything = result(attack="everything", leakage=rebuilt(1.0, 0.001, 0.0))
    (row,) = outsider(everything, result(attack="inversion", leakage=rebuilt(0.5, 0.4, 0.1)))
    assert row["reconstruction"].startswith("recall 0.500 [0.450, 0.530], precision 0.400")


def test_an_auc_that_is_refused_is_shown_so() -> None:
    (row,) = outsider(result(leakage=(auc(None, note="too few clusters"),)))
    assert (row["membership AUC"], row["by"]) == ("refused", "")


def test_an_attack_that_opened_nothing_here_keeps_the_column_of_its_game() -> None:
    figures = (Leakage(name="token_recall", value=0.95),)
    closed = result(attack="inversion", status="nothing-opened", leakage=())
    opened = result(attack="inversion", adversary="server", leakage=figures)
    (row,) = outsider(result(), closed, opened)
    assert (row["reconstruction"], row["membership AUC"]) == ("—", "0.930 [0.890, 0.962]")
    assert row["status"] == "inversion —, mia ok"


@pytest.mark.parametrize(("value", "shown"), [(1.0, "1.000"), (0.9999, ">0.999"), (0.0001, "<0.001"), (0.0, "0.000")])
def test_rounding_never_makes_certainty(value: float, shown: str) -> None:
    assert outsider(result(leakage=(auc(value),)))[0]["membership AUC"] == shown


# -- several seeds -------------------------------------------------------------------------------------------------


def test_several_seeds_give_a_mean_with_an_interval_over_runs() -> None:
    values = [0.80, 0.84, 0.91]
    results = [
        result(
            seed=i, leakage=(auc(v, v - 0.01, v + 0.01),), utility=(Utility(name="perplexity", value=20 + i, base=30),)
        )
        for i, v in enumerate(values)
    ]
    (row,) = outsider(*results)
    mean, error = sum(values) / 3, stats.sem(values)
    low, high = stats.t.interval(0.95, 2, loc=mean, scale=error)
    assert row["membership AUC"] == f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    low, high = stats.t.interval(0.95, 2, loc=21, scale=stats.sem([20, 21, 22]))
    assert row["utility (base model)"] == f"perplexity 21.00 [{low:.2f}, {high:.2f}] (base 30.00)"
    assert row["seeds"] == "3"


def test_runs_that_agree_have_their_own_limits_over_records_behind_them() -> None:
    """Two runs of the same AUC agree by luck; each is known to 0.1 below and 0.02 above: sqrt(2) 0.1 / 2 below."""
    (row,) = outsider(*(result(seed=i, leakage=(auc(0.97, 0.87, 0.99),)) for i in range(2)))
    assert row["membership AUC"] == f"0.970 [{0.97 - 0.1 / 2**0.5:.3f}, {0.97 + 0.02 / 2**0.5:.3f}]"
    assert row["membership AUC"] == "0.970 [0.899, 0.984]"


def test_an_interval_over_runs_stays_inside_zero_and_one() -> None:
    (row,) = outsider(*(result(seed=i, leakage=(auc(v),)) for i, v in enumerate([0.7, 0.9999])))
    assert row["membership AUC"].endswith("1.000]")


def test_a_figure_that_one_seed_refuses_is_refused() -> None:
    tpr = [Leakage(name="tpr@1%", value=value) for value in (0.2, None)]
    (row,) = outsider(*(result(seed=i, leakage=(auc(0.8), one)) for i, one in enumerate(tpr)))
    assert row["TPR at 1% FPR"] == "refused"


def test_rows_of_different_settings_are_not_averaged_and_say_what_differs() -> None:
    spec = run_spec("noisy")
    other = {**spec, "defense": [{"name": "noisy", "config": {"sigma": 2}}]}
    spec = {**spec, "defense": [{"name": "noisy", "config": {"sigma": 1}}]}
    longer = run_spec("plain", federation__rounds=8)
    first, second, third, fourth = outsider(
        result(defense="noisy", spec={"run": other}),
        result(defense="noisy", spec={"run": spec}),
        result(defense="plain", spec={"run": longer}),
        result(defense="plain"),
    )
    assert [row["defense"] for row in (first, second)] == [
        f"noisy (federation.rounds=3, noisy.sigma={sigma})" for sigma in (1, 2)
    ]
    assert [row["defense"] for row in (third, fourth)] == [f"plain (federation.rounds={rounds})" for rounds in (3, 8)]


# -- the other columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "shown"),
    [
        ([None], "∞"),
        ([Claim()], "∞"),
        ([Claim(epsilon=7.9876, delta=1.25e-4, unit="record")], "7.99 (δ 0.000125, record)"),
        ([Claim(epsilon=1.0), Claim(epsilon=2.0)], "2"),
        ([Claim(epsilon=1.0), Claim()], "∞"),
    ],
)
def test_epsilon_is_the_largest_and_infinite_where_nothing_is_promised(claims: list[Claim | None], shown: str) -> None:
    (row,) = outsider(*(result(seed=i, claim=claim) for i, claim in enumerate(claims)))
    assert row["ε"] == shown


def test_marks_are_shown() -> None:
    one = result(
        simulated=("key dealer",),
        adaptive=True,
        active=True,
        audit={"canaries": 10},
        learned=False,
        provenance={"preset": "smoke", "dirty": True},
    )
    (row,) = outsider(one)
    marks = "did not learn; simulated: key dealer; adaptive; active; audit; uncommitted code"
    assert row["status"] == f"ok; {marks}"
    assert row["preset"] == "smoke (tests only)"


def test_costs_of_attacks_on_one_training_are_counted_once() -> None:
    dear = {"phases": {"train": {"wall_s": 400.0}}, "up_per_silo_round": 10e9, "down_per_silo_round": 0}
    cheap = {"phases": {"train": {"wall_s": 200.0}}, "up_per_silo_round": 2e9, "down_per_silo_round": 0}
    one = [result(attack=name, cost=dear) for name in ("a", "b", "c")]
    (row,) = outsider(*one, result(attack="a", seed=1, cost=cheap))
    assert row["bytes up / down"] == "6 GB / 0 B"
    assert row["train / channel"] == "5 min 00 s / 0.00 s"


@pytest.mark.parametrize("cost", [{}, {"phases": 3}, {"up_per_silo_round": "x"}, {"phases": {"train": {"wall_s": []}}}])
def test_costs_that_were_not_measured_are_blank_or_zero_never_a_crash(cost: dict[str, Any]) -> None:
    (row,) = outsider(result(cost=cost))
    assert row["bytes up / down"] == ""


def test_text_from_a_file_cannot_leave_its_cell_or_be_markup() -> None:
    nasty = "a | b\n# c <img src=x> [d](e) `f` *g*"
    one = result(task=nasty, defense=nasty, attack=nasty, adversary=nasty, utility=(), note=nasty, status="thinned")
    pages = render([one])
    text = "\n".join(pages.values())
    assert "<img" not in text
    assert "\n# c" not in text
    assert "[d](e)" not in text
    widths = {line.count(" | ") for line in text.split("\n") if line.startswith("| ") and "membership" in line}
    assert widths == {14}


def test_an_organisation_s_name_is_no_markup() -> None:
    named = (Organisation(silo="silo-0", name="<b>Nord|[a](b)", records=160),)
    page = render([result(organisations=named), result(defense="other", organisations=named)], ())["reviews.md"]
    assert page.count("\n- organisations: &lt;b>Nord\\|\\[a\\](b) (silo-0, 160 records)\n") == 1


def test_tasks_whose_file_names_would_collide_get_their_own() -> None:
    pages = render([result(task=task) for task in ("a:b", "a-b", "README", "ok")])
    assert len(pages) == 5
    assert "ok.md" in pages
    assert "readme.md" not in {name.lower() for name in pages if name != "README.md"}
    assert all("/" not in name for name in pages)


def test_no_results_is_a_page_too() -> None:
    assert "No results yet." in render([])["README.md"]


# -- staleness -----------------------------------------------------------------------------------------------------


class Registry:
    """Knows every plug-in but ``gone``, each of version 3."""

    version = 3

    def find(self, kind: str, name: str) -> Registry:
        if name == "gone":
            raise UsageError("no such plug-in")
        return self


def test_a_row_is_stale_where_a_version_rose_or_is_unknown_or_its_plug_in_is_gone() -> None:
    now = {"task/reviews": 3, "defense/fedavg": 3, "attack/mia": 3, **harness()}
    fresh = result(versions=now)
    other_code = result(seed=1, versions=now, fingerprint="0" * 64)
    attack_rose, harness_rose = (
        result(seed=2, versions=now | {"attack/mia": 2}),
        result(seed=3, versions=now | {"VIEWS": now["VIEWS"] + 1}),
    )
    unknown, gone = result(seed=4), result(defense="gone", versions=now)
    found = stale_ids([fresh, other_code, attack_rose, harness_rose, unknown, gone], Registry())  # type: ignore[arg-type]
    assert found == {one.result for one in (attack_rose, harness_rose, unknown, gone)}


def test_stale_is_shown_and_changes_no_figure() -> None:
    first, second = result(), result(seed=1)
    (row,) = outsider(first, second, stale={second.result})
    (plain,) = outsider(first, second)
    assert row["status"] == "ok; stale (1 of 2)"
    assert {**row, "status": ""} == {**plain, "status": ""}


# -- files ---------------------------------------------------------------------------------------------------------


def save(folder: Path, name: str, *results: Result) -> Path:
    path = folder / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(one.to_json() + "\n" for one in results))
    return path


def test_writing_then_checking_agrees(tmp_path: Path) -> None:
    rendered = render(golden_results())
    assert write(tmp_path, rendered) == ("README.md", "reviews.md")
    assert write(tmp_path, rendered) == ()
    found = check(tmp_path, rendered)
    assert (found.differing, found.stale) == ((), ())


def test_check_names_the_file_that_differs(tmp_path: Path) -> None:
    results = golden_results()
    write(tmp_path, render(results))
    changed = render([*results[:2], results[2].model_copy(update={"status": "error"})])
    assert check(tmp_path, changed).differing == (f"{tmp_path / 'reviews.md'} differs from what the results give",)
    (tmp_path / "README.md").unlink()
    assert check(tmp_path, render(results)).differing == (f"{tmp_path / 'README.md'} is missing",)
    one_task_less = {"README.md": render([])["README.md"]}
    assert f"{tmp_path / 'reviews.md'} belongs to no result any more" in check(tmp_path, one_task_less).differing


@pytest.mark.parametrize(
    ("old", "new"), [("0.930", "0.931"), ("mia —", "mia ok"), ("plain", "p1ain"), ("did not learn", "")]
)
def test_check_finds_every_edit(tmp_path: Path, old: str, new: str) -> None:
    rendered = render(golden_results())
    write(tmp_path, rendered)
    path = tmp_path / "reviews.md"
    path.write_text(path.read_text().replace(old, new, 1))
    assert check(tmp_path, rendered).differing


def test_check_passes_where_only_stale_marks_differ_and_says_so(tmp_path: Path) -> None:
    results = golden_results()
    write(tmp_path, render(results, {results[0].result}))
    for stale in ({one.result for one in results}, set()):
        found = check(tmp_path, render(results, stale))
        assert (found.differing, found.stale) == ((), ("reviews.md",))


def test_pages_of_tasks_that_are_gone_are_removed_and_other_files_are_not(tmp_path: Path) -> None:
    write(tmp_path, render(golden_results()))
    (tmp_path / "NOTES.md").write_text("mine")
    assert write(tmp_path, render([])) == ("README.md", "reviews.md")
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["NOTES.md", "README.md"]


def test_loading_names_the_line_that_is_malformed(tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", result())
    path.write_text(path.read_text() + "\n{broken\n")
    with pytest.raises(UsageError, match=r"a\.jsonl line 3 is not valid JSON"):
        load(tmp_path)


def test_a_result_may_hold_unicode_line_separators(tmp_path: Path) -> None:
    one = result(note="a\u2028b\u0085c\x0bd")
    save(tmp_path, "a.jsonl", one)
    assert load(tmp_path) == (one,)


def test_the_same_result_twice_is_refused_unless_one_supersedes_the_other(tmp_path: Path) -> None:
    first, second = result(), result(note="again")
    save(tmp_path, "a.jsonl", first)
    save(tmp_path, "b.jsonl", second)
    with pytest.raises(UsageError, match=r"a\.jsonl line 1 and .*b\.jsonl line 1 hold the same result"):
        load(tmp_path)
    later = second.model_copy(update={"supersedes": sha256(first.to_json())})
    latest = result(note="third", supersedes=sha256(later.to_json()))
    save(tmp_path, "b.jsonl", later)
    assert load(tmp_path) == (later,)
    save(tmp_path, "c.jsonl", latest)
    assert load(tmp_path) == (latest,)
    save(tmp_path, "c.jsonl", latest, latest)
    with pytest.raises(UsageError, match="hold the same result"):
        load(tmp_path)


# -- adding --------------------------------------------------------------------------------------------------------


SHEET = make_sheet(["a", "b"], ["s", "s"], [0, 1], [True, False], {"x": [1.0, 0.0]}).to_json()


def stored(store: Store, **changes: Any) -> Result:
    """A result in a store, with its scores and its planting."""
    one = store.save_result(result(scores_sha256=store.save_scores(SHEET), **changes))
    planting_id = planting_of(one)
    assert planting_id is not None
    if store.planting(planting_id) is None:
        store.save_planting(planting_id, '{"members": []}')
    return one


def test_results_are_added_with_their_scores_and_plantings(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "boards"
    results = [stored(store, seed=seed) for seed in (2, 0, 1)]
    smoke = stored(store, provenance={"preset": "smoke"}, seed=5)
    added = add(store, [one.result for one in (*results, smoke)], folder)
    assert {one.result for one in added} == {one.result for one in (*results, smoke)}
    lines = read_lines(folder / "results" / "reviews-quick.jsonl")
    assert [one for _, one in lines] == sorted(results, key=lambda one: one.result)
    assert [one for _, one in read_lines(folder / "results" / "reviews-smoke.jsonl")] == [smoke]
    assert gzip.decompress((folder / "scores" / f"{smoke.scores_sha256}.json.gz").read_bytes()).decode() == SHEET
    assert len(list((folder / "plantings").iterdir())) == 4
    assert add(store, [one.result for one in results], folder) == ()


def test_a_result_that_is_added_again_supersedes_the_committed_one(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "boards"
    first = stored(store)
    other = stored(store, seed=1)
    add(store, [first.result, other.result], folder)
    store.save_result(first.model_copy(update={"note": "again"}))
    (changed,) = add(store, [first.result, other.result], folder)
    assert (changed.note, changed.supersedes) == ("again", sha256(first.to_json()))
    assert load(folder) == tuple(sorted((changed, other), key=lambda one: one.result))


def test_the_index_links_tables_of_attacks_against_defenses(tmp_path: Path) -> None:
    from bench.board import matrix

    assert matrix.pages(tmp_path) == []
    (tmp_path / "matrix").mkdir()
    (tmp_path / "matrix" / f"reviews-quick{matrix.CELLS}").write_bytes(b"")
    pages = matrix.pages(tmp_path)
    text = render([result()], (), pages)["README.md"]
    assert "for every adversary: [reviews-quick](matrix/reviews-quick.md)." in text
    assert "matrix" not in render([result()])["README.md"]


def test_a_replaced_result_s_scores_go_where_no_other_result_has_them(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "boards"
    first, other = stored(store), stored(store, seed=1)
    add(store, [first.result, other.result], folder)
    again = store.save_scores(make_sheet(["a", "b"], ["s", "s"], [0, 1], [True, False], {"x": [2.0, 0.0]}).to_json())
    store.save_result(first.model_copy(update={"scores_sha256": again}))
    add(store, [first.result], folder)
    names = {path.name for path in (folder / "scores").iterdir()}
    assert names == {f"{again}.json.gz", f"{other.scores_sha256}.json.gz"}
    store.save_result(other.model_copy(update={"scores_sha256": again}))
    add(store, [other.result], folder)
    assert {path.name for path in (folder / "scores").iterdir()} == {f"{again}.json.gz"}


def test_nothing_is_added_where_one_cannot_be(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "boards"
    good = stored(store)
    lost = store.save_result(result(seed=1, scores_sha256="0" * 64))
    with pytest.raises(UsageError, match=rf"scores of result {lost.result} are not in the store"):
        add(store, [good.result, lost.result], folder)
    with pytest.raises(UsageError, match="has no result 00000000"):
        add(store, [good.result, "00000000"], folder)
    assert not folder.exists()


def test_a_result_of_another_planting_is_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "boards"
    mine, theirs = Store(tmp_path / "mine"), Store(tmp_path / "theirs")
    add(mine, [stored(mine).result], folder)
    foreign = result(defense="new", scores_sha256=theirs.save_scores(SHEET))
    theirs.save_result(foreign)
    planting_id = planting_of(foreign)
    assert planting_id == planting_of(result())
    theirs.save_planting(str(planting_id), "drawn elsewhere")
    with pytest.raises(UsageError, match="another planting"):
        add(theirs, [foreign.result], folder)
    assert len(load(folder)) == 1
