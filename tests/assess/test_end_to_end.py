"""The spine, run whole on the smallest setting: visibility out of keys and bytes, pairing, resume, exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bench import stats
from bench.cli.main import main
from bench.games.sheet import load
from bench.spec.result import RESULT_SCHEMA, Result
from bench.store.store import Store

#: a federation of seconds: few notes, one epoch
SMALL = (
    "pool.candidates=8",
    "pool.validation=4",
    "pool.heldout=8",
    "pool.population=16",
    "pool.max_tokens=48",
    "federation.local.epochs=1",
    "federation.rounds=2",
    "clinical-notes.notes=200",
)

ONE_ROUND = tuple(value.replace("rounds=2", "rounds=1") for value in SMALL)


@dataclass(frozen=True)
class Done:
    """What a command gave: exit code and both outputs."""

    returncode: int
    stdout: str
    stderr: str


def arguments(words: Sequence[str], store: Path, sets: Sequence[str]) -> list[str]:
    return [*words, "--store", str(store), *(part for value in sets for part in ("--set", value))]


def bench(*words: str, store: Path, sets: Sequence[str] = SMALL) -> Done:
    """The command line, in this process: torch and the model's code are imported once for all tests."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments(words, store, sets))
    return Done(code, out.getvalue(), err.getvalue())


