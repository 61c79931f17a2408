"""The store: one holder per run, plantings drawn once, results that are never lost."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UsageError
from bench.spec.canonical import sha256
from bench.spec.result import NewerSchema
from bench.store.locks import Holder, Taken
from bench.store.store import Store
from bench.store.usage import usage
from tests.results_factory import auc, result

RUN = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def everything(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_the_root_is_the_argument_then_the_variable_then_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SILOBENCH_STORE", "elsewhere")
    assert Store(Path("here")).root == Path("here")
    assert Store().root == Path("elsewhere")
    monkeypatch.setenv("SILOBENCH_STORE", "")
    assert Store().root == Path(".silobench")


def test_reading_creates_nothing(store: Store) -> None:
    assert store.result(RUN) is None
    assert store.planting(RUN) is None
    assert store.scores("0" * 64) is None
    assert store.summary(RUN) is None
    assert list(store.results()) == []
    assert list(store.runs()) == []
    assert usage(store).bytes == 0
    assert not store.root.exists()


# -- the root --------------------------------------------------------------------------------------------------------


def test_a_root_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="can't be read"):
        Store(tmp_path / "file")
    store = Store(tmp_path / "later")
    (tmp_path / "later").write_text("no folder either")
    with pytest.raises(UsageError, match="can't be"):
        store.save_result(result())
    with pytest.raises(UsageError, match="can't be written"), store.lock(RUN):
        pass


def test_another_layout_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "runs" / RUN).mkdir(parents=True)
    with pytest.raises(UsageError, match=r"old is of an earlier layout \(1; .* keeps 2\): move it away .*--store"):
        Store(old)
    store = Store(tmp_path / "new")
    store.save_result(result())
    assert Store(store.root).result(result().result) is not None
    (store.root / "store.json").write_text('{"layout": 3}')
    with pytest.raises(UsageError, match=r"a later layout .*upgrade silobench"):
        Store(store.root)
    (store.root / "store.json").write_text('{"layout": "2"}')
    with pytest.raises(UsageError, match="layout"):
        Store(store.root)


def test_a_temporary_file_is_never_taken_for_a_result(store: Store) -> None:
    store.save_result(result())
    leftover = store.root / "results" / "ffffffffffffffff.json.12-ab.partial"
    leftover.write_text("{")
    assert len(list(store.results())) == 1
    assert usage(store).leftovers == 1


# -- ids -----------------------------------------------------------------------------------------------------------

HOSTILE = [
    "",
    "..",
    "../../etc/passwd",
    "ABCDEF0123456789",
    "0123456789abcdeg",
    "0" * 65,
    "0123",
    "a/b",
    RUN + "\n",
    "\0",
]


@pytest.mark.parametrize("bad", HOSTILE)
def test_an_id_that_is_not_hexadecimal_touches_no_path(store: Store, bad: str) -> None:
    for call in (
        lambda: store.run_dir(bad),
        lambda: store.result(bad),
        lambda: store.planting(bad),
        lambda: store.save_planting(bad, "{}"),
        lambda: store.scores(bad),
        lambda: store.save_summary(bad, {}),
        lambda: store.discard_run(bad),
        lambda: store.lock(bad).__enter__(),
        lambda: store.save_result(result(result=bad)),
        lambda: store.adopt(store.root, [bad]),
    ):
        with pytest.raises(UsageError, match=r"is no (id|SHA-256)"):
            call()
    assert not store.root.exists()


# -- locks ---------------------------------------------------------------------------------------------------------


def test_a_run_that_is_held_is_refused_with_its_store_and_another_run_is_free(store: Store) -> None:
    with store.lock(RUN, Holder("holding")) as directory:
        assert directory == store.run_dir(RUN)
        assert directory.is_dir()
        says = rf"Run {RUN} in the store {store.root} is held by another process \(process {os.getpid()}, holding\)"
        with pytest.raises(Taken, match=says):
            Store(store.root).lock(RUN).__enter__()
        with store.lock("fedcba9876543210"):
            pass


# -- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_spec_and_summary(store: Store) -> None:
    store.save_spec(RUN, {"b": 1, "a": [1.5, "é"]})
    store.save_summary(RUN, {"utility": []})
    assert store.spec(RUN) == {"a": [1.5, "é"], "b": 1}
    assert store.summary(RUN) == {"utility": []}
    assert list(store.runs()) == [RUN]
    (store.run_dir(RUN) / "run.json").write_text("[]")
    with pytest.raises(
        UsageError, match=r"run\.json is malformed: it should be an object, not \[\]\. Remove .* again\.$"
    ):
        store.summary(RUN)


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}", '{"a": "\\ud800"}'])
def test_a_damaged_file_is_named_with_what_to_remove(store: Store, text: str) -> None:
    store.save_spec(RUN, {})
    store.save_sources(RUN, {})
    (store.run_dir(RUN) / "spec.json").write_text(text)
    with pytest.raises(UsageError, match=rf"spec\.json is .*\. Remove {store.run_dir(RUN)} and run again\.$"):
        store.spec(RUN)
    path = store.root / "sources" / f"{RUN}.json"
    for damaged in (text, '{"a": 1}', '{"a": null}'):
        path.write_text(damaged)
        with pytest.raises(UsageError, match=rf"{RUN}\.json is .*\. Remove {path} and run again\.$"):
            store.sources(RUN)


@pytest.mark.parametrize("layout", ["null", "true", '"2"', "2.0", "1e999", '"²"'])
def test_a_layout_that_is_no_number_is_named(store: Store, layout: str) -> None:
    store.save_spec(RUN, {})
    (store.root / "store.json").write_text(f'{{"format": "silobench-store", "layout": {layout}}}')
    with pytest.raises(UsageError, match=r"store\.json is malformed: 'layout' should be a valid integer, not "):
        Store(store.root)


def test_a_discarded_run_is_gone_and_so_is_one_whose_removal_was_killed(store: Store) -> None:
    store.save_summary(RUN, {})
    half = store.run_dir(RUN).with_name(f"{RUN}.0a.partial")
    half.mkdir()
    (half / "frames.bin").write_text("x")
    store.discard_run(RUN)
    assert everything(store.root) == ["runs"]
    store.discard_run(RUN)


# -- plantings -----------------------------------------------------------------------------------------------------


def test_a_planting_is_never_overwritten(store: Store) -> None:
    store.save_planting(RUN, "one")
    store.save_planting(RUN, "one")
    with pytest.raises(UsageError, match=rf"{RUN}\.json is kept as it is .*--store"):
        store.save_planting(RUN, "two")
    assert store.planting(RUN) == "one"


def draw_slowly(root: Path, name: str) -> str:
    def draw() -> str:
        time.sleep(0.2)
        return name

    return Store(root).draw_planting(RUN, draw)


def test_processes_that_draw_at_once_get_the_same_planting(store: Store) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        drawn = pool.starmap(draw_slowly, [(store.root, f"draw {i}") for i in range(3)])
    assert len(set(drawn)) == 1
    assert store.planting(RUN) == drawn[0]


def test_committed_plantings_are_adopted_once_and_never_over_others(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "plantings"
    folder.mkdir()
    (folder / f"{RUN}.json").write_text("committed")
    (folder / "aaaaaaaaaaaaaaaa.json").write_text("another")
    (folder / "notes.json").write_text("not a planting")
    assert store.adopt(folder, [RUN]) == (RUN,)
    assert store.planting(RUN) == "committed"
    assert store.planting("aaaaaaaaaaaaaaaa") is None
    assert store.adopt(folder) == ("aaaaaaaaaaaaaaaa",)
    assert store.adopt(folder) == ()
    assert store.adopt(tmp_path / "nowhere") == ()
    other = Store(tmp_path / "other")
    other.save_planting(RUN, "drawn here")
    with pytest.raises(UsageError, match="can't be paired"):
        other.adopt(folder, [RUN])
    assert other.planting(RUN) == "drawn here"


# -- results and scores --------------------------------------------------------------------------------------------


def test_results_come_back_in_the_order_of_their_ids(store: Store) -> None:
    saved = [store.save_result(result(seed=seed)) for seed in range(5)]
    assert list(store.results()) == sorted(saved, key=lambda one: one.result)
    assert store.result(saved[3].result) == saved[3]


def test_saving_the_same_result_again_changes_nothing(store: Store) -> None:
    first = store.save_result(result())
    before = (store.root / "results" / f"{first.result}.json").stat().st_ino
    assert store.save_result(result()) == first
    assert first.supersedes is None
    assert (store.root / "results" / f"{first.result}.json").stat().st_ino == before


def test_another_result_of_the_same_id_supersedes_and_keeps_the_former(store: Store) -> None:
    first = store.save_result(result())
    second = store.save_result(result(leakage=(auc(0.94),)))
    assert second.supersedes == sha256(first.to_json())
    assert store.save_result(result(leakage=(auc(0.94),))) == second
    third = store.save_result(result(leakage=(auc(0.95),)))
    assert third.supersedes == sha256(second.to_json())
    assert store.result(first.result) == third
    old = {path.read_text() for path in (store.root / "results" / "old").iterdir()}
    assert old == {first.to_json(), second.to_json()}
    assert list(store.results()) == [third]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"{}", b"", b'{"schema": 1}'])
def test_a_damaged_result_is_named_with_what_to_do(store: Store, content: bytes) -> None:
    one = store.save_result(result())
    path = store.root / "results" / f"{one.result}.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{one.result}\.json .*[Rr]emove .*run again"):
        store.result(one.result)
    with pytest.raises(UsageError, match="run again"):
        list(store.results())


def test_a_result_under_a_foreign_name_is_damaged(store: Store) -> None:
    one = store.save_result(result())
    (store.root / "results" / "00000000000000aa.json").write_text(one.to_json())
    with pytest.raises(UsageError, match=r"00000000000000aa\.json is damaged"):
        store.result("00000000000000aa")


def test_a_newer_result_asks_for_an_upgrade_and_is_not_to_be_removed(store: Store) -> None:
    one = store.save_result(result())
    path = store.root / "results" / f"{one.result}.json"
    path.write_text(one.to_json().replace('"schema":2', '"schema":99'))
    with pytest.raises(NewerSchema, match="upgrade") as caught:
        store.result(one.result)
    assert "remove" not in str(caught.value).lower()
    with pytest.raises(NewerSchema):
        store.save_result(result())
    assert '"schema":99' in path.read_text()


@given(text=st.text(st.characters(codec="utf-8"), max_size=50))
def test_scores_are_kept_by_their_digest(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    digest = store.save_scores(text)
    assert digest == sha256(text)
    assert store.save_scores(text) == digest
    assert store.scores(digest) == text


def test_altered_scores_are_noticed(store: Store) -> None:
    digest = store.save_scores('{"auc": 1}')
    store.scores_path(digest).write_text('{"auc": 2}')
    with pytest.raises(UsageError, match=r"\.json is damaged: its SHA-256"):
        store.scores(digest)


def test_usage_counts_what_is_there(store: Store) -> None:
    store.save_result(result())
    store.save_scores("{}")
    store.save_planting(RUN, "{}")
    store.save_summary(RUN, {})
    used = usage(store)
    assert (used.results, used.scores, used.plantings, used.runs, used.leftovers) == (1, 1, 1, 1, 0)
    assert used.bytes == sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