def rows(done: Done | subprocess.CompletedProcess[str]) -> dict[tuple[str, str, str], Result]:
    assert done.returncode == 0, done.stderr[-3000:]
    found = [Result.from_json(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(r.defense, r.attack, r.adversary): r for r in found}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


#: scores that count tokens (first choices, signs): the last digits of an adapter can move one by a whole token
COUNTS = {"accuracy", "accuracy-base", "ez", "wbc"}
#: plain gradient descent: AdamW's first steps are signs, which turn the last digits of a sum into steps of full size
SMOOTH = (*SMALL, "federation.local.optimizer=sgd", "federation.local.lr=0.3")


@pytest.fixture(scope="module")
def smooth(store: Path) -> dict[tuple[str, str, str], Result]:
    """fedshield and the same pruning in clear, from updates that depend smoothly on the adapter."""
    words = ("run", "--preset", "smoke", "--defense", "fedshield,prune", "--attack", "mia", "--json")
    return rows(bench(*words, "--adversary", "outsider,server+silo", store=store, sets=SMOOTH))


@pytest.fixture(scope="module")
def grid(store: Path) -> dict[tuple[str, str, str], Result]:
    """fedavg and fedshield, every adversary, one training each."""
    words = ("run", "--preset", "smoke", "--defense", "fedavg,fedshield", "--attack", "mia", "--json")
    return rows(bench(*words, store=store))


def test_visibility_comes_out_of_keys_and_bytes(grid: dict[tuple[str, str, str], Result]) -> None:
    assert len(grid) == 12
    assert {r.status for r in grid.values()} == {"ok"}
    reads = {key: " ".join(r.reads) for key, r in grid.items()}
    assert "upload" in reads["fedavg", "mia", "server"]
    # the release is all that a server without the key reads: the outsider's row, figure by figure
    server, outsider = grid["fedshield", "mia", "server"], grid["fedshield", "mia", "outsider"]
    assert "upload" not in reads["fedshield", "mia", "server"]
    figures = [{f.name: f.value for f in r.leakage if not f.name.startswith("auc-over:")} for r in (server, outsider)]
    assert figures[0] == figures[1]
    over = {f.name: f.value for f in server.leakage if f.name.startswith("auc-over:")}
    assert over.keys() == {"auc-over:user", "auc-over:outsider"}
    assert over["auc-over:outsider"] == 0
    # one key for all silos: the server with any silo reads every upload
    assert "upload" in reads["fedshield", "mia", "server+silo"]
    assert "upload" in reads["fedshield", "mia", "all-but-one"]
    assert "quer" in reads["fedavg", "mia", "user"]


def scores(store: Path, result: Result) -> dict[str, np.ndarray]:
    assert result.scores_sha256 is not None
    text = Store(store).scores(result.scores_sha256)
    assert text is not None
    sheet = load(text)
    order = np.argsort(np.array(sheet.ids))  # type: ignore[union-attr]
    return {name: np.asarray(values)[order] for name, values in sheet.scores.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("adversary", ["outsider", "server+silo"])
def test_fedshield_leaks_what_its_pruning_in_clear_leaks(
    store: Path, smooth: dict[tuple[str, str, str], Result], adversary: str
) -> None:
    sealed = scores(store, smooth["fedshield", "mia", adversary])
    clear = scores(store, smooth["prune", "mia", adversary])
    assert sealed.keys() == clear.keys()
    assert sealed.keys() > COUNTS
    # what the coalition itself reads: its part the server reads less of the one than of the other
    for name in (name for name in sealed if "@" not in name and name not in COUNTS):
        np.testing.assert_allclose(sealed[name], clear[name], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("preset", ["smoke", pytest.param("quick", marks=pytest.mark.slow)])
def test_every_round_s_model_scores_as_the_clear_average_of_the_same_uploads(tmp_path: Path, preset: str) -> None:
    """FedShield's own pruned uploads, averaged in clear: no candidate's score moves by 1e-3 in any round."""
    from attacks.scores import from_pair, from_stats
    from bench.assets.assets import Assets
    from bench.core.frames import decode_adapter
    from bench.plugins.find import Plugins
    from bench.training.materials import Workshop
    from bench.training.origin import read_origin
    from bench.transcript.transcript import Transcript

    sets = (*SMALL, "federation.release=every-round") if preset == "smoke" else ("federation.release=every-round",)
    words = (
        "run",
        "--preset",
        preset,
        "--defense",
        "fedshield",
        "--attack",
        "mia",
        "--adversary",
        "outsider",
        "--json",
    )
    (result,) = rows(bench(*words, store=tmp_path, sets=sets)).values()
    transcript = Transcript(tmp_path / "runs" / result.run / "transcript")
    spec, seed, (planting, _) = read_origin(transcript)
    materials = Workshop(Plugins(), Assets(quiet=True)).materials(spec, seed)
    ids = sorted(i for side in (planting.members, planting.nonmembers) for held in side.values() for i in held)
    tokens, texts, model = materials.tokens(ids), materials.texts(ids), materials.model

    def scored(adapter: np.ndarray | None) -> dict[str, np.ndarray]:
        model.set_adapter(adapter)
        stats = model.stats(tokens)
        found, _ = from_stats(stats, texts, (0.1, 0.2, 0.3))
        model.set_adapter(None)
        return found | from_pair(stats, model.stats(tokens), (2, 4, 8))[0]

    for round in range(transcript.public.rounds):
        silos = transcript.public.participants[round]
        summands = [np.asarray(transcript.truth(round, name), np.float64) for name in silos]
        assert all(round == 0 or (one == 0).any() for one in summands)  # it is pruned
        clear = (sum(summands) / len(silos)).astype(np.float32)
        (release,) = [m for m in transcript.messages([round]) if m.stage == "release"]
        opened = decode_adapter(release.frames(), transcript.public.layout.size)
        assert not np.array_equal(opened, clear)  # it did go through CKKS
        one, other = scored(opened), scored(clear)
        for name in one.keys() - COUNTS:
            np.testing.assert_allclose(one[name], other[name], atol=1e-3, err_msg=f"{name} in round {round}")


def test_every_defense_is_asked_about_the_same_secret(grid: dict[tuple[str, str, str], Result]) -> None:
    assert len({r.provenance["planting"] for r in grid.values()}) == 1


def test_scores_against_an_independent_planting_are_chance(
    store: Path, grid: dict[tuple[str, str, str], Result]
) -> None:
    result = grid["fedavg", "mia", "server"]
    sheet = load(Store(store).scores(str(result.scores_sha256)) or "")
    member = np.asarray(sheet.member)  # type: ignore[union-attr]
    other = np.random.default_rng(np.frombuffer(os.urandom(8), np.uint64)).permutation(member)
    clusters = np.arange(len(member))
    margin = stats.null_margin(other, clusters)
    for values in sheet.scores.values():  # type: ignore[union-attr]
        value = stats.auc(values, other, clusters).value
        assert value is not None
        assert abs(value - 0.5) < margin


def test_the_same_command_answers_from_the_store(store: Path, grid: dict[tuple[str, str, str], Result]) -> None:
    words = ("run", "--preset", "smoke", "--defense", "fedavg,fedshield", "--attack", "mia", "--json")
    probe = "import sys; from bench.cli.main import main; main(); print('torch' in sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", probe, *arguments(words, store, SMALL)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert {k: r.to_json() for k, r in rows(done).items()} == {k: r.to_json() for k, r in grid.items()}
    assert done.stderr.strip().endswith("False"), "an answer from the store must not import torch"


def test_a_training_outlives_a_change_of_what_measures_it(
    store: Path, grid: dict[tuple[str, str, str], Result]
) -> None:
    one = grid["fedavg", "mia", "outsider"]
    run = store / "runs" / one.run
    made = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps(made | {"measured_by": "other code"}))
    (store / "results" / f"{one.result}.json").unlink()
    summary = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(summary | {"utility": [summary["utility"][0] | {"value": 1.0}]}))
    rounds = {p: p.stat().st_mtime_ns for p in (run / "transcript").rglob("*") if p.is_file()}
    words = ("run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--adversary", "outsider", "--json")
    (again,) = rows(bench(*words, store=store)).values()
    assert {p: p.stat().st_mtime_ns for p in (run / "transcript").rglob("*") if p.is_file()} == rounds
    assert again.utility == one.utility
    assert json.loads((run / "spec.json").read_text()) == made


def test_verify_recomputes_every_figure(store: Path, grid: dict[tuple[str, str, str], Result]) -> None:
    done = bench("verify", store=store, sets=())
    assert done.returncode == 0, done.stdout + done.stderr


def test_inversion_at_the_server_needs_an_upload(store: Path, grid: dict[tuple[str, str, str], Result]) -> None:
    words = ("run", "--preset", "smoke", "--defense", "fedavg,fedshield", "--attack", "inversion", "--json")
    found = rows(bench(*words, "--adversary", "server,server+silo", store=store))
    assert found["fedavg", "inversion", "server"].status == "ok"
    assert found["fedshield", "inversion", "server"].status == "nothing-opened"
    assert found["fedshield", "inversion", "server+silo"].status == "ok"
    # the sheet holds grades, and the texts lie apart, for the owner's eyes
    sheet = str(found["fedavg", "inversion", "server"].scores_sha256)
    kept = Store(store)
    details = json.loads(kept.details_path(sheet).read_text())
    texts = [record["text"] for target in details["targets"] for record in target["records"]]
    assert all(len(text) > 10 for text in texts)
    assert not any(text in (kept.scores(sheet) or "") for text in texts)
    assert kept.details_path(sheet).stat().st_mode & 0o777 == 0o600
    assert len(list((store / "details").iterdir())) == 2


def test_without_a_release_a_server_under_fedshield_opens_nothing(tmp_path: Path) -> None:
    words = ("run", "--preset", "smoke", "--defense", "fedshield", "--attack", "mia", "--json")
    found = rows(bench(*words, "--set", "federation.release=none", store=tmp_path, sets=ONE_ROUND))
    status = {adversary: r.status for (_, _, adversary), r in found.items()}
    assert status["server"] == status["user"] == status["outsider"] == "nothing-opened"
    assert status["silo"] == status["server+silo"] == status["all-but-one"] == "ok"


def test_a_server_that_holds_the_key_as_in_the_published_code_reads_all(tmp_path: Path) -> None:
    words = ("run", "--preset", "smoke", "--defense", "fedshield", "--attack", "mia", "--adversary", "server", "--json")
    found = rows(bench(*words, "--set", "fedshield.key_holder=server", store=tmp_path, sets=ONE_ROUND))
    assert "upload" in " ".join(found["fedshield", "mia", "server"].reads)


def test_two_silos_read_each_other(tmp_path: Path) -> None:
    words = ("run", "--preset", "smoke", "--defense", "fedshield", "--attack", "mia", "--adversary", "silo", "--json")
    found = rows(bench(*words, "--set", "federation.silos=2", store=tmp_path, sets=ONE_ROUND))
    assert "upload" in " ".join(found["fedshield", "mia", "silo"].reads)


def test_a_killed_run_resumes_without_redrawing_a_finished_round(tmp_path: Path) -> None:
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--adversary", "outsider", "--json"]
    sets = [value.replace("rounds=2", "rounds=6") for value in SMALL]
    command = [sys.executable, "-m", "bench", *arguments(words, tmp_path, sets)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        done = sorted(tmp_path.glob("runs/*/transcript/rounds/000[1-6]/messages.jsonl"))
        if len(done) >= 2 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {
        p: p.read_bytes() for p in tmp_path.glob("runs/*/transcript/rounds/0*/frames.bin") if "partial" not in str(p)
    }
    assert len(kept) >= 2
    found = rows(bench(*words, store=tmp_path, sets=sets))
    assert found["fedavg", "mia", "outsider"].status == "ok"
    assert all(path.read_bytes() == raw for path, raw in kept.items())
    assert not list(tmp_path.glob("runs/*/transcript/*/*.partial"))


def test_dp_sgd_claims_for_a_record_towards_everybody_else(tmp_path: Path) -> None:
    words = ("run", "--preset", "smoke", "--defense", "dp-sgd", "--attack", "mia", "--json")
    found = rows(bench(*words, store=tmp_path))
    for result in found.values():
        claim = result.claim
        assert claim is not None
        assert claim.epsilon is not None
        assert 7.5 < claim.epsilon <= 8.0
        assert (claim.unit, claim.adjacency) == ("record", "add-remove")


def test_secrets_from_a_number_make_no_claim(tmp_path: Path) -> None:
    words = ("run", "--preset", "smoke", "--defense", "dp-sgd", "--attack", "mia", "--adversary", "outsider", "--json")
    results = [next(iter(rows(bench(*words, "--secret-seed", "7", store=tmp_path / s)).values())) for s in ("a", "b")]
    assert all(r.simulated for r in results)
    assert all(r.claim is not None and r.claim.epsilon is None for r in results)
    # and make the run repeatable, bit for bit
    assert results[0].scores_sha256 == results[1].scores_sha256


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--defense", "fedavgg", "--attack", "mia"), "fedavg"),
        (("--defense", "fedavg", "--attack", "mai"), "mia"),
        (("--defense", "fedavg", "--attack", "mia", "--set", "federation.round=3"), "federation.rounds"),
        (("--defense", "fedavg", "--attack", "mia", "--set", "federation.silos=0"), "federation.silos"),
        (("--defense", "fedavg", "--attack", "mia", "--set", "federation.silos=900"), "lower"),
        (("--defense", "fedshield+prune", "--attack", "mia"), "aggregator"),
        (("--defense", "fedavg", "--attack", "mia", "--task", "jsonl:/nowhere.jsonl"), "/nowhere.jsonl"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = bench("run", "--preset", "smoke", *words, store=tmp_path / "store", sets=())
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").rglob("result*"))


def test_json_rows_are_json(grid: dict[tuple[str, str, str], Result]) -> None:
    for result in grid.values():
        assert json.loads(result.to_json())["schema"] == RESULT_SCHEMA
